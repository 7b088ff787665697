"""Read the members of a tar file header by header, with bounded memory.

Only `tarfile.TarInfo` is used, to parse header blocks. `tarfile.TarFile` cannot be bounded: it reads extended headers
and sparse maps of any size into memory, keeps all global headers, and treats a damaged header as the end.
"""

import tarfile
from collections.abc import Iterator
from io import SEEK_END
from typing import BinaryIO, Final

from bridge.errors import BadReport, TooLarge
from bridge.server.compression.codecs import PIECE_BYTES
from bridge.server.http.file_names import decode_text

BLOCK_BYTES: Final = tarfile.BLOCKSIZE
MAX_EXTENSION_BYTES: Final = 64 * 1024  # of one extended header: a long name and some attributes
MAX_RECORDS: Final = 100  # of one extended header: packers write about ten, and one for each extended attribute
MAX_EXTENSIONS: Final = 8  # before one member: name, link and attributes, in GNU and in POSIX format

_PAX: Final = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_IGNORED: Final = frozenset({tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK})  # they do not name a file
_EXTENSIONS: Final = _PAX | _IGNORED | {tarfile.GNUTYPE_LONGNAME}


def read_tar(file: BinaryIO, what: str) -> Iterator[tuple[str, Iterator[bytes] | None]]:
    """Yield name and content of each member; folders, links and devices have the content None.

    The chunks of a member can be read until the next member is requested. `what` names the archive in errors. Raise
    BadReport if it is damaged, ends too early or has sparse files, TooLarge if extended headers exceed their limits.
    """
    reader = _Reader(file, what)
    while (header := reader.next_header()) is not None:
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise reader.sparse()
        has_data = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
        chunks = reader.data(header.size if has_data else 0)
        name = decode_text(header.name.encode("utf-8", "surrogateescape"))
        yield name, chunks if header.isreg() else None


class _Reader:
    """Steps through the blocks of a tar file."""

    def __init__(self, file: BinaryIO, what: str) -> None:
        self._file = file
        self._what = what
        self._next = 0  # offset of the next header
        self._end = file.seek(0, SEEK_END)

    def next_header(self) -> tarfile.TarInfo | None:
        """Return the header of the next member with its extended headers applied, None at the end of the archive."""
        attributes: dict[str, str] = {}
        for _ in range(MAX_EXTENSIONS + 1):
            header = self._header()
            if header is None or header.type not in _EXTENSIONS:
                return header and self._extended(header, attributes)
            attributes |= self._extension(header)
        raise self._too_many()

    def data(self, size: int) -> Iterator[bytes]:
        """Return the next `size` bytes as chunks, and step over them."""
        start, end = self._next, self._next + size
        if end > self._end:
            raise self._ends_early()
        self._next = end + -size % BLOCK_BYTES
        return self._chunks(start, end)

    def sparse(self) -> BadReport:
        return BadReport(f"{self._what} contains sparse files, which are not supported. Pack it without --sparse.")

    def _chunks(self, start: int, end: int) -> Iterator[bytes]:
        self._file.seek(start)
        for offset in range(start, end, PIECE_BYTES):
            yield self._file.read(min(PIECE_BYTES, end - offset))

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
        if header.size < 0:  # GNU's binary numbers are signed
            raise self._damaged()
        return header

    def _extension(self, header: tarfile.TarInfo) -> dict[str, str]:
        """Return the attributes of an extended header under their POSIX names."""
        if header.size > MAX_EXTENSION_BYTES and header.type not in _IGNORED:
            raise self._too_many()
        chunks = self.data(header.size)
        if header.type in _IGNORED:
            return {}
        content = b"".join(chunks)
        if header.type in _PAX:
            return self._pax_records(content)
        return {"path": content.partition(b"\0")[0].decode("utf-8", "surrogateescape")}

    def _pax_records(self, content: bytes) -> dict[str, str]:
        """Parse records of a length, a space, `key=value` and a newline (POSIX.1, pax Extended Header)."""
        attributes: dict[str, str] = {}
        rest, records = content, 0
        while rest.strip(b"\0"):
            records += 1
            if records > MAX_RECORDS:
                raise self._too_many()
            length, space, _ = rest.partition(b" ")
            if not (space and length.isdigit() and len(length) <= len(str(MAX_EXTENSION_BYTES))):
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
        return BadReport(f"{self._what} is not a valid tar archive: a header is damaged. Pack it again.")

    def _ends_early(self) -> BadReport:
        return BadReport(f"{self._what} ends before its contents do. Send the whole file again.")

    def _too_many(self) -> TooLarge:
        return TooLarge(f"{self._what} has a member with too long headers. Pack it without extended attributes.")
