"""One call to a service of CodeArts, made with the bridge's rights.

It knows no service: what is asked, and what the answer means, is said elsewhere.
"""

import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NoReturn

from yarl import URL

from bridge.client.credentials import Credentials, Failure, Headers
from bridge.client.session import MAX_ANSWER_BYTES, USER_AGENT, GuardedSession, Request, Timeouts
from bridge.domain.code_check.models import CodeCheckRules
from bridge.domain.lifecycle.mirror import StagesOutcome, SummaryOutcome, TooLargeToSign, UploadOutcome
from bridge.domain.outcomes import (
    CheckOutcome,
    CorruptBody,
    NotSent,
    OutcomeUnknown,
    PollOutcome,
    RecordOutcome,
    SpoolUnreadable,
    body_differs,
    read_failure,
)
from bridge.errors import BridgeError
from bridge.protocols import codearts_build, codearts_reports
from bridge.protocols.aksk_signing import EMPTY_SHA256, UNSIGNED_PAYLOAD, RawRequest
from bridge.protocols.codearts_build import credentials_refused
from bridge.protocols.codearts_check import read_refresh, refresh_target
from bridge.protocols.http_response import HttpResponse


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestBody:
    """What is sent along, and no JSON: `read` yields its `size` bytes anew for every try."""

    content_type: str
    size: int
    read: Callable[[], AsyncIterable[bytes]]
    limits: Timeouts


