import io
import struct
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadReport, CallerError, TooLarge
from bridge.server.compression.archives import is_zip
from bridge.server.compression.zip import MAX_DIRECTORY_BYTES, MAX_EXTRA_BYTES, read_zip

ARRIVED = b"<testsuite/>"


def zip_of(*files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content, method)
    return packed.getvalue()


def entry(name: str, *, mode: int) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    return made


def read(archive: bytes) -> list[tuple[str, bytes | None]]:
    entries = read_zip(io.BytesIO(archive), "a.zip")
    return [(name, None if chunks is None else b"".join(chunks)) for name, chunks in entries]


def with_directory(archive: bytes, at: int, layout: str, value: int) -> bytes:
    """Write `value` over what the directory says of the first entry."""
    changed = bytearray(archive)
    struct.pack_into(layout, changed, archive.index(b"PK\x01\x02") + at, value)
    return bytes(changed)


FLAGS, METHOD, CRC, PACKED_SIZE, SIZE, OFFSET = 8, 10, 16, 20, 24, 42


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_come_in_order_with_their_bytes(method):
    files = [("a.xml", ARRIVED), ("dir/b.xml", b""), ("报告.xml", b"x" * 200_000)]
    archive = zip_of(*files, method=method)
    assert is_zip(archive)
    assert read(archive) == files


def with_raw_name(raw: bytes, extra: bytes = b"") -> bytes:
    """Return an archive of one file whose name has these bytes and no UTF-8 flag."""
    made = zipfile.ZipInfo("n" * len(raw))
    made.extra = extra
    return zip_of((made, ARRIVED)).replace(b"n" * len(raw), raw)


def unicode_path(name: str, raw: bytes, *, version: int = 1) -> bytes:
    field = struct.pack("<BL", version, zlib.crc32(raw)) + name.encode()
    return struct.pack("<HH", 0x5455, 1) + b"\0" + struct.pack("<HH", 0x7075, len(field)) + field


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
@pytest.mark.parametrize("name", ["测试.xml", "单元测试/登录.xml", "TEST-报告（1）.xml"])
def test_a_name_without_the_utf_8_flag_is_legible(encoding, name):
    assert read(with_raw_name(name.encode(encoding))) == [(name, ARRIVED)]


@pytest.mark.parametrize("name", ["Prüfung.xml", "größe.xml", "élève.xml"])
def test_a_western_name_without_the_utf_8_flag_is_read_as_zip_defines_it(name):
    assert read(with_raw_name(name.encode("cp437"))) == [(name, ARRIVED)]


def test_the_unicode_path_of_info_zip_counts_if_it_belongs_to_the_name():
    raw = "登錄.xml".encode("big5")
    assert read(with_raw_name(raw, unicode_path("登錄.xml", raw))) == [("登錄.xml", ARRIVED)]
    assert read(with_raw_name(raw, unicode_path("登錄.xml", raw, version=2))) != [("登錄.xml", ARRIVED)]
    renamed = "报告.xml".encode("gbk")
    assert read(with_raw_name(renamed, unicode_path("登錄.xml", raw))) == [("报告.xml", ARRIVED)]


def test_an_error_names_the_member_legibly():
    with pytest.raises(BadReport, match=r"a\.zip!测试\.xml is encrypted"):
        read(with_directory(with_raw_name("测试.xml".encode("gbk")), FLAGS, "<H", 1))


def test_an_empty_archive_holds_nothing():
    assert is_zip(zip_of())
    assert read(zip_of()) == []


def test_an_empty_archive_on_the_disk_holds_nothing_either(tmp_path):
    path = tmp_path / "empty.zip"
    path.write_bytes(zip_of())
    with path.open("rb") as file:  # unlike bytes in memory it has no places before its beginning
        assert list(read_zip(file, "empty.zip")) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_comes_twice_each_with_its_bytes():
    assert read(zip_of(("a.xml", b"1"), ("a.xml", b"2"))) == [("a.xml", b"1"), ("a.xml", b"2")]


@pytest.mark.parametrize("name", ["../a.xml", "/etc/passwd", "a\\b.xml", "C:\\a.xml", "%2e%2e/a.xml", "n" * 4000])
def test_a_name_is_data(name):
    assert read(zip_of((name, ARRIVED))) == [(name, ARRIVED)]


@pytest.mark.parametrize(
    "made",
    [entry("dir/", mode=0), entry("link", mode=0o120777), entry("pipe", mode=0o010644), entry("disk", mode=0o060644)],
)
def test_what_is_no_file_has_no_bytes(made):
    assert read(zip_of((made, b""))) == [(made.filename, None)]


