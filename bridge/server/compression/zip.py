"""Read the members of a zip file with bounded memory: the directory first, then one member after the other."""

import copy
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from io import SEEK_END
from typing import BinaryIO, Final

from bridge.domain.text_format import escape_for_display
from bridge.errors import BadReport, TooLarge
from bridge.server.compression.codecs import PIECE_BYTES
from bridge.server.http.file_names import decode_text

MAX_DIRECTORY_BYTES: Final = 1 << 20  # read into memory at once: 5,000 names of 150 characters
MAX_EXTRA_BYTES: Final = 4096  # of one member: attributes of files have some dozens, and each is cut off from the rest
LOCAL_HEADER_BYTES: Final = 30  # at least, before the name and data of a member

DOS: Final = "cp437"  # of names without the UTF-8 flag, as `zipfile` and Western packers read them
_DIRECTORY: Final = struct.Struct("<4s24x3H12x")  # of each member: magic, and the sizes of name, extra field, comment
_DIRECTORY_MAGIC: Final = b"PK\x01\x02"
_UTF_8: Final = 0x800  # the flag
_UNICODE_PATH: Final = 0x7075  # the extra field of Info-ZIP: version 1, CRC-32 of the name, the name in UTF-8
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})  # the others have unbounded output
_ENCRYPTED: Final = 0x1
_ERRORS: Final = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError)


def read_zip(file: BinaryIO, what: str) -> Iterator[tuple[str, Iterator[bytes] | None]]:
    """Yield name and content of each member; folders and links have the content None.

    `what` names the archive in errors. Raise BadReport if it is damaged, encrypted, or contradicts its directory,
    TooLarge if the directory is larger than MAX_DIRECTORY_BYTES, or an extra field in it than MAX_EXTRA_BYTES.
    """
    try:
        archive = zipfile.ZipFile(_BoundedFile(file, what))
    except _ERRORS as error:
        raise _damaged(what) from error
    with archive:
        members = archive.infolist()
        _require_no_overlap(members, file.seek(0, SEEK_END), what)
        for member in members:
            name = member_name(member)
            yield name, _chunks(archive, member, f"{what}!{escape_for_display(name)}") if _is_file(member) else None


class _BoundedFile:
    """Limits each read of `zipfile`, which reads a directory at once whatever size the archive gives for it.

    It limits the extra fields of a directory too, because the time for one grows with the square of its size.
    """

    def __init__(self, file: BinaryIO, what: str) -> None:
        self._file = file
        self._what = what

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(MAX_DIRECTORY_BYTES + 1 if size < 0 else min(size, MAX_DIRECTORY_BYTES + 1))
        if len(data) > MAX_DIRECTORY_BYTES:
            raise TooLarge(f"{self._what} has too large a directory. Pack only the reports, or use several archives.")
        if data.startswith(_DIRECTORY_MAGIC) and _longest_extra(data) > MAX_EXTRA_BYTES:
            raise TooLarge(f"{self._what} has too large an extra field. Pack the reports without their attributes.")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError) as error:  # an offset outside of any file
            if whence == SEEK_END:
                raise  # zipfile expects this error when it looks for a record that short archives lack
            raise zipfile.BadZipFile("offset out of range") from error

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def _longest_extra(directory: bytes) -> int:
    """Return the size of the longest extra field in the directory of an archive."""
    longest = start = 0
    while start + _DIRECTORY.size <= len(directory):
        magic, name_size, extra_size, comment_size = _DIRECTORY.unpack_from(directory, start)
        if magic != _DIRECTORY_MAGIC:
            break
        longest = max(longest, extra_size)
        start += _DIRECTORY.size + name_size + extra_size + comment_size
    return longest


def member_name(member: zipfile.ZipInfo) -> str:
    """Return the name; without the UTF-8 flag, packers write it in the encoding of their system."""
    if member.flag_bits & _UTF_8:
        return member.filename
    raw = member.orig_filename.encode(DOS)
    if raw.isascii():
        return member.filename
    return (_unicode_path(member.extra, raw) or decode_text(raw, western=DOS)).partition("\0")[0]


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the name of Info-ZIP's extra field, None if there is none or if it belongs to another name."""
    owned = struct.pack("<BL", 1, zlib.crc32(raw))
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and field[:5] == owned:
            return field[5:].decode("utf-8", "replace")
    return None


def _is_file(member: zipfile.ZipInfo) -> bool:
    file_type = stat.S_IFMT(member.external_attr >> 16)  # 0 if the archive comes from a system without file types
    return not member.filename.endswith("/") and file_type in {0, stat.S_IFREG}


def _require_no_overlap(members: Sequence[zipfile.ZipInfo], size: int, what: str) -> None:
    """Raise BadReport if members share bytes: a few megabytes of such members unpack to terabytes."""
    ends = [*sorted(member.header_offset for member in members), size][1:]
    for member, end in zip(sorted(members, key=lambda member: member.header_offset), ends, strict=True):
        if member.header_offset + LOCAL_HEADER_BYTES + member.compress_size > end:
            raise BadReport(f"{what} has members that overlap. Pack it again.")


def _chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Iterator[bytes]:
    if member.flag_bits & _ENCRYPTED:
        raise BadReport(f"{name} is encrypted. Pack it without a password.")
    if member.compress_type not in _METHODS:
        raise BadReport(f"{name} uses a compression method that is not supported. Pack it with deflate.")
    left = member.file_size
    longer = copy.copy(member)
    longer.file_size += 1  # zipfile stops silently at this size; one more byte shows that the directory is wrong
    try:
        with archive.open(longer) as file:
            while piece := file.read(PIECE_BYTES):
                left -= len(piece)
                yield piece
    except _ERRORS as error:
        raise _damaged(name) from error
    if left:
        raise _damaged(name)


def _damaged(what: str) -> BadReport:
    return BadReport(f"{what} is damaged or incomplete. Pack it again and send the whole file.")
