"""What CI is told of an upload: one line for success, and the sentences that name files that were refused.

It knows neither HTTP nor the ledger.
"""

from collections.abc import Iterator, Sequence

from bridge.domain.intake import NewRejection, NewReport, ReportReceipt
from bridge.server.http.responses import legible

MAX_NAMED_FILES = 20
"""Files named for one reason in one answer; the others are counted, so that a build log stays readable."""


def result_text(
    reports: Sequence[NewReport],
    receipts: Sequence[ReportReceipt],
    refusals: Sequence[NewRejection],
    *,
    complete: bool,
    passed_over: Sequence[str] = (),
    unlike: int = 0,
) -> str:
    """Say what was accepted, like `12 reports, 340 tests, 2 failed; 1 already known`.

    `passed_over` are sentences about XML in archives that is no JUnit, `unlike` counts what is no XML.
    """
    said = [_counted(len(reports), "report")]
    if reports:
        tests = sum(report.counts.tests for report in reports)
        failed = sum(report.counts.failures + report.counts.errors for report in reports)
        said[0] += f", {_counted(tests, 'test')}, {failed} failed"
    known, again = receipts.count(ReportReceipt.DUPLICATE), receipts.count(ReportReceipt.REQUEUED)
    if known:
        said.append(f"{known} already known")
    if again:
        said.append(f"{again} sent again")
    said += _beside(reports, passed_over, unlike)
    if complete:
        said.append("the build is complete")
    if refusals:
        said.append(f"{len(refusals)} refused: {_named_refusals(refusals)}")
    return "; ".join(said)


def rejected_text(
    refusals: Sequence[NewRejection],
    reports: Sequence[NewReport],
    *,
    complete: bool = False,
    passed_over: Sequence[str] = (),
    unlike: int = 0,
) -> str:
    """Name the files that were refused, each with its two sentences, and say what was done all the same."""
    said = [_named_refusals(refusals)]
    if reports:
        said.append(f"The other {_counted(len(reports), 'report')} of this upload {_was(len(reports))} kept.")
    if complete:
        said.append("That the build is complete was noted.")
    beside = "; ".join(_beside(reports, passed_over, unlike))
    if beside:
        said.append(f"Beside that: {beside.removesuffix('.')}.")
    return " ".join(said)


def _beside(reports: Sequence[NewReport], passed_over: Sequence[str], unlike: int) -> Iterator[str]:
    changed = [f"{legible(report.name)}: {' '.join(report.changes)}" for report in reports if report.changes]
    if changed:
        yield f"{len(changed)} changed before {_it_is(len(changed))} sent: {_named(changed, 'changed')}"
    if passed_over:
        yield f"{len(passed_over)} passed over: {_named(passed_over, 'passed over')}"
    if unlike:
        yield f"{_counted(unlike, 'packed file')} {_was(unlike)} passed over, being no XML"


def _named_refusals(refusals: Sequence[NewRejection]) -> str:
    return _named([refusal.reason for refusal in refusals], "refused")


def _named(sentences: Sequence[str], what: str) -> str:
    text = " ".join(sentences[:MAX_NAMED_FILES])
    more = len(sentences) - MAX_NAMED_FILES
    return f"{text} {_counted(more, 'more file')} {_was(more)} {what} too." if more > 0 else text


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _it_is(count: int) -> str:
    return "it is" if count == 1 else "they are"
