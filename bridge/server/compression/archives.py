"""The reports inside an archive, one after the other, read beside the event loop and never unpacked to a path.

It knows neither how an archive is written nor what a JUnit report is. Inner names are data and nothing else.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from bridge.domain.intake import NewRejection
from bridge.domain.junit.encoding import trim
from bridge.errors import BadReport, BridgeError, TooLarge, Unavailable
from bridge.server.compression.codecs import ContentCoding, content_coding_of
from bridge.server.compression.entry import PIECE_BYTES
from bridge.server.compression.tar import is_tar, read_tar
from bridge.server.compression.zip import is_zip, read_zip
from bridge.server.http.responses import escape_for_display

HEAD_BYTES: Final = 512  # that `is_archive` looks at
MAX_NAME_CHARACTERS: Final = 4096  # of an inner file: as long as a path may be
MAX_BATCH: Final = 64  # events that one turn of a thread brings: most files cost less than the turn
MAX_BATCH_BYTES: Final = 4 * PIECE_BYTES

_SUFFIX: Final = ".xml"
_XML_STARTS: Final = (b"<?xml", b"<testsuite")
_MARKS: Final = b"\xef\xbb\xbf\xff\xfe\0"  # of encodings, and the other half of UTF-16's letters
_APPLE_DOUBLE: Final = "._"  # macOS packs a file of attributes beside each, under the same suffix
_WRAPPED_TWICE: Final = (".xml", ".tar", ".tgz")  # in the name of a compressed file; others are logs


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveLimits:
    """What one archive may be."""

    max_files: int  # folders and links count too
    max_bytes: int  # of all inner files that are read, unfolded


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedFile:
    """An inner file that does not look like a report."""

    name: str


Event = str | bytes | NewRejection | SkippedFile | None
_Batch = tuple[list[Event], BridgeError | None]


def is_archive(head: bytes) -> bool:
    """Tell by the first HEAD_BYTES of a file, unfolded, whether reports may stand inside it."""
    return is_zip(head) or is_tar(head)


async def inner_files(path: Path, *, name: str, bounds: ArchiveLimits) -> AsyncGenerator[Event]:
    """Yield for each report in the archive at `path` its name, its content in pieces, then None.

    Between them stand a NewRefusal for each inner archive, and a PassedOver for each file that is no report. `name` is
    the archive's; inner files are named `archive.zip!dir/file.xml`, a second one of a name `… (2)`.
    Raise BadReport for an archive that is damaged or encrypted, TooLarge beyond `bounds`, Unavailable where the disk
    fails. A thread does the reading, in steps that are short by construction, so it can be left after any of them.
    """
    events = _read_path(path, name, bounds)
    while True:
        turn = asyncio.get_running_loop().run_in_executor(None, _batch, events)
        try:
            batch, error = await asyncio.shield(turn)
            for event in batch:
                yield event
        except BaseException:
            # A cancelled upload leaves its thread at work for a moment: the file is closed behind it.
            turn.add_done_callback(lambda _: events.close())
            raise
        if error is not None:
            raise error
        if not batch:
            return


def read_archive(file: BinaryIO, *, name: str, bounds: ArchiveLimits) -> Iterator[Event]:
    """Yield the same as `inner_files`, from a file at hand."""
    what = escape_for_display(name)
    head = file.read(HEAD_BYTES)
    entries = read_zip(file, what) if is_zip(head) else read_tar(file, what)
    budget = _Budget(what, bounds.max_bytes)
    seen: Counter[str] = Counter()
    for count, entry in enumerate(entries, start=1):
        if count > bounds.max_files:
            raise TooLarge(f"{what} holds more than {bounds.max_files} files. Pack only the reports.")
        if entry.chunks is not None:
            yield from _events(entry.name, _inner_name(entry.name, name, seen), budget.counted(entry.chunks))


class _Budget:
    """The bytes that an archive may still unfold to."""

    def __init__(self, what: str, max_bytes: int) -> None:
        self._what = what
        self._max_bytes = max_bytes
        self._left = max_bytes

    def counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._left -= len(chunk)
            if self._left < 0:
                raise TooLarge(
                    f"{self._what} unfolds to more than {self._max_bytes} bytes. Pack fewer reports into it."
                )
            yield chunk


def _inner_name(entry_name: str, archive: str, seen: Counter[str]) -> str:
    if len(entry_name) > MAX_NAME_CHARACTERS:
        raise BadReport(
            f"{escape_for_display(archive)} has a name of more than {MAX_NAME_CHARACTERS} characters. Shorten it."
        )
    seen[entry_name] += 1
    again = f" ({seen[entry_name]})" if seen[entry_name] > 1 else ""
    return f"{archive}!{entry_name}{again}"


def _events(entry_name: str, name: str, chunks: Iterator[bytes]) -> Iterator[Event]:
    head = next(chunks, b"")
    base = entry_name.rpartition("/")[2].lower()
    if _is_wrapped(base, head):
        yield NewRejection(
            name=name,
            reason=f"{escape_for_display(name)}: it is itself packed, inside an archive. Pack the reports as they are.",
            code=BadReport.code,
        )
    elif _may_be_report(base, head):
        yield name
        yield head
        yield from chunks
        yield None
    else:
        yield SkippedFile(name=name)


def _is_wrapped(base: str, head: bytes) -> bool:
    compressed = content_coding_of(head) in {ContentCoding.GZIP, ContentCoding.ZSTD}
    return is_archive(head) or (compressed and any(sign in base for sign in _WRAPPED_TWICE))


def _may_be_report(base: str, head: bytes) -> bool:
    if base.startswith(_APPLE_DOUBLE):
        return False
    start = trim(head[:HEAD_BYTES])[0].replace(b"\0", b"").lstrip(_MARKS)
    return base.endswith(_SUFFIX) or start.startswith(_XML_STARTS)


def _read_path(path: Path, name: str, bounds: ArchiveLimits) -> Generator[Event]:
    try:
        with path.open("rb") as file:
            yield from read_archive(file, name=name, bounds=bounds)
    except OSError as error:
        raise Unavailable(
            f"{escape_for_display(name)} cannot be read just now: {error.strerror}. Upload it again."
        ) from error


def _batch(events: Iterator[Event]) -> _Batch:
    """Take the next events, and the error that ends them: what came before it still counts."""
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
