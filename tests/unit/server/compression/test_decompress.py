import asyncio
import gzip
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadReport, CallerError, TooLarge
from bridge.server.compression.codecs import PIECE_BYTES, ContentCoding
from bridge.server.compression.decompress import MAX_MEMBERS, DecompressionPipeline, decompressed

MIB = 1 << 20


def brotli_of(data: bytes) -> bytes:
    return brotli.compress(data, quality=4)


def raw_deflate(data: bytes) -> bytes:
    folder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return folder.compress(data) + folder.flush()


FOLD = {
    "gzip": (ContentCoding.GZIP, gzip.compress),
    "zlib": (ContentCoding.DEFLATE, zlib.compress),
    "raw deflate": (ContentCoding.DEFLATE, raw_deflate),
    "br": (ContentCoding.BROTLI, brotli_of),
    "zstd": (ContentCoding.ZSTD, zstd.compress),
}
EACH = pytest.mark.parametrize(("folding", "fold"), FOLD.values(), ids=FOLD)


def unfold(*folded: ContentCoding, stream: bytes, max_bytes: int = MIB, cut: int = 1000) -> bytes:
    """Unfold `stream`, fed in pieces of `cut` bytes."""
    unfolding = DecompressionPipeline(folded, what="The upload", max_bytes=max_bytes)
    plain = b"".join(piece for at in range(0, len(stream), cut) for piece in unfolding.feed(stream[at : at + cut]))
    unfolding.close()
    return plain


@EACH
@given(data=st.binary(max_size=2000), cut=st.integers(1, 3000))
def test_what_was_folded_comes_out_as_it_was_however_the_network_cuts_it(folding, fold, data, cut):
    assert unfold(folding, stream=fold(data), cut=cut) == data


@EACH
def test_a_large_stream_comes_out_in_pieces(folding, fold):
    data = bytes(range(256)) * 8192
    pieces = list(DecompressionPipeline((folding,), what="x", max_bytes=2 * MIB).feed(fold(data)))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 2 * PIECE_BYTES


def test_without_a_folding_everything_comes_through():
    assert unfold(stream=b"<testsuite/>", max_bytes=1) == b"<testsuite/>"


def test_two_foldings_are_undone_in_turn():
    stream = brotli.compress(gzip.compress(b"<testsuite/>"))
    assert unfold(ContentCoding.GZIP, ContentCoding.BROTLI, stream=stream) == b"<testsuite/>"


@EACH
def test_a_stream_of_exactly_the_limit_is_taken(folding, fold):
    assert len(unfold(folding, stream=fold(bytes(MIB)), max_bytes=MIB)) == MIB
    with pytest.raises(TooLarge, match=rf"^The upload decompresses to more than {MIB} bytes"):
        unfold(folding, stream=fold(bytes(MIB + 1)), max_bytes=MIB)


def consume(unfolding: DecompressionPipeline, stream: bytes) -> Iterator[int]:
    """Feed the stream and yield how much has come out so far."""
    came = 0
    for piece in unfolding.feed(stream):
        came += len(piece)
        yield came


@EACH
def test_a_bomb_is_refused_within_a_mebibyte_beyond_the_limit(folding, fold):
    bomb = fold(bytes(64 * MIB))
    unfolding = DecompressionPipeline((folding,), what="The upload", max_bytes=16 * MIB)
    came = []
    tracemalloc.start()
    with pytest.raises(TooLarge):
        came.extend(consume(unfolding, bomb))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 15 * MIB <= came[-1] <= 16 * MIB
    assert peak < 2 * MIB  # so no single step has brought more than that


@EACH
def test_memory_stays_flat_however_much_comes_out(folding, fold, tmp_path):
    bomb = tmp_path / "bomb"
    bomb.write_bytes(fold(bytes(100 * MIB)))
    program = (
        "import resource, sys, pathlib\n"
        "from bridge.server.compression.codecs import ContentCoding\n"
        "from bridge.server.compression.decompress import DecompressionPipeline\n"
        "bomb = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "unfolding = DecompressionPipeline((ContentCoding(sys.argv[2]),), what='x', max_bytes=1 << 30)\n"
        "print(sum(map(len, unfolding.feed(bomb))), (peak() - before) // 1024)\n"
    )
    # Started by a shell: a process begins with the peak of the one that started it.
    command = ["sh", "-c", '"$@"; :', "sh", sys.executable, "-c", program, str(bomb), folding]
    came, grown_mib = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(came) == 100 * MIB
    assert int(grown_mib) < 24  # the largest window, and some pieces


