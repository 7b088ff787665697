"""Choose the route of an upload, commit the upload to the ledger, and word the response to CI."""

from collections.abc import Awaitable, Callable, Iterator, Sequence

from bridge.domain.build import BuildNo
from bridge.domain.intake import AcceptedUpload, NewRejection, NewReport, ReportReceipt, UploadReceipt
from bridge.domain.junit.tally import suites_report_errors
from bridge.domain.routing import Route, candidate_routes, keys_of_upload
from bridge.domain.text_format import counted, escape_for_display, printable, quote_for_display
from bridge.errors import (
    BadReport,
    CallerError,
    CommitUncertain,
    Forbidden,
    NoRoute,
    TooLarge,
    UnknownEncoding,
    reason_of,
)
from bridge.server.upload.file_store import UploadFileStore

Accept = Callable[[AcceptedUpload], Awaitable[UploadReceipt]]
"""Writes an upload to the ledger. If it raises, nothing was written, except after CommitUncertain."""


def route_for(
    routes: Sequence[Route],
    job_id: str,
    *,
    caller: str,
    caller_routes: Sequence[str] | None,
    build_no: BuildNo = 0,
) -> Route:
    """Return the first route that may take a build of this job; the build record decides later among all of them.

    A `build_no` that is a text is of a submitted build, whose `job_id` is its route.

    Raise NoRoute if no route takes the job, Forbidden if none of `caller_routes` (None: any route) does.
    """
    found = candidate_routes(routes, keys_of_upload(job_id, build_no))
    if not found:
        raise NoRoute(f"No route of this bridge takes the job {job_id}. Add one to its settings.")
    allowed = found if caller_routes is None else [route for route in found if route.name in caller_routes]
    if not allowed:
        raise Forbidden(
            f"The caller {quote_for_display(caller)} may not upload for the job {job_id}. "
            "Use the token of the job's own project, or add the route to the caller's routes."
        )
    return allowed[0]


def forbidden_routes(routes: Sequence[Route], caller_routes: Sequence[str] | None) -> frozenset[str]:
    """Return the names of the routes that a caller with `caller_routes` (None: any route) may not use."""
    return frozenset() if caller_routes is None else frozenset({route.name for route in routes} - {*caller_routes})


async def commit_upload(accept: Accept, upload: AcceptedUpload, store: UploadFileStore) -> tuple[ReportReceipt, ...]:
    """Write an upload to the ledger, delete the blobs that no row refers to, and return a receipt for each report.

    Raise Forbidden if the build has a route that the caller may not use.
    """
    try:
        receipt = await accept(upload)
    except CommitUncertain:
        raise  # rows may exist that need their blobs; the cleanup finds blobs without rows
    except Exception:  # not if canceled: the rows may still be written
        await store.discard()
        raise
    if receipt.forbidden:
        await store.discard()
        raise Forbidden(
            f"The caller {quote_for_display(upload.caller)} may not upload for build {upload.build_no} of the job "
            f"{upload.job_id}, which belongs to another route. Use the token of the build's own project, or add the "
            "route to the caller's routes."
        )
    for report, report_receipt in zip(upload.reports, receipt.receipts, strict=True):
        if report_receipt is ReportReceipt.DUPLICATE and report.blob is not None:
            await store.delete_blob(report.blob)
    for blob in receipt.freed:
        await store.delete_blob(blob)
    return receipt.receipts


def rejection_error(rejections: Sequence[NewRejection], text: str) -> CallerError:
    """Return the error for rejected files with the code and the reason that all share, else BadReport."""
    codes = {rejection.code for rejection in rejections}
    kinds = {kind_of(rejection) for rejection in rejections}
    error = next((error for error in (TooLarge, UnknownEncoding) if codes == {error.code}), BadReport)
    return error(text, reason=kinds.pop() if len(kinds) == 1 else "")


def kind_of(rejection: NewRejection) -> str:
    """Return the short class of a rejection's reason."""
    return rejection.kind or reason_of(rejection.code)


# -- the response: one line for success, sentences that name each rejected file ----------------------------------


MAX_NAMED_FILES = 20
"""Files named for one reason in one response; the others are counted, so that a build log stays readable."""


MAX_NAMED_TESTS = 5
"""Failed tests, and flaky tests, named in one response."""


def result_text(
    reports: Sequence[NewReport],
    receipts: Sequence[ReportReceipt],
    rejections: Sequence[NewRejection],
    *,
    complete: bool,
    skipped: Sequence[str] = (),
    skipped_non_xml: int = 0,
) -> str:
    """Return what was accepted, like `12 reports, 340 tests, 2 failed; 1 already known`, on one line.

    Suites with errors outside any test, the first failures and the first flaky tests follow.
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
    parts += _highlights(reports)
    return "; ".join((*(part.removesuffix(".") for part in parts[:-1]), parts[-1]))


def _highlights(reports: Sequence[NewReport]) -> Iterator[str]:
    counts = [report.counts for report in reports]
    highlights = [report.highlights for report in reports]
    if suite_errors := sum(each.suite_errors for each in counts):
        yield suites_report_errors(suite_errors)
    if red_totals := sum(each.red_totals for each in highlights):
        verb, their = ("states", "its") if red_totals == 1 else ("state", "their")
        yield f"{counted(red_totals, 'suite')} {verb} failures in {their} totals, but none of {their} tests failed"
    if failures := [str(failure) for each in highlights for failure in each.failures]:
        yield f"failed: {_first_of(failures, sum(each.failures + each.errors + each.suite_errors for each in counts))}"
    if flaky := [name for each in highlights for name in each.flaky]:
        yield f"flaky: {_first_of(flaky, sum(each.flaky for each in counts))}"


def _first_of(texts: Sequence[str], total: int) -> str:
    shown = [printable(text) for text in texts[:MAX_NAMED_TESTS]]
    more = total - len(shown)
    return " | ".join((*shown, *([f"{more} more"] if more else [])))


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
