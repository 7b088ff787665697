"""The counter: one upload in, its reports kept and written into the ledger, and only then the answer.

It knows neither what the ledger is made of nor what becomes of a report later.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from aiohttp import web

from bridge.domain.intake import AcceptedUpload, NewRejection, ReportReceipt
from bridge.domain.routing import InvalidFilePolicy, Route
from bridge.errors import BadParameter, BridgeError, CallerError, Forbidden, NoRoute, Unauthenticated, Unavailable
from bridge.server.auth.authenticator import Authenticator, require
from bridge.server.auth.identity import AuthResult
from bridge.server.compression.codecs import content_codings
from bridge.server.compression.decompress import DecompressionPipeline, decompressed
from bridge.server.http.body import read_body, too_large
from bridge.server.http.parameters import Parameters, read_parameters, read_query, read_said
from bridge.server.http.responses import REQUEST_ID, refusal, success
from bridge.server.upload.commit import Accept, commit_upload, fault_of, route_for
from bridge.server.upload.file_store import UploadFileStore, UploadSource
from bridge.server.upload.limits import RoomLeft, UploadLimits
from bridge.server.upload.multipart_form import FileStart, UploadForm
from bridge.server.upload.quarantine import Quarantine
from bridge.server.upload.receiver import FileReceiver
from bridge.server.upload.response_text import MAX_NAMED_FILES, rejected_text, result_text
from bridge.server.validation.pool import ValidationPool
from bridge.store.blobs.base import Spool

UPLOAD_PATH = "/v1/report/junit/report/upload"

_log = structlog.get_logger(__name__)


class UploadEvents(Protocol):
    """Where intake counts what it did."""

    def accepted(self, n: int) -> None: ...
    def known(self, n: int) -> None: ...
    def refused(self, code: str) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Upload:
    """One upload whose build is known."""

    request: web.Request
    identity: AuthResult
    query: Mapping[str, str]
    parameters: Parameters

    @property
    def sender(self) -> UploadSource:
        parameters = self.parameters
        return UploadSource(
            job_id=parameters.job_id,
            build_no=parameters.build_no,
            node_id=parameters.node_id,
            caller=self.identity.caller.name,
        )

    def acceptance(
        self, form: Mapping[str, str], filing: UploadFileStore | None, refusals: Sequence[NewRejection]
    ) -> AcceptedUpload:
        """Return what the ledger is told; without a `filing` nothing was accepted, so nothing was said either."""
        upload_metadata, complete = read_said(self.query if filing else {}, form)
        return AcceptedUpload(
            job_id=self.parameters.job_id,
            build_no=self.parameters.build_no,
            upload_metadata=upload_metadata,
            complete=complete,
            caller=self.identity.caller.name,
            caller_routes=self.identity.caller.routes,
            address=self.request.remote or "",
            request_id=self.request[REQUEST_ID],
            reports=tuple(filing.reports) if filing else (),
            refusals=tuple(refusals),
        )


class UploadHandler:
    """Takes uploads. Its application has `answer_errors` as middleware and leaves bodies compressed as they come.

    `accept` writes an acceptance into the ledger. `admit` raises Unavailable while no upload can be taken, `room` when
    the disks fill in the middle of one.
    """

    def __init__(  # noqa: PLR0913 -- everything it meets, each once
        self,
        *,
        routes: Sequence[Route],
        limits: UploadLimits,
        callers: Authenticator,
        spool: Spool,
        checker: ValidationPool,
        quarantine: Quarantine,
        accept: Accept,
        admit: Callable[[], None],
        room: RoomLeft,
        observe: UploadEvents,
    ) -> None:
        self._routes = routes
        self._limits = limits
        self._callers = callers
        self._spool = spool
        self._checker = checker
        self._quarantine = quarantine
        self._accept = accept
        self._admit = admit
        self._room = room
        self._observe = observe

    async def upload(self, request: web.Request) -> web.Response:
        """Answer POST /v1/report/junit/report/upload (reference: Uploading a Unit Test Report)."""
        try:
            return await self._take(request)
        except BridgeError as error:
            self._observe.refused(error.code)
            _log.warning(
                "upload_refused",
                code=error.code,
                reason=str(error),
                address=request.remote,
                request_id=request[REQUEST_ID],
            )
            raise

    async def _take(self, request: web.Request) -> web.Response:
        identity = await self._callers.identify(request)
        try:
            require(identity.caller, "upload")
        except Forbidden:
            await self._prove(request, identity)
            raise
        self._admit()
        query = read_query(request.query.items())
        upload = _Upload(request=request, identity=identity, query=query, parameters=read_parameters(query))
        try:
            read_said(query, {})
            caller = identity.caller
            route = route_for(self._routes, upload.parameters.job_id, caller=caller.name, bound=caller.routes)
            filing, acceptance = await self._receive(upload, route)
        except Unauthenticated:
            raise
        except NoRoute as error:
            await self._turn_away(upload, error)
            raise
        except CallerError as error:
            await self._refuse_upload(upload, error)
            raise
        receipts = await commit_upload(self._accept, acceptance, filing)
        return self._answer(acceptance, receipts, filing, route)

    async def _turn_away(self, upload: _Upload, error: NoRoute) -> None:
        """Keep the files of a build that no route takes: its operator may add one."""
        try:
            filing, acceptance = await self._receive(upload, error)
            if not acceptance.refusals:
                await self._refuse_upload(upload, error)
                return
            await commit_upload(self._accept, replace(acceptance, complete=False), filing)
        except Unauthenticated:
            raise
        except (CallerError, Unavailable):
            await self._refuse_upload(upload, error)

    async def _refuse_upload(self, upload: _Upload, error: CallerError) -> None:
        """Note that a whole upload was refused: whoever asks why the build is not in TestNod finds it."""
        await self._prove(upload.request, upload.identity)
        told = NewRejection(name="", reason=str(error), code=error.code)
        with suppress(Unavailable):  # the caller learns what is wrong with the upload, whatever the ledger does
            await self._accept(upload.acceptance({}, None, (told,)))

    async def _receive(self, upload: _Upload, route: Route | NoRoute) -> tuple[UploadFileStore, AcceptedUpload]:
        filing = UploadFileStore(
            self._spool,
            self._checker,
            self._quarantine,
            sender=upload.sender,
            route=route,
            limits=self._limits,
            room=self._room,
        )
        reception = FileReceiver(filing, self._limits)
        try:
            form = await self._read_form(upload, reception)
            acceptance = upload.acceptance(form, filing, filing.refusals)
            _require_content(acceptance)
        except BaseException:
            await reception.discard()
            raise
        return filing, acceptance

    async def _read_form(self, upload: _Upload, reception: FileReceiver) -> Mapping[str, str]:
        request, proof = upload.request, upload.identity.body
        folded = content_codings(request.headers.get("Content-Encoding"))
        max_bytes = self._limits.max_request_size
        if (request.content_length or 0) > max_bytes:
            raise too_large(max_bytes)
        if not request.body_exists:  # `complete=true` needs none
            proof.finish()
            return {}
        form = UploadForm(request.headers.get("Content-Type"), max_files=self._limits.max_files)
        body = upload.identity.heard(read_body(request.content, max_bytes=max_bytes))
        if folded:
            body = decompressed(body, DecompressionPipeline(folded, what="The upload", max_bytes=max_bytes))
        async for piece in body:
            for event in form.feed(piece):
                if event is None:
                    await reception.end()
                elif isinstance(event, FileStart):
                    reception.begin(event)
                else:
                    await reception.write(event)
        form.close()
        proof.finish()
        return form.fields

    async def _prove(self, request: web.Request, identity: AuthResult) -> None:
        """Raise Unauthenticated unless this is who it says; nothing is noted or told in a name that is not proven."""
        if not identity.body.certain:
            async for _ in identity.heard(read_body(request.content, max_bytes=self._limits.max_request_size)):
                pass
            identity.body.finish()

    def _answer(
        self, acceptance: AcceptedUpload, receipts: Sequence[ReportReceipt], filing: UploadFileStore, route: Route
    ) -> web.Response:
        self._count(acceptance, receipts)
        reports, refusals = acceptance.reports, acceptance.refusals
        if not refusals or route.on_invalid is InvalidFilePolicy.WARN:
            return success(
                result_text(
                    reports,
                    receipts,
                    refusals,
                    complete=acceptance.complete,
                    passed_over=filing.passed_over,
                    unlike=filing.unlike,
                )
            )
        text = rejected_text(
            refusals, reports, complete=acceptance.complete, passed_over=filing.passed_over, unlike=filing.unlike
        )
        return refusal(fault_of(refusals)(text))

    def _count(self, acceptance: AcceptedUpload, receipts: Sequence[ReportReceipt]) -> None:
        known = receipts.count(ReportReceipt.DUPLICATE)
        accepted = len(receipts) - known
        if accepted:
            self._observe.accepted(accepted)
        if known:
            self._observe.known(known)
        for told in acceptance.refusals:
            self._observe.refused(told.code)
        _log.info(
            "upload",
            job_id=acceptance.job_id,
            build_no=acceptance.build_no,
            accepted=accepted,
            known=known,
            refused=[told.reason for told in acceptance.refusals[:MAX_NAMED_FILES]],
            complete=acceptance.complete,
            caller=acceptance.caller,
            address=acceptance.address,
            request_id=acceptance.request_id,
        )


def _require_content(acceptance: AcceptedUpload) -> None:
    if not (acceptance.reports or acceptance.refusals or acceptance.complete):
        raise BadParameter('The upload holds no files. Send them in the form field "files".')