def test_an_entry_that_the_packer_calls_a_plain_file_is_one():
    assert read(zip_of((entry("a.xml", mode=0o100644), ARRIVED))) == [("a.xml", ARRIVED)]


def test_an_entry_without_a_name_is_a_file():
    nameless = zip_of(("nameless", ARRIVED)).replace(b"nameless", bytes(8))
    assert read(nameless) == [("", ARRIVED)]


def test_an_encrypted_entry_is_rejected_by_its_name():
    with pytest.raises(BadReport, match=r"a\.zip!b\.xml is encrypted"):
        read(with_directory(zip_of(("b.xml", ARRIVED)), FLAGS, "<H", 1))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_without_bounds_is_rejected(method):
    with pytest.raises(BadReport, match=r"b\.xml uses a compression method"):
        read(zip_of(("b.xml", ARRIVED), method=method))


def test_entries_that_share_bytes_are_rejected():
    archive = zip_of(("a.xml", b"x" * 1000), ("b.xml", b"x" * 1000))
    first = archive.index(b"PK\x01\x02")
    second = archive.index(b"PK\x01\x02", first + 1)
    shared = bytearray(archive)
    struct.pack_into("<L", shared, second + OFFSET, 0)
    with pytest.raises(BadReport, match="overlap"):
        read(bytes(shared))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (SIZE, 1),
        (SIZE, 2**31),
        (SIZE, 0),
        (PACKED_SIZE, 3),
        (PACKED_SIZE, 2**31),
        (CRC, 1),
        (OFFSET, 5),
        (OFFSET, 2**31),
    ],
    ids=["shorter", "longer", "empty", "cut", "beyond", "crc", "offset", "far offset"],
)
def test_a_directory_that_lies_is_rejected(at, value):
    with pytest.raises(BadReport):
        read(with_directory(zip_of(("a.xml", ARRIVED * 100)), at, "<L", value))


def test_an_entry_that_goes_on_beyond_its_size_is_rejected_even_with_the_right_sum():
    archive = with_directory(zip_of(("a.xml", b"x" * 1000)), SIZE, "<L", 500)
    with pytest.raises(BadReport):
        read(with_directory(archive, CRC, "<L", zlib.crc32(b"x" * 500)))


def test_a_directory_is_bounded_before_it_is_read():
    count = MAX_DIRECTORY_BYTES // 46 + 1
    with pytest.raises(TooLarge, match="too large a directory"):
        read(b"PK\x03\x04" + bytes(26) + b"PK\x01\x02".ljust(46, b"\0") * count + end_of(count))


@pytest.mark.parametrize("kind", [1234, 0x7075])
def test_an_extra_field_is_bounded_in_each_member(kind):
    def members(fields: int) -> bytes:
        long = zipfile.ZipInfo("b.xml")
        long.extra = struct.pack("<HH", kind, 0) * fields
        return zip_of(("a.xml", ARRIVED), (long, ARRIVED))

    assert read(members(MAX_EXTRA_BYTES // 4)) == [("a.xml", ARRIVED), ("b.xml", ARRIVED)]
    with pytest.raises(TooLarge, match="too large an extra field"):
        read(members(MAX_EXTRA_BYTES // 4 + 1))


def end_of(count: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, 46 * count, 30, 0)


@pytest.mark.parametrize("archive", [b"", b"PK\x03\x04", b"PK\x05\x06", b"<testsuite/>"])
def test_what_is_no_archive_is_rejected(archive):
    with pytest.raises(BadReport, match=r"a\.zip is damaged"):
        read(archive)


@given(st.integers(0, 10_000))
def test_an_archive_that_ends_too_early_is_rejected(cut_at):
    archive = zip_of(("a.xml", ARRIVED), ("b.xml", b"x" * 100))
    with pytest.raises(BadReport):
        read(archive[: cut_at % len(archive)])


@given(st.data())
def test_any_bytes_are_an_archive_or_rejected(data):
    archive = bytearray(zip_of(("a.xml", ARRIVED * 30), ("b.xml", b"x" * 600)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at] = data.draw(st.integers(0, 255))
    for candidate in (
        bytes(archive),
        data.draw(st.binary(max_size=300)),
        b"PK\x03\x04" + data.draw(st.binary(max_size=300)),
    ):
        try:
            read(candidate)
        except CallerError as error:
            assert error.status in {400, 413}  # noqa: PT017 -- both outcomes are right
