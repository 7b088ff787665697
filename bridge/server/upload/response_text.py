"""Texts of the response to an upload: one line for success, sentences that name each rejected file."""

from collections.abc import Iterator, Sequence

from bridge.domain.intake import NewRejection, NewReport, ReportReceipt
from bridge.domain.text_format import counted
from bridge.server.http.responses import escape_for_display

MAX_NAMED_FILES = 20
"""Files named for one reason in one response; the others are counted, so that a build log stays readable."""


def result_text(
    reports: Sequence[NewReport],
    receipts: Sequence[ReportReceipt],
    rejections: Sequence[NewRejection],
    *,
    complete: bool,
    skipped: Sequence[str] = (),
    skipped_non_xml: int = 0,
) -> str:
    """Return what was accepted, like `12 reports, 340 tests, 2 failed; 1 already known`.

    `skipped` has a sentence for each file in an archive that is XML, but not JUnit; `skipped_non_xml` counts others.
    """
    counts = counted(len(reports), "report")
    if reports:
        tests = sum(report.counts.tests for report in reports)
        failed = sum(report.counts.failures + report.counts.errors for report in reports)
        counts += f", {counted(tests, 'test')}, {failed} failed"
    parts = [counts]
    duplicate, requeued = receipts.count(ReportReceipt.DUPLICATE), receipts.count(ReportReceipt.REQUEUED)
    if duplicate:
        parts.append(f"{duplicate} already known")
    if requeued:
        parts.append(f"{requeued} sent again")
    parts += _changed_and_skipped(reports, skipped, skipped_non_xml)
    if complete:
        parts.append("the build is complete")
    if rejections:
        parts.append(f"{len(rejections)} rejected: {_reasons(rejections)}")
    return "; ".join(parts)


def rejected_text(
    rejections: Sequence[NewRejection],
    reports: Sequence[NewReport],
    *,
    complete: bool = False,
    skipped: Sequence[str] = (),
    skipped_non_xml: int = 0,
) -> str:
    """Return the two sentences of each rejected file, and what was accepted nevertheless."""
    parts = [_reasons(rejections)]
    if reports:
        parts.append(f"The other {counted(len(reports), 'report')} of this upload {_was(len(reports))} accepted.")
    if complete:
        parts.append("The build is marked complete.")
    other = "; ".join(_changed_and_skipped(reports, skipped, skipped_non_xml))
    if other:
        parts.append(f"Also: {other.removesuffix('.')}.")
    return " ".join(parts)


def _changed_and_skipped(reports: Sequence[NewReport], skipped: Sequence[str], skipped_non_xml: int) -> Iterator[str]:
    changed = [f"{escape_for_display(report.name)}: {' '.join(report.changes)}" for report in reports if report.changes]
    if changed:
        subject = "it is" if len(changed) == 1 else "they are"
        yield f"{len(changed)} changed before {subject} sent: {_named(changed, 'changed')}"
    if skipped:
        yield f"{len(skipped)} skipped: {_named(skipped, 'skipped')}"
    if skipped_non_xml:
        yield f"{counted(skipped_non_xml, 'packed file')} without XML {_was(skipped_non_xml)} skipped"


def _reasons(rejections: Sequence[NewRejection]) -> str:
    return _named([rejection.reason for rejection in rejections], "rejected")


def _named(sentences: Sequence[str], what: str) -> str:
    text = " ".join(sentences[:MAX_NAMED_FILES])
    more = len(sentences) - MAX_NAMED_FILES
    return f"{text} {counted(more, 'more file')} {_was(more)} {what}." if more > 0 else text


def _was(count: int) -> str:
    return "was" if count == 1 else "were"
