"""TestNod's calls register, finalize and upload_failed, as its page "Submission API" has them.

Each is one commit before its answer. Errors have TestNod's status and `error_message`, and a `detail` for people.
"""

import json
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Final
from urllib.parse import quote

import structlog
from aiohttp import web

from bridge.domain.build import UploadMetadata
from bridge.domain.callers import Caller
from bridge.domain.intake import AcceptedUpload
from bridge.domain.submission import NewSubmission, Submission, SubmissionState
from bridge.errors import BridgeError, Unavailable
from bridge.server.http.requests import Network, content_of, read_small_body
from bridge.server.http.responses import REQUEST_ID
from bridge.server.submission.addresses import outside_url, signed_url
from bridge.server.submission.fields import (
    BUILD_ID_REQUIRED,
    MAX_BODY_BYTES,
    SubmissionError,
    read_fields,
    submitted_run,
)
from bridge.server.submission.project_tokens import ProjectTokens
from bridge.server.upload.commit import Accept
from bridge.store.engine.base import Database
from bridge.store.submissions import (
    SubmittedBuild,
    failed_upload,
    find_submission,
    find_submitted,
    forget,
    newest_run_url,
    register,
)
from bridge.telemetry.repeated_lines import log_refusal
from bridge.telemetry.traces import trace_context

API_PATH: Final = "/integrations/test_runs"
RUN_NOT_FOUND: Final = "Test run not found for this build_id."
UPLOAD_NOT_FOUND: Final = "Upload not found."
TOO_MANY_BYTES: Final = "The file is not part of this call. PUT it to the presigned_url of the answer."
NO_REASON: Final = "the client could not upload the file"
MAX_FAILURE_CHARACTERS: Final = 500
SECRET_BYTES: Final = 32

_ID: Final = re.compile(r"[0-9]{1,15}", re.ASCII)

_log = structlog.get_logger(__name__)

Handle = Callable[[web.Request, Caller, bytes], Awaitable[web.Response]]


