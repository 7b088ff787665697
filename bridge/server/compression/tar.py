"""Reads a tar from a file at hand, header by header, and holds nothing of it but the header in hand.

It knows neither which inner files are wanted nor how many may be. The standard library reads each header block; its
reader of whole archives is not used: it reads at once what a header announces, and keeps all it has seen.
"""

import tarfile
from collections.abc import Iterator
from io import SEEK_END
from typing import BinaryIO, Final

from bridge.errors import BadReport, TooLarge
from bridge.server.compression.entry import PIECE_BYTES, ArchiveMember

BLOCK_BYTES: Final = tarfile.BLOCKSIZE
MAX_EXTENSION_BYTES: Final = 64 * 1024  # of one extended header: a long name and some attributes, never a table
MAX_EXTENSIONS: Final = 8  # before one entry: name, link and attributes, each of GNU's and of POSIX' kind

_MAGIC_AT: Final = 257
_MAGIC: Final = b"ustar"  # POSIX and GNU; what came before 1988 is not taken
_ATTRIBUTES: Final = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_PASSED_OVER: Final = frozenset({tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK})  # nothing in them names a file
_EXTENSIONS: Final = _ATTRIBUTES | _PASSED_OVER | {tarfile.GNUTYPE_LONGNAME}


def is_tar(head: bytes) -> bool:
    """Tell a tar by its first block."""
    return head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def read_tar(file: BinaryIO, what: str) -> Iterator[ArchiveMember]:
    """Yield the entries of a tar; the chunks of one must be read before the next is asked for, or not at all.

    `what` names the archive in errors. Raise BadReport where it is damaged, ends too early or has sparse files,
    TooLarge for extended headers beyond their bounds.
    """
    reader = _Reader(file, what)
    while (header := reader.next_header()) is not None:
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise reader.sparse()
        holds_data = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
        chunks = reader.data(header.size if holds_data else 0)
        yield ArchiveMember(header.name, chunks if header.isreg() else None)


class _Reader:
    """Goes over the blocks of one tar."""

    def __init__(self, file: BinaryIO, what: str) -> None:
        self._file = file
        self._what = what
        self._next = 0  # where the next header begins
        self._end = file.seek(0, SEEK_END)

    def next_header(self) -> tarfile.TarInfo | None:
        """Return the next entry's header with what its extended headers say of it, None at the archive's end."""
        attributes: dict[str, str] = {}
        for _ in range(MAX_EXTENSIONS + 1):
            header = self._header()
            if header is None or header.type not in _EXTENSIONS:
                return header and self._extended(header, attributes)
            attributes |= self._extension(header)
        raise self._too_many()

    def data(self, size: int) -> Iterator[bytes]:
        """Return the next `size` bytes as chunks, and go on behind them."""
        begin, end = self._next, self._next + size
        if end > self._end:
            raise self._ends_early()
        self._next = end + -size % BLOCK_BYTES
        return self._chunks(begin, end)

    def sparse(self) -> BadReport:
        return BadReport(f"{self._what} holds sparse files, which are not read here. Pack it without --sparse.")

    def _chunks(self, begin: int, end: int) -> Iterator[bytes]:
        self._file.seek(begin)
        for at in range(begin, end, PIECE_BYTES):
            yield self._file.read(min(PIECE_BYTES, end - at))

    def _header(self) -> tarfile.TarInfo | None:
        self._file.seek(self._next)
        block = self._file.read(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            raise self._ends_early()
        if not any(block):
            return None
        self._next += BLOCK_BYTES
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise self._damaged() from error
        if header.size < 0:  # GNU's binary numbers have a sign
            raise self._damaged()
        return header

    def _extension(self, header: tarfile.TarInfo) -> dict[str, str]:
        """Return what an extended header says, in the words of POSIX."""
        if header.size > MAX_EXTENSION_BYTES and header.type not in _PASSED_OVER:
            raise self._too_many()
        chunks = self.data(header.size)
        if header.type in _PASSED_OVER:
            return {}
        content = b"".join(chunks)
        if header.type in _ATTRIBUTES:
            return self._attributes(content)
        return {"path": content.partition(b"\0")[0].decode("utf-8", "surrogateescape")}

    def _attributes(self, content: bytes) -> dict[str, str]:
        """Read records, each a length, a blank, `key=value` and a line's end (POSIX.1, pax Extended Header)."""
        attributes: dict[str, str] = {}
        rest = content
        while rest.strip(b"\0"):
            length, blank, _ = rest.partition(b" ")
            if not (blank and length.isdigit() and len(length) <= len(str(MAX_EXTENSION_BYTES))):
                raise self._damaged()
            record, rest = rest[len(length) + 1 : int(length)], rest[int(length) :]
            key, equals, value = record.decode("utf-8", "surrogateescape").partition("=")
            if not (equals and value.endswith("\n")):
                raise self._damaged()
            attributes[key] = value[:-1]
        return attributes

    def _extended(self, header: tarfile.TarInfo, attributes: dict[str, str]) -> tarfile.TarInfo:
        if any(key.startswith("GNU.sparse.") for key in attributes):
            raise self.sparse()
        header.name = attributes.get("path", header.name)
        size = attributes.get("size")
        if size is not None:
            if not (size.isascii() and size.isdigit() and len(size) <= len(str(self._end))):
                raise self._damaged()
            header.size = int(size)
        return header

    def _damaged(self) -> BadReport:
        return BadReport(f"{self._what} is not a whole tar archive: a header is damaged. Pack it again.")

    def _ends_early(self) -> BadReport:
        return BadReport(f"{self._what} ends before its contents do. Send it again, and send all of it.")

    def _too_many(self) -> TooLarge:
        return TooLarge(f"{self._what} has an entry with too long headers. Pack it without extended attributes.")
