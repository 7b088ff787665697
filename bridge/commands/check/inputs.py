"""The files that the arguments of `bridge check` stand for: files, patterns that no shell expanded, folders."""

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import SEEK_END
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, BinaryIO, Final, cast

from bridge.domain.intake import MAX_FILES, MAX_REQUEST_SIZE, NewRejection
from bridge.domain.junit.repair.repair import Source
from bridge.server.compression.archives import HEAD_BYTES, ArchiveBudget, SkippedFile, is_archive, read_archive
from bridge.server.compression.codecs import MAX_STACKED, content_coding_of
from bridge.server.compression.decompress import DecompressionPipeline
from bridge.values import dataclass

SUFFIX = ".xml"
"""Of the files to check in a folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file to check; its path is relative to the working directory if the argument was."""

    path: Path
    named: bool  # by its name, not by a folder or a pattern: then a file that is not a report is rejected


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingInput:
    """An argument that matches no file."""

    argument: str
    reason: str


def find_inputs(arguments: Sequence[str]) -> list[SourceFile | MissingInput]:
    """Return every file once, in the order of the arguments, and by name for each argument."""
    found: dict[str, SourceFile | MissingInput] = {}
    for argument in arguments:
        for source in _find(argument):
            # Not Path.resolve(), which fails on circular links.
            key = source.argument if isinstance(source, MissingInput) else os.path.realpath(source.path)
            found.setdefault(key, source)
    return list(found.values())


def _find(argument: str) -> Iterator[SourceFile | MissingInput]:
    path = Path(argument)
    if path.is_dir():
        yield from _in_folder(path)
    elif path.exists() or not glob.has_magic(argument):  # a file name may contain brackets
        yield SourceFile(path=path, named=True)
    else:
        yield from _matching(argument)


def _in_folder(folder: Path) -> Iterator[SourceFile | MissingInput]:
    paths = sorted(
        Path(parent, name) for parent, _, names in os.walk(folder) for name in names if name.lower().endswith(SUFFIX)
    )
    yield from (SourceFile(path=path, named=False) for path in paths)
    if not paths:
        reason = f"this folder contains no *{SUFFIX} file. Check that the tests ran, and where they write to."
        yield MissingInput(argument=str(folder), reason=reason)


def _matching(pattern: str) -> Iterator[SourceFile | MissingInput]:
    paths = sorted(Path(match) for match in glob.iglob(pattern, recursive=True))  # noqa: PTH207 -- also absolute paths
    for path in paths:
        if path.is_dir():
            yield from (source for source in _in_folder(path) if isinstance(source, SourceFile))
        else:
            yield SourceFile(path=path, named=False)
    if not paths:
        reason = "no file matches this pattern. Check that the tests ran, and where they write to."
        yield MissingInput(argument=pattern, reason=reason)


READ_BYTES: Final = 1 << 20  # at once
MEMORY_BYTES: Final = 1 << 20  # of one unpacked report; a larger one is written to disk


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateFile:
    """A file that may be a report. `source` can be read repeatedly until the next candidate is requested."""

    name: str  # archive.zip!dir/file.xml for a file in an archive
    size: int  # bytes
    source: Source


def unpack(path: Path) -> Iterator[CandidateFile | NewRejection]:
    """Yield the candidates in the file at `path`, and a rejection for each file of an archive that cannot be read.

    Raise BadReport if an archive or compression is damaged, TooLarge beyond the gateway's limits, OSError.
    """
    file: IO[bytes] = path.open("rb")
    for _ in range(MAX_STACKED):
        with closing(file):
            plain = _decompressed(file, str(path))
            if plain is None:
                yield from _contents(cast(BinaryIO, file), str(path))
                return
        file = plain
    with closing(file):
        yield from _contents(cast(BinaryIO, file), str(path))


def _decompressed(file: IO[bytes], what: str) -> IO[bytes] | None:
    coding = content_coding_of(file.read(HEAD_BYTES))
    if coding is None:
        return None
    pipeline = DecompressionPipeline([coding], what=what, max_bytes=MAX_REQUEST_SIZE)
    plain = SpooledTemporaryFile[bytes](max_size=MEMORY_BYTES)
    try:
        for chunk in _chunks(file):
            plain.writelines(pipeline.feed(chunk))
        pipeline.close()
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
        yield _candidate(name, file)


def _inner_files(archive: BinaryIO, archive_name: str) -> Iterator[CandidateFile | NewRejection]:
    name = ""
    budget = ArchiveBudget(max_files=MAX_FILES, max_bytes=MAX_REQUEST_SIZE)
    with SpooledTemporaryFile[bytes](max_size=MEMORY_BYTES) as buffer:
        for event in read_archive(archive, name=archive_name, budget=budget):
            match event:
                case NewRejection():
                    yield event
                case SkippedFile():
                    pass
                case str():
                    name = event
                    buffer.seek(0)
                    buffer.truncate()
                case bytes():
                    buffer.write(event)
                case None:
                    yield _candidate(name, buffer)


def _candidate(name: str, file: IO[bytes]) -> CandidateFile:
    return CandidateFile(name=name, size=file.seek(0, SEEK_END), source=lambda: _chunks(file))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(READ_BYTES):
        yield chunk
