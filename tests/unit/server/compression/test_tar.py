import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadReport, CallerError, TooLarge
from bridge.server.compression.archives import is_tar
from bridge.server.compression.tar import MAX_EXTENSION_BYTES, MAX_EXTENSIONS, MAX_RECORDS, read_tar

ARRIVED = b"<testsuite/>"
FORMATS = pytest.mark.parametrize(
    "format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["ustar", "gnu", "pax"]
)


def header(name: str = "a.xml", *, size: int = 0, **fields) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size = size
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def tar_of(*files: tuple[str, bytes], format_: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format_) as archive:
        for name, content in files:
            archive.addfile(header(name, size=len(content)), io.BytesIO(content))
    return packed.getvalue()


def read(archive: bytes) -> list[tuple[str, bytes | None]]:
    entries = read_tar(io.BytesIO(archive), "a.tar")
    return [(name, None if chunks is None else b"".join(chunks)) for name, chunks in entries]


def block(**fields) -> bytes:
    return header(**fields).tobuf(tarfile.GNU_FORMAT)


END = bytes(2 * tarfile.BLOCKSIZE)


@FORMATS
def test_files_come_in_order_with_their_bytes(format_):
    files = [("a.xml", ARRIVED), ("dir/b.xml", b""), ("c", bytes(512)), ("d", b"x" * 200_000)]
    archive = tar_of(*files, format_=format_)
    assert is_tar(archive[:512])
    assert read(archive) == files


@FORMATS
@pytest.mark.parametrize("name", ["测试.xml", "报告/" * 15 + "TEST.xml", "é.xml"], ids=["short", "long", "western"])
def test_a_name_that_is_not_utf_8_is_legible(format_, name):
    raw = name.encode("cp1252" if "é" in name else "gbk").decode("utf-8", "surrogateescape")
    assert read(tar_of((raw, ARRIVED), format_=format_)) == [(name, ARRIVED)]


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
@pytest.mark.parametrize("name", ["n" * 3000 + ".xml", "报告/" * 40 + "TEST.xml"], ids=["long", "wide"])
def test_a_long_or_foreign_name_comes_whole(format_, name):
    assert read(tar_of((name, ARRIVED), ("b.xml", b""), format_=format_)) == [(name, ARRIVED), ("b.xml", b"")]


def test_a_size_may_stand_in_an_extended_header():
    wrong = header("a.xml", size=len(ARRIVED), pax_headers={"size": str(len(ARRIVED))})
    archive = wrong.tobuf(tarfile.PAX_FORMAT) + ARRIVED.ljust(512, b"\0") + END
    assert read(archive) == [("a.xml", ARRIVED)]


@pytest.mark.parametrize(
    "kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_what_is_no_file_has_no_bytes(kind):
    archive = block(name="x", type=kind, linkname="/etc/passwd") + tar_of(("a.xml", ARRIVED))
    assert read(archive) == [("x", None), ("a.xml", ARRIVED)]


def test_a_file_that_is_not_read_is_left_behind():
    archive = tar_of(("large.log", b"x" * 200_000), ("a.xml", ARRIVED))
    assert [name for name, _ in read_tar(io.BytesIO(archive), "a.tar")] == ["large.log", "a.xml"]


def test_global_headers_are_ignored():
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", pax_headers={"comment": "c0ffee"}) as archive:
        archive.addfile(header(size=len(ARRIVED)), io.BytesIO(ARRIVED))
    assert read(packed.getvalue()) == [("a.xml", ARRIVED)]


@given(st.integers(0, 3 * 512 + 511))
def test_an_archive_that_ends_too_early_is_rejected(cut_at):
    archive = tar_of(("a.xml", ARRIVED), ("b.xml", b""), format_=tarfile.USTAR_FORMAT)
    with pytest.raises(BadReport):
        read(archive[: min(cut_at, 3 * 512)])


@pytest.mark.parametrize(
    "archive",
    [
        b"x" * 512 + END,
        block(size=8**11 - 1) + END,
        block(size=2**70) + END,
        block(size=-1) + END,
        block(size=4, type=tarfile.XHDTYPE) + b"0 a=" + bytes(508) + block() + END,
        block(size=6, type=tarfile.XHDTYPE) + b"6 a=b\n"[:4] + bytes(508) + block() + END,
        block(size=8, type=tarfile.XHDTYPE) + b"99999999 path=x\n".ljust(512, b"\0") + block() + END,
        block(size=11, type=tarfile.XHDTYPE) + "11 size=٣\n".encode().ljust(512, b"\0") + block() + END,
        block(size=12, type=tarfile.XHDTYPE) + b"12 size=9x9\n".ljust(512, b"\0") + block() + END,
    ],
    ids=["no header", "long", "endless", "negative", "no length", "cut", "lying", "foreign digits", "no number"],
)
def test_a_damaged_header_is_rejected(archive):
    with pytest.raises(BadReport, match=r"a\.tar"):
        read(archive)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_extended_header_is_bounded_and_not_read_first(kind):
    size = MAX_EXTENSION_BYTES + 1
    with pytest.raises(TooLarge, match="too long headers"):
        read(block(size=size, type=kind) + bytes(size + -size % 512) + block() + END)


def test_the_records_of_an_extended_header_are_few():
    def member(records: int) -> bytes:
        content = b"5 a=\n" * records
        return block(type=tarfile.XHDTYPE, size=len(content)) + content + bytes(-len(content) % tarfile.BLOCKSIZE)

    assert read(member(MAX_RECORDS) + block() + END) == [("a.xml", b"")]
    with pytest.raises(TooLarge, match="too long headers"):
        read(member(MAX_RECORDS + 1) + block() + END)


def test_extended_headers_without_end_are_rejected():
    long_name = block(size=6, type=tarfile.GNUTYPE_LONGNAME) + b"b.xml\0".ljust(512, b"\0")
    assert read(long_name * MAX_EXTENSIONS + block() + END) == [("b.xml", b"")]
    with pytest.raises(TooLarge):
        read(long_name * (MAX_EXTENSIONS + 1) + block() + END)


@pytest.mark.parametrize(
    "archive",
    [
        block(type=tarfile.GNUTYPE_SPARSE) + END,
        header(pax_headers={"GNU.sparse.major": "1"}).tobuf(tarfile.PAX_FORMAT) + END,
    ],
    ids=["gnu", "pax"],
)
def test_sparse_files_are_rejected(archive):
    with pytest.raises(BadReport, match="sparse"):
        read(archive)


@given(st.data())
def test_any_bytes_are_an_archive_or_rejected(data):
    archive = bytearray(tar_of(("n" * 200, ARRIVED), ("b.xml", b"x" * 600)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at] = data.draw(st.integers(0, 255))
    for candidate in (
        bytes(archive),
        data.draw(st.binary(max_size=1500)),
        block() + data.draw(st.binary(max_size=600)),
    ):
        try:
            read(candidate)
        except CallerError as error:
            assert error.status in {400, 413}  # noqa: PT017 -- both outcomes are right
