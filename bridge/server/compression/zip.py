"""Reads a zip from a file at hand: its directory first, and then one inner file after the other.

It knows neither which inner files are wanted nor how many may be.
"""

import copy
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from io import SEEK_END
from typing import BinaryIO, Final

from bridge.errors import BadReport, TooLarge
from bridge.server.compression.entry import PIECE_BYTES, ArchiveMember
from bridge.server.http.responses import escape_for_display

MAX_DIRECTORY_BYTES: Final = 1 << 20  # read whole into memory: five thousand names of 150 characters
LOCAL_HEADER_BYTES: Final = 30  # of an entry, at least, before its name and data

_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")  # the second begins an empty one
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})  # the others unfold without bounds
_ENCRYPTED: Final = 0x1
_FAULTS: Final = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError)


def is_zip(head: bytes) -> bool:
    """Tell a zip by its first bytes."""
    return head.startswith(_MAGIC)


def read_zip(file: BinaryIO, what: str) -> Iterator[ArchiveMember]:
    """Yield the entries of a zip; the chunks of one may be read or left.

    `what` names the archive in errors. Raise BadReport where it is damaged, encrypted, or not what its directory
    says; TooLarge for a directory beyond its bounds.
    """
    try:
        archive = zipfile.ZipFile(_Source(file, what))
    except _FAULTS as error:
        raise _damaged(what) from error
    with archive:
        entries = archive.infolist()
        _require_apart(entries, file.seek(0, SEEK_END), what)
        for entry in entries:
            yield ArchiveMember(entry.filename, _chunks(archive, entry, what) if _is_file(entry) else None)


class _Source:
    """The file, as far as `zipfile` may see it: it reads at once what the end of a zip announces."""

    def __init__(self, file: BinaryIO, what: str) -> None:
        self._file = file
        self._what = what

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(MAX_DIRECTORY_BYTES + 1 if size < 0 else min(size, MAX_DIRECTORY_BYTES + 1))
        if len(data) > MAX_DIRECTORY_BYTES:
            raise TooLarge(
                f"{self._what} has too long a directory. Pack only the reports into it, or several archives."
            )
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError) as error:  # a place that no file has
            if whence == SEEK_END:
                raise  # zipfile expects that: it looks there for what a short archive need not have
            raise zipfile.BadZipFile("offset out of range") from error

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def _is_file(entry: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the packer's system has no such thing
    return not entry.filename.endswith("/") and kind in {0, stat.S_IFREG}


def _require_apart(entries: Sequence[zipfile.ZipInfo], size: int, what: str) -> None:
    """Refuse entries that share bytes: a few megabytes of them unfold to terabytes."""
    ends = [*sorted(entry.header_offset for entry in entries), size][1:]
    for entry, end in zip(sorted(entries, key=lambda entry: entry.header_offset), ends, strict=True):
        if entry.header_offset + LOCAL_HEADER_BYTES + entry.compress_size > end:
            raise BadReport(f"{what} has entries that overlap, as no packer writes them. Pack it again.")


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, what: str) -> Iterator[bytes]:
    inner = f"{what}!{escape_for_display(entry.filename)}"
    if entry.flag_bits & _ENCRYPTED:
        raise BadReport(f"{inner} is encrypted. Pack it without a password.")
    if entry.compress_type not in _METHODS:
        raise BadReport(f"{inner} is compressed in a way that is not read here. Pack it with deflate.")
    left = entry.file_size
    longer = copy.copy(entry)
    longer.file_size += 1  # zipfile stops at this size in silence; a byte beyond shows that the directory lies
    try:
        with archive.open(longer) as file:
            while piece := file.read(PIECE_BYTES):
                left -= len(piece)
                yield piece
    except _FAULTS as error:
        raise _damaged(inner) from error
    if left:
        raise _damaged(inner)


def _damaged(what: str) -> BadReport:
    return BadReport(f"{what} is damaged, or not all of it has come. Pack it again, and send all of it.")
