"""What the bridge uploads to CodeArts Build and reads back of it, over a guarded session.

It knows neither which reports are owed nor when. A body is streamed from wherever it lies, once for every try.
"""

import hashlib
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NoReturn

from bridge.client.account import Account, Failure
from bridge.client.asking import Asking, Body
from bridge.client.session import GuardedSession, Limits
from bridge.domain.mirror import StagesOutcome, SummaryOutcome, TooLargeToSign, UploadOutcome
from bridge.domain.outcomes import Damaged, SpoolUnreadable, different, unreadable
from bridge.errors import BridgeError
from bridge.protocols import codearts_reports
from bridge.protocols.answers import Answer

UPLOAD_LIMITS = Limits(read_seconds=60.0, total_seconds=100.0)
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

    def __init__(self, session: GuardedSession, endpoint: str, account: Account) -> None:
        self._session = session
        self._asking = Asking(session, endpoint, account)

    async def upload(self, job_id: str, build_no: int, node_id: str, files: Sequence[ReportFile]) -> UploadOutcome:
        """Upload files of one node; whether all or none of them were taken is known by Uploaded alone."""
        target = codearts_reports.upload_target(job_id, build_no, node_id)
        return await self._session.observed("upload", self._upload(target, files))

    async def full_stages(self, record_id: str) -> StagesOutcome:
        """Ask for the actions of a build, by its `build_record_id`."""
        path = codearts_reports.full_stages_path(record_id)
        answer = await self._session.observed("full_stages", self._list(path))
        return codearts_reports.read_full_stages(answer) if isinstance(answer, Answer) else answer

    async def summary(self, job_id: str, build_no: int) -> SummaryOutcome:
        """Ask what CodeArts counts of all reports of a build."""
        target = codearts_reports.summary_target(job_id, build_no)
        answer = await self._session.observed("summary", self._list(target))
        return codearts_reports.read_summary(answer) if isinstance(answer, Answer) else answer

    async def _list(self, target: str) -> Answer | Failure:
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
        return codearts_reports.read_upload(answer) if isinstance(answer, Answer) else answer


class _Form:
    """The reference's multipart form; what its files turn out to be is known when one was read."""

    def __init__(self, files: Sequence[ReportFile]) -> None:
        self.failure: Damaged | SpoolUnreadable | None = None
        self._boundary = secrets.token_hex(16)
        self._files = files
        heads = sum(len(self._head(file)) + file.size + len(codearts_reports.PART_END) for file in files)
        self.size = heads + len(codearts_reports.form_end(self._boundary))
        self._content_type = f"multipart/form-data; boundary={self._boundary}"

    def _head(self, file: ReportFile) -> bytes:
        return codearts_reports.part_head(self._boundary, file.name)

    def body(self) -> Body:
        """Return the form as it is sent."""
        return Body(content_type=self._content_type, size=self.size, read=self._pieces, limits=UPLOAD_LIMITS)

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
                self._abort(unreadable(error))
            if digest.hexdigest() != file.sha256:
                self._abort(different(size, digest.hexdigest(), accepted_size=file.size, accepted_sha256=file.sha256))
            yield codearts_reports.PART_END
        yield codearts_reports.form_end(self._boundary)

    def _abort(self, failure: Damaged | SpoolUnreadable) -> NoReturn:
        self.failure = failure
        raise _Aborted


class _Aborted(Exception):
    """The form ends here, short of its Content-Length: CodeArts is not left waiting for the rest."""
