"""CodeArts Build, CodeArts Check and the report API, called with the bridge's credentials over guarded sessions."""

import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import NoReturn, TypeVar

from yarl import URL

from bridge.client.credentials import Credentials, Failure, Headers
from bridge.client.session import MAX_ANSWER_BYTES, USER_AGENT, GuardedSession, Request, Timeouts
from bridge.domain import outcomes
from bridge.domain.code_check.models import CodeCheckRules
from bridge.domain.instants import Instant
from bridge.domain.lifecycle.mirror import StagesOutcome, SummaryOutcome, TooLargeToSign, UploadOutcome
from bridge.errors import BridgeError
from bridge.protocols import codearts_build, codearts_lists, codearts_reports
from bridge.protocols.aksk_signing import EMPTY_SHA256, UNSIGNED_PAYLOAD, RawRequest
from bridge.protocols.codearts_build import credentials_rejected
from bridge.protocols.codearts_check import read_refresh, refresh_target
from bridge.protocols.http_response import HttpResponse
from bridge.values import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestBody:
    """A body of `size` bytes; `read` yields them from the start for every attempt."""

    content_type: str
    size: int
    read: Callable[[], AsyncIterable[bytes]]
    limits: Timeouts


class CodeArtsSession:
    """A service of CodeArts at `endpoint`, called with `credentials`."""

    def __init__(self, session: GuardedSession, endpoint: str, credentials: Credentials) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._credentials = credentials

    @property
    def max_body_bytes(self) -> int | None:
        """Return the largest body that the credentials allow; None if no limit is known."""
        return self._credentials.max_body_bytes

    async def send(
        self, method: str, target: str, body: RequestBody | None = None, *, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> HttpResponse | Failure:
        """Return the response to `method` at `target`, a path with or without a query, quoted as sent."""
        url = URL(self._endpoint + target, encoded=True)
        host = ("Host", url.host_port_subcomponent or "")
        raw = RawRequest(method=method, path=url.raw_path, query=url.raw_query_string, headers=(host,))
        shared = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        if body is not None:
            shared |= {"Content-Type": body.content_type, "Content-Length": str(body.size)}

        def send(auth_headers: Headers) -> Awaitable[HttpResponse | outcomes.NotSent | outcomes.OutcomeUnknown]:
            headers = dict((*shared.items(), host, *auth_headers))
            pieces, limits = (body.read(), body.limits) if body is not None else (None, None)
            return self._session.send(
                Request(
                    method=method,
                    url=url,
                    headers=headers,
                    body=pieces,
                    limits=limits,
                    max_answer_bytes=max_answer_bytes,
                )
            )

        digest = EMPTY_SHA256 if body is None else UNSIGNED_PAYLOAD
        return await self._credentials.call(raw, send, _read_rejection, payload_sha256=digest)


def _read_rejection(outcome: HttpResponse | outcomes.NotSent | outcomes.OutcomeUnknown) -> str | None:
    """Return why the credentials were rejected; "" if they were accepted; None if the response does not show it."""
    if not isinstance(outcome, HttpResponse) or outcome.status >= 500:
        return None
    return credentials_rejected(outcome)


MAX_LISTED_BYTES = 1024 * 1024
"""Limit for responses that list builds, jobs, stages or nodes."""

Read = TypeVar("Read")


class CodeArts:
    """CodeArts Build at `endpoint`; every failure is an outcome."""

    def __init__(self, session: GuardedSession, endpoint: str, credentials: Credentials) -> None:
        self._session = session
        self._codearts = CodeArtsSession(session, endpoint, credentials)
        # The path that works comes first.
        self._record_paths = (codearts_build.record_info_path, codearts_build.record_info_v4_path)

    async def build_info(self, job_id: str, build_no: int) -> outcomes.PollOutcome:
        """Return whether the build runs, and its result."""
        return await self._session.observed("build_info", self._build_info(job_id, build_no))

    async def record_info(self, job_id: str, build_no: int) -> outcomes.RecordOutcome:
        """Return branch, commit and other fields; tries both paths, because some regions have only one."""
        return await self._session.observed("record_info", self._record_info(job_id, build_no))

    async def record_list(
        self, job_id: str, since: Instant, until: Instant, *, page: int = 0
    ) -> outcomes.RecordListOutcome:
        """Return a page of the builds of a job that started between two instants, and some before and after."""
        target = codearts_lists.record_list_target(job_id, since, until, page=page)
        return await self._session.observed("record_list", self._listed(target, codearts_lists.read_record_list))

    async def job_list(self, project_id: str, *, page: int = 0) -> outcomes.JobListOutcome:
        """Return a page of the jobs of a project (`devcloud_project_id` of record-info)."""
        target = codearts_lists.job_list_target(project_id, page=page)
        return await self._session.observed("job_list", self._listed(target, codearts_lists.read_job_list))

    async def record_details(self, record_id: str) -> outcomes.DetailsOutcome:
        """Return commit, job name and repository of a build, by its `build_record_id`."""
        target = codearts_lists.record_details_path(record_id)
        return await self._session.observed("record_details", self._listed(target, codearts_lists.read_record_details))

    async def _listed(self, target: str, read: Callable[[HttpResponse], Read]) -> Read | Failure:
        response = await self._codearts.send("GET", target, max_answer_bytes=MAX_LISTED_BYTES)
        return read(response) if isinstance(response, HttpResponse) else response

    async def _build_info(self, job_id: str, build_no: int) -> outcomes.PollOutcome:
        response = await self._codearts.send("GET", codearts_build.build_info_path(job_id, build_no))
        return codearts_build.read_build_info(response) if isinstance(response, HttpResponse) else response

    async def _record_info(self, job_id: str, build_no: int) -> outcomes.RecordOutcome:
        first, twin = self._record_paths
        response = await self._codearts.send("GET", first(job_id, build_no))
        if isinstance(response, HttpResponse) and codearts_build.is_no_such_api(response):
            response = await self._codearts.send("GET", twin(job_id, build_no))
            if isinstance(response, HttpResponse) and not codearts_build.is_no_such_api(response):
                self._record_paths = (twin, first)
        return codearts_build.read_record_info(response) if isinstance(response, HttpResponse) else response


class CodeArtsCheck:
    """CodeArts Check at `endpoint`; every failure is an outcome."""

    def __init__(self, session: GuardedSession, endpoint: str, credentials: Credentials) -> None:
        self._session = session
        self._codearts = CodeArtsSession(session, endpoint, credentials)

    async def refresh(self, rules: CodeCheckRules, *, in_background: bool) -> outcomes.CheckOutcome:
        """Return the latest report; if `in_background`, only start its refresh."""
        return await self._session.observed("refresh", self._refresh(rules, in_background=in_background))

    async def _refresh(self, rules: CodeCheckRules, *, in_background: bool) -> outcomes.CheckOutcome:
        response = await self._codearts.send("PUT", refresh_target(rules, in_background=in_background))
        return read_refresh(response, in_background=in_background) if isinstance(response, HttpResponse) else response


UPLOAD_TIMEOUTS = Timeouts(read_seconds=60.0, total_seconds=100.0)
"""50 MiB at half a megabyte per second; CodeArts reads a report before it responds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportFile:
    """One file of an upload; `read` yields its bytes from the start with every call."""

    name: str
    size: int
    sha256: str
    read: Callable[[], AsyncGenerator[bytes]]


class CodeArtsReports:
    """The report API of CodeArts Build at `endpoint`; every failure is an outcome."""

    def __init__(self, session: GuardedSession, endpoint: str, credentials: Credentials) -> None:
        self._session = session
        self._codearts = CodeArtsSession(session, endpoint, credentials)

    async def upload(self, job_id: str, build_no: int, node_id: str, files: Sequence[ReportFile]) -> UploadOutcome:
        """Upload files of one node. Only MirrorUploaded shows that all of them were accepted."""
        target = codearts_reports.upload_target(job_id, build_no, node_id)
        return await self._session.observed("upload", self._upload(target, files))

    async def full_stages(self, record_id: str) -> StagesOutcome:
        """Return the stages of a build, by its `build_record_id`."""
        path = codearts_reports.full_stages_path(record_id)
        response = await self._session.observed("full_stages", self._list(path))
        return codearts_reports.read_full_stages(response) if isinstance(response, HttpResponse) else response

    async def summary(self, job_id: str, build_no: int) -> SummaryOutcome:
        """Return CodeArts' totals over all reports of a build."""
        target = codearts_reports.summary_target(job_id, build_no)
        response = await self._session.observed("summary", self._list(target))
        return codearts_reports.read_summary(response) if isinstance(response, HttpResponse) else response

    async def _list(self, target: str) -> HttpResponse | Failure:
        return await self._codearts.send("GET", target, max_answer_bytes=MAX_LISTED_BYTES)

    async def _upload(self, target: str, files: Sequence[ReportFile]) -> UploadOutcome:
        form = _Form(files)
        max_bytes = self._codearts.max_body_bytes
        if max_bytes is not None and form.size > max_bytes:
            return TooLargeToSign(
                message=f"The upload has {form.size} bytes, but CodeArts accepts at most {max_bytes} if it is signed "
                'with an access key. Set codearts.auth to "password" or "token", then upload the report again.'
            )
        response = await self._codearts.send("POST", target, form.body())
        if form.failure is not None:
            return form.failure
        return codearts_reports.read_upload(response) if isinstance(response, HttpResponse) else response


class _Form:
    """The multipart form of the API reference. If a file cannot be read or has changed, `failure` is set."""

    def __init__(self, files: Sequence[ReportFile]) -> None:
        self.failure: outcomes.CorruptBody | outcomes.SpoolUnreadable | None = None
        self._boundary = secrets.token_hex(16)
        self._files = files
        parts_size = sum(len(self._head(file)) + file.size + len(codearts_reports.PART_END) for file in files)
        self.size = parts_size + len(codearts_reports.form_end(self._boundary))
        self._content_type = f"multipart/form-data; boundary={self._boundary}"

    def _head(self, file: ReportFile) -> bytes:
        return codearts_reports.part_head(self._boundary, file.name)

    def body(self) -> RequestBody:
        """Return the form as a request body."""
        return RequestBody(content_type=self._content_type, size=self.size, read=self._pieces, limits=UPLOAD_TIMEOUTS)

    async def _pieces(self) -> AsyncGenerator[bytes]:
        """Yield the form; abort it if a file differs from what was accepted, so that CodeArts does not accept it."""
        for file in self._files:
            yield self._head(file)
            digest, size = hashlib.sha256(), 0
            try:
                async with aclosing(file.read()) as pieces:
                    async for piece in pieces:
                        digest.update(piece)
                        size += len(piece)
                        yield piece
            except (BridgeError, OSError) as error:
                self._fail(outcomes.read_failure(error))
            if digest.hexdigest() != file.sha256:
                self._fail(
                    outcomes.body_differs(
                        size, digest.hexdigest(), accepted_size=file.size, accepted_sha256=file.sha256
                    )
                )
            yield codearts_reports.PART_END
        yield codearts_reports.form_end(self._boundary)

    def _fail(self, failure: outcomes.CorruptBody | outcomes.SpoolUnreadable) -> NoReturn:
        self.failure = failure
        raise _Aborted


class _Aborted(Exception):
    """Ends the form before its Content-Length, so that CodeArts does not wait for the rest."""
