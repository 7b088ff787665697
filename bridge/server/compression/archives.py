"""List the reports in a zip or tar file, in a thread and without unpacking to disk. Names in archives are only data."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from bridge.domain.intake import NewRejection
from bridge.domain.junit.encoding import trim
from bridge.domain.text_format import escape_for_display
from bridge.errors import BadReport, BridgeError, TooLarge, Unavailable
from bridge.server.compression.codecs import PIECE_BYTES, ContentCoding, content_coding_of
from bridge.server.compression.tar import read_tar
from bridge.server.compression.zip import read_zip
from bridge.values import dataclass

HEAD_BYTES: Final = 512  # read by `is_archive`
MAX_NAME_CHARACTERS: Final = 4096  # of a member: as long as a path may be
MAX_BATCH: Final = 64  # events of one thread call, which costs more than reading a small file
MAX_BATCH_BYTES: Final = 4 * PIECE_BYTES

_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")  # the second starts an empty archive
_TAR_MAGIC: Final = (257, b"ustar")  # POSIX and GNU; formats before 1988 are not supported
_SUFFIX: Final = ".xml"
_XML_STARTS: Final = (b"<?xml", b"<testsuite")
_BYTE_ORDER_MARKS: Final = b"\xef\xbb\xbf\xff\xfe\0"  # and the zero bytes of UTF-16
_APPLE_DOUBLE: Final = "._"  # macOS adds a file of attributes beside each file, with the same suffix
_PACKED_SUFFIXES: Final = (".xml", ".tar", ".tgz")  # in the name of a compressed file; other ones are logs


class Budget:
    """Counts what all files of one upload add up to, in `unit` (for example "unpacked bytes")."""

    def __init__(self, limit: int, unit: str) -> None:
        self._limit = limit
        self._left = limit
        self._unit = unit

    def take(self, amount: int, name: str) -> None:
        """Count `amount` for the file `name`; raise TooLarge if the upload exceeds the limit with it."""
        self._left -= amount
        if self._left < 0:
            raise TooLarge(
                f"{escape_for_display(name)}: with this file, the upload has more than {self._limit} {self._unit}. "
                "Send the reports in several uploads."
            )


class ArchiveBudget:
    """Limits all archives of one upload together."""

    def __init__(self, *, max_files: int, max_bytes: int) -> None:
        self.files = Budget(max_files, "packed files")  # folders and links count too
        self.bytes = Budget(max_bytes, "unpacked bytes")  # of skipped files only the first piece


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedFile:
    """A member that does not look like a report."""

    name: str


Event = str | bytes | NewRejection | SkippedFile | None
_Batch = tuple[list[Event], BridgeError | None]


def is_archive(head: bytes) -> bool:
    """Return whether a file, of which these are the first HEAD_BYTES uncompressed, is a zip or tar file."""
    return is_zip(head) or is_tar(head)


def is_zip(head: bytes) -> bool:
    """Return whether a file with these first bytes is a zip file."""
    return head.startswith(_ZIP_MAGIC)


def is_tar(head: bytes) -> bool:
    """Return whether a file with this first block is a tar file."""
    offset, magic = _TAR_MAGIC
    return head[offset : offset + len(magic)] == magic


async def archive_events(path: Path, *, name: str, budget: ArchiveBudget) -> AsyncGenerator[Event]:
    """Yield for each report in the archive at `path` its name, its content in pieces, then None.

    Also yield a NewRejection for each archive in it and a SkippedFile for each file that does not look like a report.
    `name` is the name of the archive; members are named `archive.zip!dir/file.xml`, a repeated name `… (2)`.
    Raise BadReport if the archive is damaged or encrypted, TooLarge beyond `budget`, Unavailable if the disk fails.
    A thread reads in short steps, so the generator can be closed after any of them.
    """
    events = _read_path(path, name, budget)
    while True:
        step = asyncio.get_running_loop().run_in_executor(None, _next_batch, events)
        try:
            batch, error = await asyncio.shield(step)
            for event in batch:
                yield event
        except BaseException:
            # The thread of a canceled upload may still run for a moment; it closes the file when it is done.
            step.add_done_callback(lambda _: events.close())
            raise
        if error is not None:
            raise error
        if not batch:
            return


def read_archive(file: BinaryIO, *, name: str, budget: ArchiveBudget) -> Iterator[Event]:
    """Yield the same as `archive_events`, from an open file."""
    what = escape_for_display(name)
    members = read_zip(file, what) if is_zip(file.read(HEAD_BYTES)) else read_tar(file, what)
    seen: Counter[str] = Counter()
    for member_name, chunks in members:
        budget.files.take(1, name)
        if chunks is not None:
            yield from _member_events(
                member_name, _full_name(member_name, name, seen), _counted(chunks, name, budget.bytes)
            )


def _counted(chunks: Iterator[bytes], name: str, budget: Budget) -> Iterator[bytes]:
    for chunk in chunks:
        budget.take(len(chunk), name)
        yield chunk


def _full_name(member_name: str, archive: str, seen: Counter[str]) -> str:
    if len(member_name) > MAX_NAME_CHARACTERS:
        raise BadReport(
            f"{escape_for_display(archive)} contains a name of more than {MAX_NAME_CHARACTERS} characters. "
            "Shorten that name."
        )
    seen[member_name] += 1
    repeat = f" ({seen[member_name]})" if seen[member_name] > 1 else ""
    return f"{archive}!{member_name}{repeat}"


def _member_events(member_name: str, name: str, chunks: Iterator[bytes]) -> Iterator[Event]:
    head = next(chunks, b"")
    base_name = member_name.rpartition("/")[2].lower()
    if _is_packed(base_name, head):
        yield NewRejection(
            name=name,
            reason=f"{escape_for_display(name)}: it is packed inside an archive. Pack the reports as they are.",
            code=BadReport.code,
        )
    elif _may_be_report(base_name, head):
        yield name
        yield head
        yield from chunks
        yield None
    else:
        yield SkippedFile(name=name)


def _is_packed(base_name: str, head: bytes) -> bool:
    compressed = content_coding_of(head) in {ContentCoding.GZIP, ContentCoding.ZSTD}
    return is_archive(head) or (compressed and any(suffix in base_name for suffix in _PACKED_SUFFIXES))


def _may_be_report(base_name: str, head: bytes) -> bool:
    if base_name.startswith(_APPLE_DOUBLE):
        return False
    start = trim(head[:HEAD_BYTES])[0].replace(b"\0", b"").lstrip(_BYTE_ORDER_MARKS)
    return base_name.endswith(_SUFFIX) or start.startswith(_XML_STARTS)


def _read_path(path: Path, name: str, budget: ArchiveBudget) -> Generator[Event]:
    try:
        with path.open("rb") as file:
            yield from read_archive(file, name=name, budget=budget)
    except OSError as error:
        raise Unavailable(f"{escape_for_display(name)} cannot be read: {error.strerror}. Upload it again.") from error


def _next_batch(events: Iterator[Event]) -> _Batch:
    """Return the next events, and the error that ended them: events before an error still count."""
    batch: list[Event] = []
    size = 0
    try:
        for event in events:
            batch.append(event)
            size += len(event) if isinstance(event, bytes) else 0
            if len(batch) >= MAX_BATCH or size >= MAX_BATCH_BYTES:
                break
    except BridgeError as error:
        return batch, error
    return batch, None
