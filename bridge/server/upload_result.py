"""What CI is told of an upload: one line for success, and the sentences that name files that were refused.

It knows neither HTTP nor the ledger.
"""

from collections.abc import Sequence

from bridge.domain.acceptance import NewRefusal, NewReport, Receipt

MAX_NAMED_FILES = 20
"""Files named in one answer; the others are counted, so that a build log stays readable."""


def result_text(
    reports: Sequence[NewReport],
    receipts: Sequence[Receipt],
    refusals: Sequence[NewRefusal],
    *,
    complete: bool,
) -> str:
    """Say what was accepted, like `12 reports, 340 tests, 2 failed; 1 already known`."""
    said = [_counted(len(reports), "report")]
    if reports:
        tests = sum(report.counts.tests for report in reports)
        failed = sum(report.counts.failures + report.counts.errors for report in reports)
        said[0] += f", {_counted(tests, 'test')}, {failed} failed"
    known, again = receipts.count(Receipt.KNOWN), receipts.count(Receipt.OWED_AGAIN)
    if known:
        said.append(f"{known} already known")
    if again:
        said.append(f"{again} sent again")
    if complete:
        said.append("the build is complete")
    if refusals:
        said.append(f"{len(refusals)} refused: {_named(refusals)}")
    return "; ".join(said)


def refused_text(refusals: Sequence[NewRefusal], accepted: int) -> str:
    """Name the files that were refused, each with its two sentences, and say how many others were kept."""
    text = _named(refusals)
    return (
        f"{text} The other {_counted(accepted, 'report')} of this upload {_was(accepted)} kept." if accepted else text
    )


def _named(refusals: Sequence[NewRefusal]) -> str:
    text = " ".join(refusal.reason for refusal in refusals[:MAX_NAMED_FILES])
    more = len(refusals) - MAX_NAMED_FILES
    return f"{text} {_counted(more, 'more file')} {_was(more)} refused too." if more > 0 else text


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"