def test_a_bomb_whose_middle_only_is_large_is_refused():
    nothing = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    empty_blocks = nothing.compress(b"") + nothing.flush(zlib.Z_FULL_FLUSH) + b"\x00\x00\x00\xff\xff" * (4 * MIB // 5)
    with pytest.raises(TooLarge):
        unfold(ContentCoding.GZIP, ContentCoding.GZIP, stream=gzip.compress(empty_blocks), max_bytes=MIB)


def test_every_step_of_work_is_short_even_when_nothing_comes_out():
    hollow = gzip.compress(gzip.compress(b"") * 5000)
    unfolding = DecompressionPipeline((ContentCoding.GZIP, ContentCoding.GZIP), what="x", max_bytes=MIB)
    assert len(list(unfolding.feed(hollow))) > 5000


@pytest.mark.parametrize(("folding", "fold"), [FOLD["gzip"], FOLD["zstd"]], ids=["gzip", "zstd"])
class TestSeveralStreamsInARow:
    @pytest.mark.parametrize("cut", [1, 7, 5000])
    def test_are_one_stream(self, folding, fold, cut):
        assert unfold(folding, stream=fold(b"one ") + fold(b"") + fold(b"two"), cut=cut) == b"one two"

    def test_are_bounded_in_number(self, folding, fold):
        assert unfold(folding, stream=fold(b"") * MAX_MEMBERS, cut=MIB) == b""
        with pytest.raises(TooLarge, match="in a row"):
            unfold(folding, stream=fold(b"") * (MAX_MEMBERS + 1), cut=MIB)

    def test_may_not_be_followed_by_anything_else(self, folding, fold):
        for garbage in (b"\0", b"garbage", fold(b"x")[:3]):
            with pytest.raises(BadReport):
                unfold(folding, stream=fold(b"<testsuite/>") + garbage)


@pytest.mark.parametrize("name", ["zlib", "raw deflate", "br"])
@pytest.mark.parametrize("cut", [1, 5000])
def test_nothing_may_stand_behind_the_end(name, cut):
    folding, fold = FOLD[name]
    with pytest.raises(BadReport):
        unfold(folding, stream=fold(b"<testsuite/>") * 2, cut=cut)


@EACH
@given(data=st.data())
def test_a_stream_that_ends_too_early_is_refused(folding, fold, data):
    stream = fold(bytes(range(256)) * 4)
    cut_at = data.draw(st.integers(0, len(stream) - 1))
    with pytest.raises(BadReport, match=r"^The upload ends before its"):
        unfold(folding, stream=stream[:cut_at])


@EACH
def test_a_damaged_stream_is_refused_by_what_it_says_it_is(folding, fold):
    stream = fold(b"<testsuite/>")
    with pytest.raises(BadReport, match=rf"^The upload is not valid {folding} data"):
        unfold(folding, stream=b"\xff" * 2 + stream)


@given(
    folded=st.lists(st.sampled_from(ContentCoding), min_size=1, max_size=2),
    stream=st.binary(max_size=300),
    frame=st.sampled_from([*FOLD]),
)
def test_any_bytes_are_a_stream_or_refused(folded, stream, frame):
    whole = FOLD[frame][1](b"<testsuite/>" * 10)
    for candidate in (stream, whole + stream, whole[:10] + stream):
        try:
            unfold(*folded, stream=candidate, max_bytes=10_000)
        except CallerError as error:
            assert error.status in {400, 413}  # noqa: PT017 -- both outcomes are right


def test_a_zstd_window_beyond_what_the_web_allows_is_refused():
    folder = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    with pytest.raises(BadReport):
        unfold(ContentCoding.ZSTD, stream=folder.compress(b"x") + folder.flush())


async def test_others_have_their_turn_while_a_bomb_unfolds():
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def pieces():
        yield gzip.compress(bytes(8 * MIB))

    beside = asyncio.create_task(other())
    unfolding = DecompressionPipeline((ContentCoding.GZIP,), what="The upload", max_bytes=8 * MIB)
    sizes = [len(piece) async for piece in decompressed(pieces(), unfolding)]
    beside.cancel()
    assert sum(sizes) == 8 * MIB
    assert all(sizes)
    assert turns >= len(sizes)


async def test_the_end_of_the_pieces_is_the_end_of_the_stream():
    async def pieces():
        yield gzip.compress(b"<testsuite/>")[:-1]

    with pytest.raises(BadReport, match="ends before"):
        [
            piece
            async for piece in decompressed(
                pieces(), DecompressionPipeline((ContentCoding.GZIP,), what="The upload", max_bytes=MIB)
            )
        ]
