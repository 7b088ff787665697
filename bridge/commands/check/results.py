"""The result of `bridge check` for each file, and the folder for repaired reports."""

import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

from bridge.commands.check.html import HtmlFile
from bridge.commands.check.inputs import CandidateFile, MissingInput, SourceFile, unpack
from bridge.commands.check.rewrite import RewriteTrial
from bridge.domain.intake import MAX_REPORT_SIZE, NewRejection
from bridge.domain.junit.encoding import regroup
from bridge.domain.junit.repair.repair import Source, prepare, repair
from bridge.domain.junit.result import NO_HIGHLIGHTS, Highlights
from bridge.domain.junit.validator import (
    WHOLE_SIZE,
    Invalid,
    TestCounts,
    Valid,
    ValidationResult,
    validate_bytes,
    validate_source,
)
from bridge.domain.junit.writers import traits_of
from bridge.errors import BridgeError, CallerError
from bridge.values import dataclass

NOT_JUNIT: Final = "not_junit"
"""The validator's reason for XML of another kind."""

UNSAFE_PARTS: Final = frozenset({"", ".", ".."})
"""Parts of the name of a file in an archive that could lead out of the output folder."""

LARGE: Final = f"The gateway accepts it only if server.max_report_size is greater than {MAX_REPORT_SIZE >> 20} MiB."


class FileStatus(StrEnum):
    """What the gateway would do with a file."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SKIPPED = "skipped"  # XML of another kind in a folder, a pattern or an archive


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckRow:
    """The result for one file."""

    path: str  # archive.zip!dir/file.xml for a file in an archive
    status: FileStatus
    counts: TestCounts | None = None
    notes: tuple[str, ...] = ()
    highlights: Highlights = NO_HIGHLIGHTS
    reason: str = ""  # cause and remedy
    line: int | None = None
    column: int | None = None


class OutputFolder:
    """A new or empty folder for repaired reports, with the same subfolders as below their common folder.

    Raises BridgeError if the folder contains anything, or if it cannot be written.
    """

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self.written = 0
        self._folder = folder
        parents = [file.parent.resolve() for file in files]
        self._common = Path(os.path.commonpath(parents)) if parents else Path()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BridgeError(f"{folder} exists and is not an empty folder. Name a new folder after --repair.")

    def write(self, file: Path, name: str, chunks: Iterator[bytes]) -> None:
        """Write the report `name`, which is `file` itself or in it; raise BridgeError if its path exists."""
        inner = name.removeprefix(str(file))  # "" or !dir/file.xml
        relative = file.parent.resolve().relative_to(self._common) / file.name
        parts = f"{relative}{inner}".replace("\0", "").split("/")
        target = self._folder.joinpath(*(part for part in parts if part not in UNSAFE_PARTS))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                out.writelines(chunks)
        except OSError as error:
            raise BridgeError(
                f"{target} cannot be written: {error.strerror or error}. Name another folder after --repair."
            ) from error
        self.written += 1


def check_source(
    source: SourceFile | MissingInput,
    output: OutputFolder | None,
    html: HtmlFile | None = None,
    trial: RewriteTrial | None = None,
) -> Iterator[CheckRow]:
    """Yield the result for one file, or for each report in an archive.

    With `output` reports are repaired as for a route with repair = true, and written there. Those that
    would be accepted are added to `html`, and with `trial` their names are rewritten. Raise BridgeError only if
    writing fails.
    """
    if isinstance(source, MissingInput):
        yield CheckRow(path=source.argument, status=FileStatus.REJECTED, reason=source.reason)
        return
    only_other_files, reason = True, ""
    try:
        for found in unpack(source.path):
            row = _row(found, source, output, html, trial)
            only_other_files &= row.status is FileStatus.SKIPPED and row.path != str(source.path)
            yield row
    except CallerError as error:
        reason = str(error)
    except OSError as error:
        reason = f"it cannot be read: {error.strerror or error}. Correct the path, or the permissions of the file."
    else:
        if only_other_files:
            reason = "it contains no JUnit report. Pack the files whose root element is testsuites or testsuite."
    if reason:
        yield CheckRow(path=str(source.path), status=FileStatus.REJECTED, reason=reason)


def _row(
    found: CandidateFile | NewRejection,
    source: SourceFile,
    output: OutputFolder | None,
    html: HtmlFile | None,
    trial: RewriteTrial | None,
) -> CheckRow:
    if isinstance(found, NewRejection):
        return CheckRow(path=found.name, status=FileStatus.REJECTED, reason=found.reason)
    named = source.named and found.name == str(source.path)
    repaired = repair(found.source) if output else prepare(validate(found.source), found.source)
    if isinstance(repaired, Invalid):
        return _row_of(found, repaired, named=named, traits=_traits_if_repaired(found.source, repaired))
    chunks = repaired.chunks if trial is None else partial(trial.chunks, found.name, repaired.chunks)
    if output is not None:
        output.write(source.path, found.name, chunks())
    elif trial is not None:
        for _ in chunks():
            pass
    traits = traits_of(repaired.chunks)
    row = _row_of(found, repaired.accepted, named=named, repairs=repaired.done, traits=traits)
    if html is not None:
        html.add(found.name, repaired.chunks(), repaired.accepted.counts, row.notes)
    return row


def _traits_if_repaired(source: Source, invalid: Invalid) -> tuple[str, ...]:
    """Return what a rejected report shows of its runner, if repair can correct it."""
    repaired = invalid if invalid.reason == NOT_JUNIT else repair(source)
    return () if isinstance(repaired, Invalid) else traits_of(repaired.chunks)


def validate(source: Source) -> ValidationResult:
    """Validate a file: a small one as a whole, a larger one as a stream up to its first error."""
    chunks = regroup(source(), WHOLE_SIZE)
    first = next(chunks, b"")
    return validate_source(source) if next(chunks, None) else validate_bytes(first)


def _row_of(
    found: CandidateFile,
    result: ValidationResult,
    *,
    named: bool,
    repairs: tuple[str, ...] = (),
    traits: tuple[str, ...] = (),
) -> CheckRow:
    if isinstance(result, Valid):
        large = (LARGE,) if found.size > MAX_REPORT_SIZE else ()
        notes = (*repairs, *result.notes, *traits, *large)
        return CheckRow(
            path=found.name,
            status=FileStatus.ACCEPTED,
            counts=result.counts,
            notes=notes,
            highlights=result.highlights,
        )
    is_skipped = result.reason == NOT_JUNIT and not named
    return CheckRow(
        path=found.name,
        status=FileStatus.SKIPPED if is_skipped else FileStatus.REJECTED,
        notes=traits,
        reason=f"{result.found} {result.remedy}",
        line=result.line,
        column=result.column,
    )
