"""PUT of the file of a registered upload, answered as S3 answers a PUT to a presigned URL.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html and ErrorResponses.html. Headers that begin
with x-amz- are ignored, because earlier versions of TestNod's uploader send some.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Final
from xml.sax.saxutils import escape

import structlog
from aiohttp import web

from bridge.domain.build import UploadMetadata
from bridge.domain.instants import MINUTE, Duration, after, between
from bridge.domain.intake import AcceptedUpload, ReportReceipt, UploadReceipt
from bridge.domain.routing import InvalidFilePolicy, Route
from bridge.domain.submission import Submission, file_name_of
from bridge.domain.text_format import rfc3339
from bridge.errors import BadParameter, BridgeError, TooLarge, Unavailable
from bridge.server.compression.decompress import DecompressionMemory, MemoryShare
from bridge.server.http.protocol import mark_verified
from bridge.server.http.requests import content_of, read_body
from bridge.server.http.responses import REQUEST_ID
from bridge.server.submission.addresses import SIGNATURE
from bridge.server.upload.commit import Accept, commit_upload
from bridge.server.upload.file_store import Quarantine, ReserveSpace, UploadFileStore, UploadLimits, UploadSource
from bridge.server.upload.multipart_form import FileStart
from bridge.server.upload.receiver import FileReceiver
from bridge.server.validation.pool import ValidationPool
from bridge.store.blobs.base import Spool
from bridge.store.engine.base import Database
from bridge.store.submissions import extend, failed_upload, find_submission
from bridge.telemetry.metrics import Metrics
from bridge.telemetry.repeated_lines import log_refusal
from bridge.telemetry.traces import span, trace_context
from bridge.values import dataclass

NODE: Final = "default"

QUICK_BYTES: Final = 1024 * 1024
QUICK_US: Final = MINUTE
"""A file up to this size, whose URL is valid so much longer, arrives in time; a PUT of any other asks for more."""

SLOW_PUT: Final = Duration(60 * MINUTE)

_ID: Final = re.compile(r"[0-9]{1,15}", re.ASCII)

_log = structlog.get_logger(__name__)


class S3Error(Exception):
    """A PUT failed: HTTP status, code and message of S3, and further elements of its XML."""

    def __init__(self, status: int, code: str, message: str, **extra: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.extra = extra


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """Answers PUTs to the URLs of registrations. The collaborators are those of `UploadHandler`."""

    database: Database
    routes: Sequence[Route]
    limits: UploadLimits
    spool: Spool
    pool: ValidationPool
    quarantine: Quarantine
    accept: Accept
    admit: Callable[[], None]
    reserve_space: ReserveSpace
    metrics: Metrics
    memory: DecompressionMemory = field(default_factory=DecompressionMemory)

    async def put(self, request: web.Request) -> web.Response:
        """Respond to PUT /bridge/v1/uploads/{id}: 200 once the file is stored, else an error of S3."""
        try:
            return await self._put(request)
        except S3Error as error:
            fields = {"code": error.code, "reason": str(error), "request_id": request[REQUEST_ID]}
            log_refusal(_log.warning, "submission_put_rejected", address=request.remote, **fields)
            return _error(request, error)
        except Unavailable as error:
            response = _error(request, S3Error(503, "SlowDown", str(error)))
            response.headers["Retry-After"] = str(error.retry_after_seconds)
            return response
        except BadParameter as error:
            return _error(request, S3Error(400, "IncompleteBody", str(error)))
        except TooLarge as error:
            return _error(request, S3Error(400, "EntityTooLarge", str(error)))
        except BridgeError as error:
            return _error(request, S3Error(error.status, "InvalidRequest", str(error)))

    async def reject_method(self, request: web.Request) -> web.Response:
        """Respond to any other method."""
        error = S3Error(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        response = _error(request, error)
        response.headers["Allow"] = "PUT"
        return response

    async def _put(self, request: web.Request) -> web.Response:
        submission = await self._authorized(request)
        mark_verified(request, submission.caller)
        self.admit()
        size = request.content_length
        if size is None:
            raise S3Error(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        left = between(self.database.now(), submission.expires_at)
        if size > QUICK_BYTES or left < QUICK_US:
            await self.database.write(extend, (submission.id, after(self.database.now(), SLOW_PUT)))
        if size > self.limits.max_request_size:
            await self._refuse_size(request, submission)
        return await self._receive(request, submission)

    async def _authorized(self, request: web.Request) -> Submission:
        """Return the upload that the URL is for; raise S3Error if the URL is not valid, or no longer."""
        upload_id, secret = request.match_info["id"], request.query.get(SIGNATURE, "")
        found = await self.database.read(find_submission, int(upload_id)) if _ID.fullmatch(upload_id) else None
        presented = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        if found is None or not hmac.compare_digest(presented, found.secret_sha256):
            message = "The request signature we calculated does not match the signature you provided."
            raise S3Error(403, "SignatureDoesNotMatch", f"{message} Use the presigned_url as it was returned.")
        now = self.database.now()
        if now > found.expires_at:
            raise S3Error(
                403, "AccessDenied", "Request has expired", Expires=rfc3339(found.expires_at), ServerTime=rfc3339(now)
            )
        return found

    async def _refuse_size(self, request: web.Request, submission: Submission) -> None:
        """Record that the file is too large, and raise S3Error before any of it is read."""
        name, limit = file_name_of(submission.id), self.limits.max_request_size
        fault = f"{name}: this file is larger than {limit} bytes. Split the report, or raise server.max_request_size."
        await self.accept(_of(failed_upload(submission, fault, request_id=request[REQUEST_ID]), request))
        self.metrics.count_rejection(TooLarge.code)
        raise S3Error(400, "EntityTooLarge", fault)

    async def _receive(self, request: web.Request, submission: Submission) -> web.Response:
        route = next((each for each in self.routes if each.name == submission.route), Route(name=submission.route))
        store = self._new_store(submission, route)
        receiver = FileReceiver(store, self.limits, MemoryShare(memory=self.memory, party=submission.caller))
        digest, etag = hashlib.sha256(), hashlib.md5(usedforsecurity=False)  # S3's ETag is MD5
        try:
            receiver.start(FileStart(file_name_of(submission.id), request.headers.get("Content-Encoding")))
            async for piece in read_body(await content_of(request), max_bytes=self.limits.max_request_size):
                digest.update(piece)
                etag.update(piece)
                await receiver.write(piece)
            await receiver.end()
            _require_digest(request, etag.digest())
            upload = _upload(request, submission, store, file_sha256=digest.hexdigest())
        except BaseException:
            await receiver.discard()
            raise
        with span("commit"):
            receipts = await commit_upload(self._accept, upload, store)
        self._report(request, upload, receipts)
        if store.reports or route.on_invalid is InvalidFilePolicy.WARN:
            return web.Response(headers={"ETag": f'"{etag.hexdigest()}"', **_ids(request)})
        reason = upload.rejections[0].reason
        is_large = upload.rejections[0].code == TooLarge.code
        raise S3Error(400, "EntityTooLarge" if is_large else "InvalidRequest", reason)

    async def _accept(self, upload: AcceptedUpload) -> UploadReceipt:
        """Write an upload to the ledger; raise S3Error if the registered upload has another file already."""
        receipt = await self.accept(upload)
        if receipt.has_other_file:
            text = "This upload has another file already. Register one for each file."
            raise S3Error(412, "PreconditionFailed", text)
        return receipt

    def _new_store(self, submission: Submission, route: Route) -> UploadFileStore:
        source = UploadSource(
            job_id=submission.route, build_no=submission.build_no, node_id=NODE, caller=submission.caller
        )
        return UploadFileStore(
            self.spool,
            self.pool,
            self.quarantine,
            source=source,
            route=route,
            limits=self.limits,
            reserve_space=self.reserve_space,
        )

    def _report(self, request: web.Request, upload: AcceptedUpload, receipts: Sequence[ReportReceipt]) -> None:
        files = [receipt for receipt, report in zip(receipts, upload.reports, strict=True) if report.failure is None]
        duplicate = files.count(ReportReceipt.DUPLICATE)
        accepted = len(files) - duplicate
        if accepted:
            self.metrics.count_accepted(accepted)
        if duplicate:
            self.metrics.count_duplicates(duplicate)
        for rejection in upload.rejections:
            self.metrics.count_rejection(rejection.code)
        fields: dict[str, object] = {
            "job_id": upload.job_id,
            "build_no": upload.build_no,
            "route": upload.job_id,
            "submission": upload.submission_id,
            "caller": upload.caller,
            "address": request.remote,
            "request_id": upload.request_id,
            "rejected": [rejection.reason for rejection in upload.rejections],
        }
        if files:
            _log.info("upload_accepted", accepted=accepted, duplicate=duplicate, complete=False, **fields)
        else:
            reason = "The file of this upload was rejected."
            _log.warning("upload_rejected", code=upload.rejections[0].code, reason=reason, complete=False, **fields)


def _upload(
    request: web.Request, submission: Submission, store: UploadFileStore, *, file_sha256: str
) -> AcceptedUpload:
    """Return the upload for the ledger; raise S3Error if there is nothing to write.

    A rejected file settles the registered upload: TestNod is sent the reason.
    """
    if not store.reports:
        if not store.rejections:  # an archive without reports, of which all files are XML of another kind
            raise S3Error(400, "InvalidRequest", " ".join(store.skipped) or "The file contains no JUnit report.")
        failed = failed_upload(submission, store.rejections[0].reason, request_id=request[REQUEST_ID])
        return _of(replace(failed, rejections=tuple(store.rejections)), request)
    return AcceptedUpload(
        job_id=submission.route,
        build_no=submission.build_no,
        upload_metadata=UploadMetadata(),
        complete=False,
        caller=submission.caller,
        caller_routes=submission.caller_routes,
        address=request.remote or "",
        request_id=request[REQUEST_ID],
        reports=tuple(store.reports),
        rejections=tuple(store.rejections),
        submission_id=submission.id,
        file_sha256=file_sha256,
        trace_context=trace_context(),
    )


def _of(upload: AcceptedUpload, request: web.Request) -> AcceptedUpload:
    return replace(upload, address=request.remote or "", trace_context=trace_context())


def _require_digest(request: web.Request, md5: bytes) -> None:
    stated = request.headers.get("Content-MD5")
    if stated is not None and stated.strip() != base64.b64encode(md5).decode("ascii"):
        message = "The Content-MD5 you specified did not match what we received."
        raise S3Error(400, "BadDigest", message)


def _error(request: web.Request, error: S3Error) -> web.Response:
    ids = _ids(request)
    entries: Mapping[str, str] = {
        "Code": error.code,
        "Message": str(error),
        **error.extra,
        "RequestId": ids["x-amz-request-id"],
    }
    inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in entries.items())
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'
    return web.Response(status=error.status, text=text, content_type="application/xml", headers=ids)


def _ids(request: web.Request) -> dict[str, str]:
    return {"x-amz-request-id": request[REQUEST_ID]}
