"""Choose the route of an upload, and commit the upload to the ledger."""

from collections.abc import Awaitable, Callable, Sequence

from bridge.domain.intake import AcceptedUpload, NewRejection, ReportReceipt, UploadReceipt
from bridge.domain.routing import Route, RoutingKeys, candidate_routes
from bridge.errors import BadReport, CallerError, CommitUncertain, Forbidden, NoRoute, TooLarge, UnknownEncoding
from bridge.server.http.responses import quote_for_display
from bridge.server.upload.file_store import UploadFileStore

Accept = Callable[[AcceptedUpload], Awaitable[UploadReceipt]]
"""Writes an upload to the ledger. If it raises, nothing was written, except after CommitUncertain."""


def route_for(routes: Sequence[Route], job_id: str, *, caller: str, caller_routes: Sequence[str] | None) -> Route:
    """Return the first route that may take a build of this job; the build record decides later among all of them.

    Raise NoRoute if no route takes the job, Forbidden if none of `caller_routes` (None: any route) does.
    """
    found = candidate_routes(routes, RoutingKeys(job_id=job_id))
    if not found:
        raise NoRoute(f"No route of this bridge takes the job {job_id}. Add one to its settings.")
    allowed = found if caller_routes is None else [route for route in found if route.name in caller_routes]
    if not allowed:
        raise Forbidden(
            f"The caller {quote_for_display(caller)} may not upload for the job {job_id}. "
            "Use the token of the job's own project, or add the route to the caller's routes."
        )
    return allowed[0]


async def commit_upload(accept: Accept, upload: AcceptedUpload, store: UploadFileStore) -> tuple[ReportReceipt, ...]:
    """Write an upload to the ledger, delete the blobs that no row refers to, and return a receipt for each report."""
    try:
        receipt = await accept(upload)
    except CommitUncertain:
        raise  # rows may exist that need their blobs; the cleanup finds blobs without rows
    except Exception:  # not if canceled: the rows may still be written
        await store.discard()
        raise
    for report, report_receipt in zip(upload.reports, receipt.receipts, strict=True):
        if report_receipt is ReportReceipt.DUPLICATE and report.blob is not None:
            await store.delete_blob(report.blob)
    for blob in receipt.freed:
        await store.delete_blob(blob)
    return receipt.receipts


def rejection_error(rejections: Sequence[NewRejection]) -> type[CallerError]:
    """Return the error with the code that all rejections share, else BadReport."""
    codes = {rejection.code for rejection in rejections}
    return next((error for error in (TooLarge, UnknownEncoding) if codes == {error.code}), BadReport)
