"""What `bridge check` says of each file: the gate's verdict, as one row.

It must not hold a rule about reports: the gate and repair do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from bridge.commands.check.inputs import MissingInput, SourceFile
from bridge.commands.check.output_folder import OutputFolder
from bridge.commands.check.unpack import LIMITS, CandidateFile, unpack
from bridge.domain.intake import NewRejection
from bridge.domain.junit.repair.repair import Source, regroup, repair
from bridge.domain.junit.validator import (
    WHOLE_SIZE,
    Invalid,
    TestCounts,
    Valid,
    ValidationResult,
    validate_bytes,
    validate_source,
)
from bridge.errors import CallerError

NOT_JUNIT = "not_junit"
"""The gate's reason for XML of another kind."""

LARGE = f"The gateway takes it only where server.max_report_size was raised above {LIMITS.max_report_size >> 20} MiB."


class Outcome(StrEnum):
    """What is to become of a file."""

    OK = "ok"
    REFUSED = "refused"
    PASSED_OVER = "passed over"  # XML of another kind, met in a folder, a pattern or an archive


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckRow:
    """One file and what the gate said of it."""

    path: str  # as it was named; of an inner file archive.zip!dir/file.xml
    verdict: Outcome
    counts: TestCounts | None = None
    notes: tuple[str, ...] = ()
    reason: str = ""  # both sentences
    line: int | None = None
    column: int | None = None


def rows(source: SourceFile | MissingInput, repaired: OutputFolder | None) -> Iterator[CheckRow]:
    """Judge one file, or each report in an archive; with `repaired`, as for a route that repairs.

    Raises BridgeError only where what repair made cannot be written.
    """
    if isinstance(source, MissingInput):
        yield CheckRow(path=source.argument, verdict=Outcome.REFUSED, reason=source.reason)
        return
    name, empty = str(source.path), True
    try:
        for found in unpack(source.path):
            empty = False
            yield _row(found, source, repaired)
    except CallerError as error:
        yield CheckRow(path=name, verdict=Outcome.REFUSED, reason=str(error))
    except OSError as error:
        reason = f"it cannot be read: {error.strerror or error}. Correct the path, or what is there."
        yield CheckRow(path=name, verdict=Outcome.REFUSED, reason=reason)
    else:
        if empty:
            yield CheckRow(
                path=name, verdict=Outcome.REFUSED, reason="it holds no report. Pack the JUnit files into it."
            )


def _row(found: CandidateFile | NewRejection, source: SourceFile, repaired: OutputFolder | None) -> CheckRow:
    if isinstance(found, NewRejection):
        return CheckRow(path=found.name, verdict=Outcome.REFUSED, reason=found.reason)
    alone = source.named and found.name == str(source.path)
    if repaired is None:
        return _told(found, judge(found.source), alone=alone)
    mended = repair(found.source)
    if isinstance(mended, Invalid):
        return _told(found, mended, alone=alone)
    repaired.write(source.path, found.name, mended.chunks())
    return _told(found, mended.accepted, alone=alone, done=mended.done)


def judge(source: Source) -> ValidationResult:
    """Let the gate judge a file: a small one whole, a larger one as a stream up to its first fault."""
    pieces = regroup(source(), WHOLE_SIZE)
    first = next(pieces, b"")
    return validate_source(source) if next(pieces, None) else validate_bytes(first)


def _told(found: CandidateFile, verdict: ValidationResult, *, alone: bool, done: tuple[str, ...] = ()) -> CheckRow:
    if isinstance(verdict, Valid):
        notes = (*done, *verdict.notes, *((LARGE,) if found.size > LIMITS.max_report_size else ()))
        return CheckRow(path=found.name, verdict=Outcome.OK, counts=verdict.counts, notes=notes)
    foreign = verdict.reason == NOT_JUNIT and not alone
    return CheckRow(
        path=found.name,
        verdict=Outcome.PASSED_OVER if foreign else Outcome.REFUSED,
        reason=f"{verdict.found} {verdict.remedy}",
        line=verdict.line,
        column=verdict.column,
    )