class CodeArtsSession:
    """The service at `endpoint`, asked as `account`."""

    def __init__(self, session: GuardedSession, endpoint: str, account: Credentials) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._account = account

    @property
    def max_body_bytes(self) -> int | None:
        """The largest body that a call may have; None: nothing is known of a limit."""
        return self._account.max_body_bytes

    async def ask(
        self, method: str, target: str, body: RequestBody | None = None, *, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> HttpResponse | Failure:
        """Return the answer to `method` at `target`, a path and perhaps a query, quoted as they are sent."""
        url = URL(self._endpoint + target, encoded=True)
        host = ("Host", url.host_port_subcomponent or "")
        raw = RawRequest(method=method, path=url.raw_path, query=url.raw_query_string, headers=(host,))
        shared = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        if body is not None:
            shared |= {"Content-Type": body.content_type, "Content-Length": str(body.size)}

        def send(rights: Headers) -> Awaitable[HttpResponse | NotSent | OutcomeUnknown]:
            headers = dict((*shared.items(), host, *rights))
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
        return await self._account.call(raw, send, _judge, payload_sha256=digest)


def _judge(outcome: HttpResponse | NotSent | OutcomeUnknown) -> str | None:
    """Say what an answer tells of the credentials; anything but a refusal of theirs shows that they are taken."""
    if not isinstance(outcome, HttpResponse) or outcome.status >= 500:
        return None
    return credentials_refused(outcome)


# What the bridge asks of CodeArts Build about a build, asked over a guarded session.
#
# It knows neither how often to ask nor what follows from the answer.


class CodeArts:
    """CodeArts Build at `endpoint`, asked as `account`; every failure is an outcome."""

    def __init__(self, session: GuardedSession, endpoint: str, account: Credentials) -> None:
        self._session = session
        self._asking = CodeArtsSession(session, endpoint, account)
        self._record_paths = (
            codearts_build.record_info_path,
            codearts_build.record_info_v4_path,
        )  # the one that works first

    async def build_info(self, job_id: str, build_no: int) -> PollOutcome:
        """Ask whether the build runs, and how it ended."""
        return await self._session.observed("build_info", self._build_info(job_id, build_no))

    async def record_info(self, job_id: str, build_no: int) -> RecordOutcome:
        """Ask for branch, commit and the like; where a region has only one of the two twins, that one is found."""
        return await self._session.observed("record_info", self._record_info(job_id, build_no))

    async def _build_info(self, job_id: str, build_no: int) -> PollOutcome:
        answer = await self._asking.ask("GET", codearts_build.build_info_path(job_id, build_no))
        return codearts_build.read_build_info(answer) if isinstance(answer, HttpResponse) else answer

    async def _record_info(self, job_id: str, build_no: int) -> RecordOutcome:
        first, twin = self._record_paths
        answer = await self._asking.ask("GET", first(job_id, build_no))
        if isinstance(answer, HttpResponse) and codearts_build.is_no_such_api(answer):
            answer = await self._asking.ask("GET", twin(job_id, build_no))
            if isinstance(answer, HttpResponse) and not codearts_build.is_no_such_api(answer):
                self._record_paths = (twin, first)
        return codearts_build.read_record_info(answer) if isinstance(answer, HttpResponse) else answer


# What the bridge asks of CodeArts Check about a task, asked over a guarded session.
#
# It knows neither when to ask nor what follows from the answer.


class CodeArtsCheck:
    """CodeArts Check at `endpoint`, asked as `account`; every failure is an outcome."""

    def __init__(self, session: GuardedSession, endpoint: str, account: Credentials) -> None:
        self._session = session
        self._asking = CodeArtsSession(session, endpoint, account)

    async def refresh(self, rules: CodeCheckRules, *, in_background: bool) -> CheckOutcome:
        """Ask for the report, or `in_background` only for having it made anew."""
        return await self._session.observed("refresh", self._refresh(rules, in_background=in_background))

    async def _refresh(self, rules: CodeCheckRules, *, in_background: bool) -> CheckOutcome:
        answer = await self._asking.ask("PUT", refresh_target(rules, in_background=in_background))
        return read_refresh(answer, in_background=in_background) if isinstance(answer, HttpResponse) else answer


# What the bridge uploads to CodeArts Build and reads back of it, over a guarded session.
#
# It knows neither which reports are owed nor when. A body is streamed from wherever it lies, once for every try.


UPLOAD_LIMITS = Timeouts(read_seconds=60.0, total_seconds=100.0)
"""50 MiB at half a megabyte a second; CodeArts reads a report before it answers."""


MAX_LISTED_BYTES = 1024 * 1024
"""Of full-stages and the report summary, which list every stage and every node of a build."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportFile:
    """One file of an upload; `read` yields its bytes anew with every call."""

    name: str
    size: int
    sha256: str
    read: Callable[[], AsyncGenerator[bytes]]


class CodeArtsReports:
    """The report API of CodeArts Build at `endpoint`, asked as `account`; every failure is an outcome."""

    def __init__(self, session: GuardedSession, endpoint: str, account: Credentials) -> None:
        self._session = session
        self._asking = CodeArtsSession(session, endpoint, account)

    async def upload(self, job_id: str, build_no: int, node_id: str, files: Sequence[ReportFile]) -> UploadOutcome:
        """Upload files of one node; whether all or none of them were taken is known by Uploaded alone."""
        target = codearts_reports.upload_target(job_id, build_no, node_id)
        return await self._session.observed("upload", self._upload(target, files))

    async def full_stages(self, record_id: str) -> StagesOutcome:
        """Ask for the actions of a build, by its `build_record_id`."""
        path = codearts_reports.full_stages_path(record_id)
        answer = await self._session.observed("full_stages", self._list(path))
        return codearts_reports.read_full_stages(answer) if isinstance(answer, HttpResponse) else answer

    async def summary(self, job_id: str, build_no: int) -> SummaryOutcome:
        """Ask what CodeArts counts of all reports of a build."""
        target = codearts_reports.summary_target(job_id, build_no)
        answer = await self._session.observed("summary", self._list(target))
        return codearts_reports.read_summary(answer) if isinstance(answer, HttpResponse) else answer

    async def _list(self, target: str) -> HttpResponse | Failure:
        return await self._asking.ask("GET", target, max_answer_bytes=MAX_LISTED_BYTES)

    async def _upload(self, target: str, files: Sequence[ReportFile]) -> UploadOutcome:
        form = _Form(files)
        most = self._asking.max_body_bytes
        if most is not None and form.size > most:
            return TooLargeToSign(
                message=f"CodeArts takes bodies of {most} bytes at most where they are signed with an access key, and "
                f'this one has {form.size}. Set codearts.auth to "password" or "token", then upload the report again.'
            )
        answer = await self._asking.ask("POST", target, form.body())
        if form.failure is not None:
            return form.failure
        return codearts_reports.read_upload(answer) if isinstance(answer, HttpResponse) else answer


class _Form:
    """The reference's multipart form; what its files turn out to be is known when one was read."""

    def __init__(self, files: Sequence[ReportFile]) -> None:
        self.failure: CorruptBody | SpoolUnreadable | None = None
        self._boundary = secrets.token_hex(16)
        self._files = files
        heads = sum(len(self._head(file)) + file.size + len(codearts_reports.PART_END) for file in files)
        self.size = heads + len(codearts_reports.form_end(self._boundary))
        self._content_type = f"multipart/form-data; boundary={self._boundary}"

    def _head(self, file: ReportFile) -> bytes:
        return codearts_reports.part_head(self._boundary, file.name)

    def body(self) -> RequestBody:
        """Return the form as it is sent."""
        return RequestBody(content_type=self._content_type, size=self.size, read=self._pieces, limits=UPLOAD_LIMITS)

    async def _pieces(self) -> AsyncGenerator[bytes]:
        """Yield the form; it is cut, and so is never taken, where a file is not what was accepted."""
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
                self._abort(read_failure(error))
            if digest.hexdigest() != file.sha256:
                self._abort(
                    body_differs(size, digest.hexdigest(), accepted_size=file.size, accepted_sha256=file.sha256)
                )
            yield codearts_reports.PART_END
        yield codearts_reports.form_end(self._boundary)

    def _abort(self, failure: CorruptBody | SpoolUnreadable) -> NoReturn:
        self.failure = failure
        raise _Aborted


class _Aborted(Exception):
    """The form ends here, short of its Content-Length: CodeArts is not left waiting for the rest."""
