"""Answer an upload as its client asked for: JSON as CodeArts has it, with a list of files, or text for a CI log."""

from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from aiohttp import web

from bridge.domain.intake import AcceptedUpload, NewRejection, NewReport, ReportReceipt
from bridge.domain.text_format import counted, escape_for_display
from bridge.errors import BridgeError
from bridge.server.http.responses import error_response, success_response
from bridge.server.upload.commit import kind_of
from bridge.values import dataclass

STATUSES = {
    ReportReceipt.NEW: "accepted",
    ReportReceipt.DUPLICATE: "duplicate",
    ReportReceipt.REQUEUED: "requeued",
}


class FileView(TypedDict):
    """One file of an upload; `reason` is the short class of `message`, and null for a report."""

    name: str
    status: str  # accepted, duplicate, requeued, rejected or skipped
    tests: int | None
    failures: int | None
    errors: int | None
    skipped: int | None
    code: str | None
    reason: str | None
    message: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerFormat:
    """What a client asked for: a list of `files` (`detail=files`), `text` (`Accept: text/plain`)."""

    files: bool
    text: bool

    @classmethod
    def of(cls, request: web.Request, *, files: bool | None = None) -> "AnswerFormat":
        """Return the format that the query and the headers ask for; `files` overrides the query."""
        # HTTP libraries name text/plain beside application/json without meaning it.
        accepted = ",".join(request.headers.getall("Accept", [])).casefold()
        text = "text/plain" in accepted and "application/json" not in accepted
        return cls(files=request.query.get("detail") == "files" if files is None else files, text=text)

    def success(self, result: str, files: Sequence[FileView]) -> web.Response:
        """Return the answer to an accepted upload."""
        if self.text:
            return _text_response(_lines(files), f"success: {result}")
        return success_response(result, files=files) if self.files else success_response(result)

    def failure(self, error: BridgeError, files: Sequence[FileView] = ()) -> web.Response:
        """Return the answer to a rejected upload; `files` are its files, if they are the reason."""
        response = error_response(error, files=files) if self.files else error_response(error)
        if not self.text:
            return response
        counts = Counter(file["status"] for file in files)
        summary = ", ".join(f"{count} {status}" for status, count in counts.items()) or str(error)
        text = _text_response(_lines(files), f"fail {error.code}: {summary}", error.status)
        if "Retry-After" in response.headers:
            text.headers["Retry-After"] = response.headers["Retry-After"]
        return text


def files_of(
    upload: AcceptedUpload, receipts: Sequence[ReportReceipt], skipped: Sequence[NewRejection]
) -> list[FileView]:
    """Return the reports of an upload, then its rejected files, then those in archives that were skipped."""
    accepted = [_report(report, receipt) for report, receipt in zip(upload.reports, receipts, strict=True)]
    rejected = [_without_counts("rejected", rejection) for rejection in upload.rejections]
    return [*accepted, *rejected, *(_without_counts("skipped", file) for file in skipped)]


def _report(report: NewReport, receipt: ReportReceipt) -> FileView:
    counts = report.counts
    return {
        "name": escape_for_display(report.name),
        "status": STATUSES[receipt],
        "tests": counts.tests,
        "failures": counts.failures,
        "errors": counts.errors,
        "skipped": counts.skipped,
        "code": None,
        "reason": None,
        "message": None,
    }


def _without_counts(status: str, file: NewRejection) -> FileView:
    return {
        "name": escape_for_display(file.name),
        "status": status,
        "tests": None,
        "failures": None,
        "errors": None,
        "skipped": None,
        "code": file.code or None,
        "reason": kind_of(file),
        "message": file.reason,
    }


def _lines(files: Sequence[FileView]) -> list[str]:
    return [f"{file['status']} {file['message'] or _counts(file)}" for file in files]


def _counts(file: FileView) -> str:
    failed = (file["failures"] or 0) + (file["errors"] or 0)
    return f"{file['name']}: {counted(file['tests'] or 0, 'test')}, {failed} failed"


def _text_response(lines: Sequence[str], last: str, status: int = 200) -> web.Response:
    text = "".join(f"{' '.join(line.split())}\n" for line in (*lines, last))
    body = text.encode("utf-8", "backslashreplace")
    return web.Response(status=status, body=body, content_type="text/plain", charset="utf-8")