class SubmissionHandler:
    """Answers the calls of API_PATH. `accept` commits an upload; `admit` raises Unavailable if none can be accepted."""

    def __init__(
        self,
        *,
        database: Database,
        tokens: ProjectTokens,
        accept: Accept,
        admit: Callable[[], None],
        trusted_proxies: Sequence[Network],
        behind_tls_proxy: bool,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._accept = accept
        self._admit = admit
        self._trusted_proxies = trusted_proxies
        self._behind_tls_proxy = behind_tls_proxy

    async def register(self, request: web.Request) -> web.Response:
        """Respond to POST …/upload: 201 with the ids of a new upload and the URL for its file."""
        return await self._answer(request, self._register)

    async def finalize(self, request: web.Request) -> web.Response:
        """Respond to POST …/finalize: the build ends, and its run is finalized when all its files have come."""
        return await self._answer(request, self._finalize)

    async def upload_failed(self, request: web.Request) -> web.Response:
        """Respond to POST …/upload_failed: no file of this upload is waited for any more."""
        return await self._answer(request, self._upload_failed)

    async def _answer(self, request: web.Request, handle: Handle) -> web.Response:
        try:
            caller = self._tokens.identify(request)
            self._admit()
            body = await read_small_body(await content_of(request), max_bytes=MAX_BODY_BYTES, remedy=TOO_MANY_BYTES)
            return await handle(request, caller, body)
        except SubmissionError as error:
            fields = {"call": request.path.rpartition("/")[2], "status": error.status, "reason": str(error)}
            fields |= {"detail": error.detail, "request_id": request[REQUEST_ID]}
            log_refusal(_log.warning, "submission_rejected", address=request.remote, **fields)
            return _json({"error_message": str(error), **_detail(error.detail)}, status=error.status)
        except BridgeError as error:
            response = _json({"error_message": str(error)}, status=error.status)
            if isinstance(error, Unavailable):
                response.headers["Retry-After"] = str(error.retry_after_seconds)
            return response

    # -- register --------------------------------------------------------------------------------------------------

    async def _register(self, request: web.Request, caller: Caller, body: bytes) -> web.Response:
        run = submitted_run(read_fields(body, request.headers.get("Content-Type", "")))
        route = self._tokens.route_for(caller, run)
        secret = secrets.token_urlsafe(SECRET_BYTES)
        base_url = outside_url(request, self._trusted_proxies, behind_tls_proxy=self._behind_tls_proxy)
        new = NewSubmission(
            route=route.name,
            run=run,
            secret_sha256=sha256(secret.encode("ascii")).digest(),
            caller=caller.name,
            caller_routes=caller.routes,
            address=request.remote or "",
            request_id=request[REQUEST_ID],
        )
        submission = await self._database.write(register, new)
        if request.transport is None or request.transport.is_closing():  # the client will register again
            await self._database.write(forget, submission)
        run_url = await self._database.read(newest_run_url, submission.build_id)
        _log.info("submission_registered", submission=submission.id, **_log_fields(submission, request))
        return _json(_registration(submission, base_url, secret, run_url), status=201)

    # -- finalize --------------------------------------------------------------------------------------------------

    async def _finalize(self, request: web.Request, caller: Caller, body: bytes) -> web.Response:
        build_id = read_fields(body, request.headers.get("Content-Type", "")).top.get("build_id", "").strip()
        if not build_id:
            raise SubmissionError(BUILD_ID_REQUIRED)
        routes = [route.name for route in self._tokens.routes_of(caller)]
        found = await self._database.read(find_submitted, routes, build_id)
        if not found:
            raise SubmissionError(RUN_NOT_FOUND, status=404)
        for build in found:
            await self._accept(_completion(build, caller, request))
            _log.info(
                "submission_finalized",
                job_id=build.route,
                build_no=build.build_no,
                caller=caller.name,
                request_id=request[REQUEST_ID],
            )
        return _json({"status": _status(found[-1])})

    # -- upload_failed ---------------------------------------------------------------------------------------------

    async def _upload_failed(self, request: web.Request, caller: Caller, body: bytes) -> web.Response:
        top = read_fields(body, request.headers.get("Content-Type", "")).top
        submission = await self._find(caller, top)
        if submission.state is SubmissionState.OPEN:
            failure = top.get("failure_message", "").strip()[:MAX_FAILURE_CHARACTERS] or NO_REASON
            failure = failure.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
            failed = failed_upload(submission, failure, request_id=request[REQUEST_ID], address=request.remote or "")
            upload = replace(failed, trace_context=trace_context())
            await self._accept(upload)
            fields = {"submission": submission.id, "reason": failure, **_log_fields(submission, request)}
            _log.warning("submission_failed", **fields)
        stored = submission.state is SubmissionState.STORED
        return _json({"status": "processed" if stored else "failed"})

    async def _find(self, caller: Caller, top: Mapping[str, str]) -> Submission:
        """Return the upload that the ids of a registration name; raise SubmissionError if the caller has none."""
        run_id, upload_id = top.get("test_run_id", "").strip(), top.get("upload_id", "").strip()
        if _ID.fullmatch(run_id) and _ID.fullmatch(upload_id):
            found = await self._database.read(find_submission, int(upload_id))
            if found is not None and found.build_id == int(run_id) and caller.may_use(found.route):
                return found
        raise SubmissionError(UPLOAD_NOT_FOUND, "Send test_run_id and upload_id of the registration.", status=404)


def _registration(submission: Submission, base_url: str, secret: str, run_url: str | None) -> dict[str, object]:
    project_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"bridge/{submission.route}"))
    status_url = f"{base_url}/bridge/v1/builds/{quote(submission.route, safe='')}/{submission.build_no}"
    return {
        "id": submission.id,
        "project_id": project_id,
        "project": project_id,  # as TestNod's own uploader calls it
        "test_run_id": submission.build_id,
        "upload_id": submission.id,
        "test_run_url": run_url or status_url,
        "presigned_url": signed_url(base_url, submission, secret),
    }


def _completion(build: SubmittedBuild, caller: Caller, request: web.Request) -> AcceptedUpload:
    return AcceptedUpload(
        job_id=build.route,
        build_no=build.build_no,
        upload_metadata=UploadMetadata(),
        complete=True,
        caller=caller.name,
        caller_routes=caller.routes,
        address=request.remote or "",
        request_id=request[REQUEST_ID],
        reports=(),
        rejections=(),
    )


def _status(build: SubmittedBuild) -> str:
    """Return the run's state as the client may see it: its files are terminal once the bridge has them."""
    if build.awaits_files:
        return "pending"
    return build.run_status if build.run_status in ("processed", "failed") else "processing"


def _log_fields(submission: Submission, request: web.Request) -> dict[str, object]:
    return {
        "job_id": submission.route,
        "build_no": submission.build_no,
        "caller": submission.caller,
        "address": request.remote,
        "request_id": request[REQUEST_ID],
    }


def _detail(text: str) -> dict[str, str]:
    return {"detail": text} if text else {}


def _json(body: Mapping[str, object], *, status: int = 200) -> web.Response:
    """Return JSON without blanks: the worked example of TestNod's page reads the URL with grep."""
    return web.json_response(body, status=status, dumps=lambda value: json.dumps(value, separators=(",", ":")))
