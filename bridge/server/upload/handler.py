"""Handle an upload: authenticate the caller, receive and store the files, commit them to the ledger, then respond.

The API is "Uploading a Unit Test Report" of the CodeArts reference.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import structlog
from aiohttp import web

from bridge.domain.build import BuildNo, UploadMetadata
from bridge.domain.callers import AuthScheme, Caller
from bridge.domain.intake import AcceptedUpload, NewRejection, NewReport, ReportReceipt
from bridge.domain.routing import NOTHING_STATED, InvalidFilePolicy, Route, RoutingKeys, candidate_routes
from bridge.domain.text_format import counted, escape_for_display, were
from bridge.errors import BadParameter, BridgeError, CallerError, CommitUncertain, NoRoute, Unauthenticated, Unavailable
from bridge.server.auth.authenticator import Authenticator, AuthResult, party_of, require
from bridge.server.compression.codecs import ContentCoding, content_codings
from bridge.server.compression.decompress import DecompressionMemory, DecompressionPipeline, MemoryShare, decompressed
from bridge.server.http.requests import (
    Parameters,
    claimed_build,
    content_of,
    network_of,
    query_pairs,
    read_body,
    read_metadata,
    read_parameters,
    read_query,
    too_large,
    wants_files,
)
from bridge.server.http.responses import REQUEST_ID
from bridge.server.upload.answer import AnswerFormat, FileView, files_of
from bridge.server.upload.commit import (
    MAX_NAMED_FILES,
    Accept,
    commit_upload,
    forbidden_routes,
    rejected_text,
    rejection_error,
    result_text,
    route_for,
)
from bridge.server.upload.file_store import (
    FileBuffer,
    Quarantine,
    ReserveSpace,
    UploadFileStore,
    UploadLimits,
    UploadSource,
)
from bridge.server.upload.multipart_form import FileStart, UploadForm
from bridge.server.upload.receiver import FileReceiver
from bridge.server.upload.unproven_bodies import MEMORY_BYTES, UnprovenBodies
from bridge.server.validation.pool import ValidationPool
from bridge.store.blobs.base import Spool
from bridge.telemetry.metrics import Metrics
from bridge.telemetry.repeated_lines import log_refusal
from bridge.telemetry.traces import span, trace_context
from bridge.values import dataclass

RECORD_SECONDS: Final = 5.0
"""For the ledger to record a rejection; the client waits for its answer meanwhile."""

STRANGERS_PER_MINUTE: Final = 60
STRANGERS_PER_ADDRESS: Final = 20
"""Rejections of whole uploads of unproven callers that are recorded, so that strangers cannot keep the ledger busy."""

CALLERS_PER_MINUTE: Final = 600
PER_CALLER: Final = 120
"""The same for verified callers: a loop in a build script does not become a loop of commits. Open callers count by
their addresses."""

_log = structlog.get_logger(__name__)


@dataclass(kw_only=True, slots=True)
class _Attempt:
    """A request to upload, and what is known of it so far."""

    request: web.Request
    identity: AuthResult | None = None
    query: Mapping[str, str] | None = None  # the known parameters, once they are read
    recorded: bool = False  # the ledger has the reason why it is rejected

    @property
    def caller(self) -> Caller | None:
        """Return the caller, None as long as it is not proven."""
        return self.identity.caller if self.identity is not None and self.identity.body.certain else None

    def log_fields(self, build: tuple[str | None, BuildNo | None]) -> dict[str, object]:
        """Return the fields of a log line: the build, or what the query has in its place, and who sent the request."""
        caller = self.caller
        query = self.request.query if self.query is None else self.query  # aiohttp's takes much longer to read
        known = {name: value for name, value in zip(("job_id", "build_no"), build, strict=True) if value is not None}
        names = [name for name in ("job_id", "build_no", "node_id") if name not in known and name in query]
        return {
            **{name: escape_for_display(query[name]) for name in names},
            **known,
            "caller": None if caller is None else caller.name,
            "address": self.request.remote,
            "request_id": self.request[REQUEST_ID],
        }

    def for_ledger(  # noqa: PLR0913 -- built once: copies cost as much as the upload's checks
        self,
        job_id: str,
        build_no: int,
        rejections: Sequence[NewRejection],
        reports: Sequence[NewReport] = (),
        *,
        metadata: UploadMetadata = NOTHING_STATED,
        complete: bool = False,
        is_foreign: bool = False,
        forbidden: frozenset[str] = frozenset(),
    ) -> AcceptedUpload:
        """Return the upload for the ledger."""
        caller = self.caller
        return AcceptedUpload(
            job_id=job_id,
            build_no=build_no,
            upload_metadata=metadata,
            complete=complete,
            caller="" if caller is None else caller.name,
            caller_routes=() if caller is None else caller.routes,
            address=self.request.remote or "",
            request_id=self.request[REQUEST_ID],
            reports=tuple(reports),
            rejections=tuple(rejections),
            is_foreign=is_foreign,
            forbidden_routes=forbidden,
            trace_context=trace_context(),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _UploadRequest:
    """An upload whose caller and build are known."""

    attempt: _Attempt
    identity: AuthResult
    query: Mapping[str, str]
    parameters: Parameters

    @property
    def party(self) -> str:
        return party_of(self.identity.caller, self.attempt.request.remote)

    @property
    def source(self) -> UploadSource:
        parameters = self.parameters
        return UploadSource(
            job_id=parameters.job_id,
            build_no=parameters.build_no,
            node_id=parameters.node_id,
            caller=self.identity.caller.name,
        )

    def accepted(self, form: Mapping[str, str], store: UploadFileStore, forbidden: frozenset[str]) -> AcceptedUpload:
        """Return the upload for the ledger, with its reports, its rejected files and its metadata."""
        metadata, complete = read_metadata(self.query, form)
        return self.attempt.for_ledger(
            self.parameters.job_id,
            self.parameters.build_no,
            store.rejections,
            store.reports,
            metadata=metadata,
            complete=complete,
            forbidden=forbidden,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Received:
    """An upload that arrived whole."""

    store: UploadFileStore
    upload: AcceptedUpload
    wants_files: bool  # in the answer


def current_minute() -> int:
    """Return the number of the current minute by the event loop's clock."""
    return int(asyncio.get_running_loop().time() // 60)


class _RecordLimit:
    """Admits `per_minute` rejections, and `per_party` of them of one party."""

    def __init__(self, per_minute: int, per_party: int) -> None:
        self._per_minute = per_minute
        self._per_party = per_party
        self._minute = 0
        self._counts: Counter[str] = Counter()

    def admit(self, party: str) -> bool:
        """Count a rejection of a `party`, a caller or an address; return whether it may be recorded."""
        minute = current_minute()
        if minute != self._minute:
            self._minute = minute
            self._counts.clear()
        if self._counts.total() >= self._per_minute or self._counts[party] >= self._per_party:
            return False
        self._counts[party] += 1
        return True


class UploadHandler:
    """Accepts uploads. Its application needs the middleware `handle_errors`, and must not decompress bodies.

    `accept` writes an upload to the ledger. `admit` raises Unavailable if uploads cannot be accepted now;
    `reserve_space` raises it if the disks fill up during an upload.
    """

    def __init__(  # noqa: PLR0913 -- one parameter for each collaborator
        self,
        *,
        routes: Sequence[Route],
        limits: UploadLimits,
        authenticator: Authenticator,
        spool: Spool,
        pool: ValidationPool,
        quarantine: Quarantine,
        accept: Accept,
        admit: Callable[[], None],
        reserve_space: ReserveSpace,
        metrics: Metrics,
        unproven: UnprovenBodies | None = None,
        memory: DecompressionMemory | None = None,
    ) -> None:
        self._routes = routes
        self._limits = limits
        self._authenticator = authenticator
        self._spool = spool
        self._pool = pool
        self._quarantine = quarantine
        self._accept = accept
        self._admit = admit
        self._reserve_space = reserve_space
        self._metrics = metrics
        self._unproven = unproven or UnprovenBodies()
        self._memory = memory or DecompressionMemory()
        self._strangers = _RecordLimit(STRANGERS_PER_MINUTE, STRANGERS_PER_ADDRESS)
        self._callers = _RecordLimit(CALLERS_PER_MINUTE, PER_CALLER)

    async def upload(self, request: web.Request) -> web.Response:
        """Respond to POST /v1/report/junit/report/upload."""
        attempt = _Attempt(request=request)
        try:
            return await self._authenticated(attempt)
        except BridgeError as error:
            await self._reject(attempt, error)
            return AnswerFormat.of(request).failure(error)

    async def reject(self, request: web.Request, error: CallerError) -> web.Response:
        """Reject a request that was meant to be an upload; record it for its build as `upload` does."""
        attempt = _Attempt(request=request)
        with suppress(Unauthenticated, Unavailable):
            attempt.identity = await self._authenticator.identify(request)
        await self._reject(attempt, error)
        return AnswerFormat.of(request).failure(error)

    async def _authenticated(self, attempt: _Attempt) -> web.Response:
        identity = attempt.identity = await self._authenticator.identify(attempt.request)
        try:
            return await self._upload(attempt, identity)
        except Unauthenticated:
            attempt.identity = None
            raise
        except CallerError:
            await self._verify_body(attempt.request, identity)
            raise

    async def _upload(self, attempt: _Attempt, identity: AuthResult) -> web.Response:
        require(identity.caller, "upload")
        query = attempt.query = read_query(query_pairs(attempt.request))
        incoming = _UploadRequest(attempt=attempt, identity=identity, query=query, parameters=read_parameters(query))
        read_metadata(query, {})
        wants_files(query, {})
        job_id, caller = incoming.parameters.job_id, identity.caller
        try:
            route = route_for(self._routes, job_id, caller=caller.name, caller_routes=caller.routes)
            self._admit()  # only now: what the caller may not send, it may not send later either
        except NoRoute as error:
            self._admit()
            attempt.recorded = await self._quarantine_all(incoming, error)
            raise
        received = await self._receive(incoming, route)
        store, upload = received.store, received.upload
        with span("commit"):
            receipts = await commit_upload(self._accept, upload, store)
        # Once the answer is sent: the client need not wait for it.
        asyncio.get_running_loop().call_soon(self._report_events, attempt, upload, receipts, route.name)
        form = AnswerFormat.of(attempt.request, files=received.wants_files)
        return _response(form, upload, receipts, store, route)

    async def _receive(self, incoming: _UploadRequest, route: Route | NoRoute) -> _Received:
        store = UploadFileStore(
            self._spool,
            self._pool,
            self._quarantine,
            source=incoming.source,
            route=route,
            limits=self._limits,
            reserve_space=self._reserve_space,
        )
        share = MemoryShare(memory=self._memory, party=incoming.party)
        receiver = FileReceiver(store, self._limits, share)
        try:
            form = await self._read_form(incoming, receiver, share)
            forbidden = forbidden_routes(self._routes, incoming.identity.caller.routes)
            upload = incoming.accepted(form, store, forbidden)
            _require_content(upload)
            return _Received(store=store, upload=upload, wants_files=wants_files(incoming.query, form))
        except BaseException:
            await receiver.discard()
            raise

    async def _read_form(
        self, incoming: _UploadRequest, receiver: FileReceiver, share: MemoryShare
    ) -> Mapping[str, str]:
        """Pass all files of the body to `receiver`, and return the other fields of the form."""
        request, identity, max_bytes = incoming.attempt.request, incoming.identity, self._limits.max_request_size
        codings = content_codings(request.headers.get("Content-Encoding"))
        if (request.content_length or 0) > max_bytes:
            raise too_large(max_bytes)
        if not request.body_exists:  # enough for `complete=true`
            await identity.body.finish()
            return {}
        form = UploadForm(request.headers.get("Content-Type"), max_files=self._limits.max_files)
        pieces = read_body(await content_of(request), max_bytes=max_bytes)
        if identity.body.signature_verified:
            await self._feed_form(form, receiver, identity.feed_body(pieces), codings, share)
            await identity.body.finish()
            return form.fields
        buffer = FileBuffer(
            self._spool, max_size=max_bytes, memory_size=MEMORY_BYTES, reserve_space=self._reserve_space
        )
        async with self._unproven.proven(identity, pieces, buffer, origin=network_of(request.remote)) as body:
            await self._feed_form(form, receiver, body, codings, share)
        return form.fields

    async def _feed_form(
        self,
        form: UploadForm,
        receiver: FileReceiver,
        body: AsyncIterator[bytes],
        codings: Sequence[ContentCoding],
        share: MemoryShare,
    ) -> None:
        """Pass a body with the layers of `codings` to `form`, and its files to `receiver`."""
        if codings:
            max_bytes = self._limits.max_request_size
            with DecompressionPipeline(codings, what="The upload", max_bytes=max_bytes, share=share) as pipeline:
                await self._feed_form(form, receiver, decompressed(body, pipeline), (), share)
            return
        async for piece in body:
            for event in form.feed(piece):
                if event is None:
                    await receiver.end()
                elif isinstance(event, FileStart):
                    receiver.start(event)
                else:
                    await receiver.write(event)
        form.close()

    async def _quarantine_all(self, incoming: _UploadRequest, error: NoRoute) -> bool:
        """Quarantine the files of a build that no route takes, because the operator may add a route.

        Return whether the ledger has them.
        """
        try:
            received = await self._receive(incoming, error)
            if received.upload.rejections:
                await commit_upload(self._accept, replace(received.upload, complete=False), received.store)
        except Unauthenticated:
            raise
        except (CallerError, Unavailable):
            return False
        return bool(received.upload.rejections)

    async def _reject(self, attempt: _Attempt, error: BridgeError) -> None:
        """Count, log and record that a whole upload was rejected, so that `bridge why` can find it by its build."""
        self._metrics.count_rejection(error.code)
        job_id, build_no = claimed_build(attempt.request.query)
        fields = {"code": error.code, "reason": str(error), **attempt.log_fields((job_id, build_no))}
        if attempt.caller is None:  # any client can cause these
            fields.pop("address")
            log_refusal(_log.warning, "upload_rejected", address=attempt.request.remote, **fields)
        else:
            _log.warning("upload_rejected", **fields)
        if attempt.recorded or job_id is None or build_no is None or isinstance(error, CommitUncertain):
            return
        if not self._may_record(attempt):
            return
        rejection = NewRejection(name="", reason=str(error), code=error.code, kind=error.reason)
        is_foreign = _is_foreign(attempt.caller, self._routes, job_id)
        upload = attempt.for_ledger(job_id, build_no, (rejection,), is_foreign=is_foreign)
        with suppress(Unavailable, TimeoutError):  # the client gets the error of the upload even if the ledger fails
            async with asyncio.timeout(RECORD_SECONDS):
                await self._accept(upload)

    def _may_record(self, attempt: _Attempt) -> bool:
        caller, origin = attempt.caller, network_of(attempt.request.remote)
        if caller is None:
            return self._strangers.admit(origin)
        return self._callers.admit(f"{caller.name} {origin}" if caller.scheme is AuthScheme.OPEN else caller.name)

    async def _verify_body(self, request: web.Request, identity: AuthResult) -> None:
        """Raise Unauthenticated unless the body matches its signature; nothing is recorded for an unproven caller."""
        if not identity.body.certain:
            content = await content_of(request)
            async for _ in identity.feed_body(read_body(content, max_bytes=self._limits.max_request_size)):
                pass
            await identity.body.finish()

    def _report_events(
        self, attempt: _Attempt, upload: AcceptedUpload, receipts: Sequence[ReportReceipt], route: str
    ) -> None:
        duplicate = receipts.count(ReportReceipt.DUPLICATE)
        accepted = len(receipts) - duplicate
        if accepted:
            self._metrics.count_accepted(accepted)
        if duplicate:
            self._metrics.count_duplicates(duplicate)
        for rejection in upload.rejections:
            self._metrics.count_rejection(rejection.code)
        rejected = [rejection.reason for rejection in upload.rejections[:MAX_NAMED_FILES]]
        build = attempt.log_fields((upload.job_id, upload.build_no))
        fields = {"rejected": rejected, "complete": upload.complete, "route": route, **build}
        if rejected and not receipts:
            code, count = rejection_error(upload.rejections, "").code, len(upload.rejections)
            reason = f"{counted(count, 'file')} of this upload {were(count)} rejected, and none was accepted."
            _log.warning("upload_rejected", code=code, reason=reason, **fields)
        else:
            _log.info("upload_accepted", accepted=accepted, duplicate=duplicate, **fields)


def _is_foreign(caller: Caller | None, routes: Sequence[Route], job_id: str) -> bool:
    """Return whether the caller may not upload at all, or routes take the job and it may use none of them."""
    if caller is None:
        return False
    found = candidate_routes(routes, RoutingKeys(job_id=job_id))
    return "upload" not in caller.scopes or (bool(found) and not any(caller.may_use(route.name) for route in found))


def _require_content(upload: AcceptedUpload) -> None:
    if not (upload.reports or upload.rejections or upload.complete):
        raise BadParameter('The upload contains no files. Send them in the form field "files".')


def _response(
    form: AnswerFormat,
    upload: AcceptedUpload,
    receipts: Sequence[ReportReceipt],
    store: UploadFileStore,
    route: Route,
) -> web.Response:
    reports, rejections, complete = upload.reports, upload.rejections, upload.complete
    skipped, non_xml = store.skipped, store.skipped_non_xml
    files: list[FileView] = files_of(upload, receipts, store.skipped_files) if form.files or form.text else []
    if not rejections or route.on_invalid is InvalidFilePolicy.WARN:
        return form.success(
            result_text(reports, receipts, rejections, complete=complete, skipped=skipped, skipped_non_xml=non_xml),
            files,
        )
    text = rejected_text(rejections, reports, complete=complete, skipped=skipped, skipped_non_xml=non_xml)
    return form.failure(rejection_error(rejections, text), files)
