"""Where an upload may go, and the last step of taking one: rows first, and then the bytes that no row names go.

It knows neither HTTP nor how files are read.
"""

from collections.abc import Awaitable, Callable, Sequence

from bridge.domain.intake import AcceptedUpload, NewRejection, ReportReceipt, UploadReceipt
from bridge.domain.routing import Route, RoutingKeys, candidate_routes
from bridge.errors import BadReport, CallerError, CommitUncertain, Forbidden, NoRoute, TooLarge, UnknownEncoding
from bridge.server.http.responses import quote_for_display
from bridge.server.upload.file_store import UploadFileStore

Accept = Callable[[AcceptedUpload], Awaitable[UploadReceipt]]
"""Writes an acceptance into the ledger; raises only when nothing of it was written, but for CommitUncertain."""


def route_for(routes: Sequence[Route], job_id: str, *, caller: str, bound: Sequence[str] | None) -> Route:
    """Return the first route that may take a build of this job; what only record-info knows is decided after it.

    Raise NoRoute where none takes it, Forbidden where none does that `caller` may upload for: those in `bound`, None
    for any.
    """
    found = candidate_routes(routes, RoutingKeys(job_id=job_id))
    if not found:
        raise NoRoute(f"No route of this bridge takes the job {job_id}. Add one to its settings.")
    mine = found if bound is None else [route for route in found if route.name in bound]
    if not mine:
        raise Forbidden(
            f"The caller {quote_for_display(caller)} may not upload for the job {job_id}. "
            "Use the token of its own project, or have its routes widened."
        )
    return mine[0]


async def commit_upload(
    accept: Accept, acceptance: AcceptedUpload, filing: UploadFileStore
) -> tuple[ReportReceipt, ...]:
    """Write an acceptance into the ledger, and remove the bytes of `filing` that no row names then."""
    try:
        entry = await accept(acceptance)
    except CommitUncertain:
        raise  # the rows may be there, and then need their bytes; the janitor finds those without rows
    except Exception:  # not when cancelled: the rows may yet be written
        await filing.discard()
        raise
    for report, receipt in zip(acceptance.reports, entry.receipts, strict=True):
        if receipt is ReportReceipt.DUPLICATE and report.blob is not None:
            await filing.forget(report.blob)
    for blob in entry.freed:
        await filing.forget(blob)
    return entry.receipts


def fault_of(refusals: Sequence[NewRejection]) -> type[CallerError]:
    """Return the error whose code all refusals share, else the one that means several faults."""
    codes = {told.code for told in refusals}
    return next((error for error in (TooLarge, UnknownEncoding) if codes == {error.code}), BadReport)
