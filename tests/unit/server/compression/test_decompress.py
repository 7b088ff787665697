import asyncio
import gzip
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadReport, CallerError, TooLarge, Unavailable
from bridge.server.compression.codecs import PIECE_BYTES, ContentCoding, zstd
from bridge.server.compression.decompress import (
    MAX_MEMBERS,
    STATE_BYTES,
    DecompressionMemory,
    DecompressionPipeline,
    MemoryShare,
    decompressed,
)

MIB = 1 << 20


def brotli_of(data: bytes) -> bytes:
    return brotli.compress(data, quality=4)


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


COMPRESS = {
    "gzip": (ContentCoding.GZIP, gzip.compress),
    "zlib": (ContentCoding.DEFLATE, zlib.compress),
    "raw deflate": (ContentCoding.DEFLATE, raw_deflate),
    "br": (ContentCoding.BROTLI, brotli_of),
    "zstd": (ContentCoding.ZSTD, zstd.compress),
}
EACH = pytest.mark.parametrize(("coding", "compress"), COMPRESS.values(), ids=COMPRESS)
IN_A_ROW = pytest.mark.parametrize(("coding", "compress"), [COMPRESS["gzip"], COMPRESS["zstd"]], ids=["gzip", "zstd"])


def decompress(*compressed: ContentCoding, stream: bytes, max_bytes: int = MIB, cut: int = 1000) -> bytes:
    """Decompress `stream`, fed in pieces of `cut` bytes."""
    pipeline = DecompressionPipeline(compressed, what="The upload", max_bytes=max_bytes)
    plain = b"".join(piece for at in range(0, len(stream), cut) for piece in pipeline.feed(stream[at : at + cut]))
    pipeline.close()
    return plain


@EACH
@given(data=st.binary(max_size=2000), cut=st.integers(1, 3000))
def test_what_was_compressed_comes_out_as_it_was_however_the_network_cuts_it(coding, compress, data, cut):
    assert decompress(coding, stream=compress(data), cut=cut) == data


@EACH
def test_a_large_stream_comes_out_in_pieces(coding, compress):
    data = bytes(range(256)) * 8192
    pieces = list(DecompressionPipeline((coding,), what="x", max_bytes=2 * MIB).feed(compress(data)))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 2 * PIECE_BYTES


def test_without_a_coding_everything_comes_through():
    assert decompress(stream=b"<testsuite/>", max_bytes=1) == b"<testsuite/>"


def test_two_codings_are_undone_in_turn():
    stream = brotli.compress(gzip.compress(b"<testsuite/>"))
    assert decompress(ContentCoding.GZIP, ContentCoding.BROTLI, stream=stream) == b"<testsuite/>"


@EACH
def test_a_stream_of_exactly_the_limit_is_taken(coding, compress):
    assert len(decompress(coding, stream=compress(bytes(MIB)), max_bytes=MIB)) == MIB
    with pytest.raises(TooLarge, match=rf"^The upload decompresses to more than {MIB} bytes"):
        decompress(coding, stream=compress(bytes(MIB + 1)), max_bytes=MIB)


def consume(pipeline: DecompressionPipeline, stream: bytes) -> Iterator[int]:
    """Feed the stream and yield how much has come out so far."""
    came = 0
    for piece in pipeline.feed(stream):
        came += len(piece)
        yield came


@EACH
def test_a_bomb_is_rejected_within_a_mebibyte_beyond_the_limit(coding, compress):
    bomb = compress(bytes(64 * MIB))
    pipeline = DecompressionPipeline((coding,), what="The upload", max_bytes=16 * MIB)
    came = []
    tracemalloc.start()
    with pytest.raises(TooLarge):
        came.extend(consume(pipeline, bomb))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 15 * MIB <= came[-1] <= 16 * MIB
    assert peak < 2 * MIB  # so no single step has brought more than that


