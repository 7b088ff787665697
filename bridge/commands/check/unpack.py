"""The reports in one file, as the gateway would find them: the file itself, what it is compressed from, what it packs.

It must not judge any of them. Nothing is unpacked to a path: bytes wait in temporary files that have no name.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from io import SEEK_END
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, BinaryIO, Final, cast

from bridge.domain.intake import NewRejection
from bridge.domain.junit.repair.repair import Source
from bridge.server.compression.archives import HEAD_BYTES, ArchiveBudget, SkippedFile, is_archive, read_archive
from bridge.server.compression.codecs import MAX_STACKED, content_coding_of
from bridge.server.compression.decompress import DecompressionPipeline
from bridge.settings.model import ServerSettings

READ_BYTES: Final = 1 << 20  # at once; the gate cuts it to its own measure
HELD_BYTES: Final = 1 << 20  # of one unpacked report in memory; a larger one goes to the disk

LIMITS: Final = ServerSettings()  # the desk knows no settings: what the gateway takes unless told otherwise


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateFile:
    """One file that may be a report. Its bytes can be read, again and again, until the next one is asked for."""

    name: str  # of an inner file: archive.zip!dir/file.xml
    size: int  # bytes
    source: Source


def unpack(path: Path) -> Iterator[CandidateFile | NewRejection]:
    """Yield what is in the file at `path`: itself, or the files of an archive that may be reports.

    Raise BadReport where an archive or compression is damaged, TooLarge beyond what the gateway takes, OSError.
    """
    file: IO[bytes] = path.open("rb")
    for _ in range(MAX_STACKED):
        with closing(file):
            plain = _unfolded(file, str(path))
            if plain is None:
                yield from _contents(cast(BinaryIO, file), str(path))
                return
        file = plain
    with closing(file):
        yield from _contents(cast(BinaryIO, file), str(path))


def _unfolded(file: IO[bytes], what: str) -> IO[bytes] | None:
    folding = content_coding_of(file.read(HEAD_BYTES))
    if folding is None:
        return None
    unfolding = DecompressionPipeline([folding], what=what, max_bytes=LIMITS.max_request_size)
    plain = SpooledTemporaryFile[bytes](max_size=HELD_BYTES)
    try:
        for piece in _pieces(file):
            plain.writelines(unfolding.feed(piece))
        unfolding.close()
        plain.seek(0)
    except BaseException:
        plain.close()
        raise
    return plain


def _contents(file: BinaryIO, name: str) -> Iterator[CandidateFile | NewRejection]:
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if is_archive(head):
        yield from _inner_files(file, name)
    else:
        yield _found(name, file)


def _inner_files(archive: BinaryIO, archive_name: str) -> Iterator[CandidateFile | NewRejection]:
    name = ""
    budget = ArchiveBudget(max_files=LIMITS.max_files, max_bytes=LIMITS.max_request_size)
    with SpooledTemporaryFile[bytes](max_size=HELD_BYTES) as held:
        for event in read_archive(archive, name=archive_name, budget=budget):
            match event:
                case NewRejection():
                    yield event
                case SkippedFile():
                    pass
                case str():
                    name = event
                    held.seek(0)
                    held.truncate()
                case bytes():
                    held.write(event)
                case None:
                    yield _found(name, held)


def _found(name: str, file: IO[bytes]) -> CandidateFile:
    return CandidateFile(name=name, size=file.seek(0, SEEK_END), source=lambda: _pieces(file))


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(READ_BYTES):
        yield piece