@EACH
def test_memory_stays_flat_however_much_comes_out(coding, compress, tmp_path):
    bomb = tmp_path / "bomb"
    bomb.write_bytes(compress(bytes(100 * MIB)))
    program = (
        "import resource, sys, pathlib\n"
        "from bridge.server.compression.codecs import ContentCoding\n"
        "from bridge.server.compression.decompress import DecompressionPipeline\n"
        "bomb = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "pipeline = DecompressionPipeline((ContentCoding(sys.argv[2]),), what='x', max_bytes=1 << 30)\n"
        "print(sum(map(len, pipeline.feed(bomb))), (peak() - before) // 1024)\n"
    )
    # Started by a shell: a process begins with the peak of the one that started it.
    command = ["sh", "-c", '"$@"; :', "sh", sys.executable, "-c", program, str(bomb), coding]
    came, grown_mib = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(came) == 100 * MIB
    assert int(grown_mib) < 24  # the largest window, and some pieces


def test_a_bomb_whose_middle_only_is_large_is_rejected():
    nothing = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    empty_blocks = nothing.compress(b"") + nothing.flush(zlib.Z_FULL_FLUSH) + b"\x00\x00\x00\xff\xff" * (4 * MIB // 5)
    with pytest.raises(TooLarge):
        decompress(ContentCoding.GZIP, ContentCoding.GZIP, stream=gzip.compress(empty_blocks), max_bytes=MIB)


def test_every_step_of_work_is_short_even_when_nothing_comes_out():
    hollow = gzip.compress(gzip.compress(b"") * 5000)
    pipeline = DecompressionPipeline((ContentCoding.GZIP, ContentCoding.GZIP), what="x", max_bytes=MIB)
    assert len(list(pipeline.feed(hollow))) > 5000


@IN_A_ROW
@pytest.mark.parametrize("cut", [1, 7, 5000])
def test_several_streams_in_a_row_are_one(coding, compress, cut):
    assert decompress(coding, stream=compress(b"one ") + compress(b"") + compress(b"two"), cut=cut) == b"one two"


@IN_A_ROW
def test_streams_in_a_row_are_bounded_in_number(coding, compress):
    assert decompress(coding, stream=compress(b"") * MAX_MEMBERS, cut=MIB) == b""
    with pytest.raises(TooLarge, match="in a row"):
        decompress(coding, stream=compress(b"") * (MAX_MEMBERS + 1), cut=MIB)


@IN_A_ROW
@pytest.mark.parametrize("garbage", [b"\0", b"garbage", b"half of a stream"])
def test_streams_in_a_row_are_followed_by_nothing_else(coding, compress, garbage):
    following = compress(b"x")[:3] if garbage == b"half of a stream" else garbage
    with pytest.raises(BadReport):
        decompress(coding, stream=compress(b"<testsuite/>") + following)


@pytest.mark.parametrize("name", ["zlib", "raw deflate", "br"])
@pytest.mark.parametrize("cut", [1, 5000])
def test_nothing_may_stand_behind_the_end(name, cut):
    coding, compress = COMPRESS[name]
    with pytest.raises(BadReport):
        decompress(coding, stream=compress(b"<testsuite/>") * 2, cut=cut)


@EACH
@given(data=st.data())
def test_a_stream_that_ends_too_early_is_rejected(coding, compress, data):
    stream = compress(bytes(range(256)) * 4)
    cut_at = data.draw(st.integers(0, len(stream) - 1))
    with pytest.raises(BadReport, match=r"^The upload ends before its"):
        decompress(coding, stream=stream[:cut_at])


@EACH
def test_a_damaged_stream_is_rejected_by_its_coding(coding, compress):
    stream = compress(b"<testsuite/>")
    with pytest.raises(BadReport, match=rf"^The upload is not valid {coding} data"):
        decompress(coding, stream=b"\x11" * 2 + stream)


@given(
    compressed=st.lists(st.sampled_from(ContentCoding), min_size=1, max_size=2),
    stream=st.binary(max_size=300),
    frame=st.sampled_from([*COMPRESS]),
)
def test_any_bytes_are_a_stream_or_rejected(compressed, stream, frame):
    whole = COMPRESS[frame][1](b"<testsuite/>" * 10)
    for candidate in (stream, whole + stream, whole[:10] + stream):
        try:
            decompress(*compressed, stream=candidate, max_bytes=10_000)
        except CallerError as error:
            assert error.status in {400, 413}  # noqa: PT017 -- both outcomes are right


def test_a_zstd_window_beyond_what_the_web_allows_is_rejected():
    folder = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    with pytest.raises(BadReport):
        decompress(ContentCoding.ZSTD, stream=folder.compress(b"x") + folder.flush())


@pytest.mark.parametrize("window_log", range(10, 25))
@pytest.mark.parametrize("cut", [1, 5000])
def test_a_brotli_window_of_more_than_4_mib_is_rejected_whatever_the_stream_holds(window_log, cut):
    stream = brotli.compress(b"<testsuite/>", quality=9, lgwin=window_log)
    if window_log <= 22:
        assert decompress(ContentCoding.BROTLI, stream=stream, cut=cut) == b"<testsuite/>"
    else:
        with pytest.raises(BadReport, match=r"^The upload is compressed with br and a window of more than 4194304"):
            decompress(ContentCoding.BROTLI, stream=stream, cut=cut)


def test_a_brotli_stream_with_the_extension_for_large_windows_is_rejected():
    with pytest.raises(BadReport):
        decompress(ContentCoding.BROTLI, stream=b"\x11\x1e" + bytes(20))


def held_open(memory: DecompressionMemory, party: str, stream: bytes, *codings: ContentCoding) -> Iterator[bytes]:
    """Feed a stream without an end, and yield its pieces; the pipeline frees its memory when this is closed."""
    share = MemoryShare(memory=memory, party=party)
    with DecompressionPipeline(codings, what="x", max_bytes=64 * MIB, share=share) as pipeline:
        yield from pipeline.feed(stream)
        yield b""


WINDOWS = {"br": 4 * MIB, "zstd": 8 * MIB, "gzip": 32 << 10}


@pytest.mark.parametrize("name", WINDOWS)
def test_the_memory_of_all_decompressors_has_a_limit_and_is_given_back(name):
    coding, compress = COMPRESS[name]
    bomb, place = compress(bytes(16 * MIB)), STATE_BYTES + WINDOWS[name]
    memory = DecompressionMemory(max_bytes=2 * place, max_party_bytes=2 * place)
    first, second = (held_open(memory, party, bomb[:-1], coding) for party in ("first", "second"))
    assert sum(map(len, first)) > 0  # ended, so it holds nothing
    for held in (first := held_open(memory, "first", bomb[:-1], coding), second):
        while next(held):
            pass
    with pytest.raises(Unavailable, match="as many uploads as its memory allows") as refused:
        next(held_open(memory, "third", bomb, coding))
    assert refused.value.retry_after_seconds > 0
    first.close()
    assert sum(map(len, held_open(memory, "third", bomb, coding))) == 16 * MIB


@pytest.mark.parametrize("name", WINDOWS)
def test_one_caller_leaves_memory_to_others(name):
    coding, compress = COMPRESS[name]
    bomb, place = compress(bytes(16 * MIB)), STATE_BYTES + WINDOWS[name]
    memory = DecompressionMemory(max_bytes=2 * place, max_party_bytes=place)
    held = held_open(memory, "first", bomb[:-1], coding)
    while next(held):
        pass
    with pytest.raises(Unavailable):
        next(held_open(memory, "first", bomb, coding))
    assert sum(map(len, held_open(memory, "second", bomb, coding))) == 16 * MIB


def test_both_layers_of_a_stream_count():
    stream = brotli_of(gzip.compress(b"<testsuite/>"))
    memory = DecompressionMemory(max_bytes=2 * STATE_BYTES, max_party_bytes=MIB)
    with pytest.raises(Unavailable):
        list(held_open(memory, "first", stream, ContentCoding.GZIP, ContentCoding.BROTLI))


def test_small_streams_take_little_of_the_memory():
    memory = DecompressionMemory(max_bytes=10 * MIB, max_party_bytes=10 * MIB)
    held = [held_open(memory, "first", zstd.compress(b"<testsuite/>"), ContentCoding.ZSTD) for _ in range(50)]
    assert [next(pieces) for pieces in held] == [b"<testsuite/>"] * 50


async def test_others_have_their_turn_while_a_bomb_decompresses():
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def pieces():
        yield gzip.compress(bytes(8 * MIB))

    beside = asyncio.create_task(other())
    pipeline = DecompressionPipeline((ContentCoding.GZIP,), what="The upload", max_bytes=8 * MIB)
    sizes = [len(piece) async for piece in decompressed(pieces(), pipeline)]
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
