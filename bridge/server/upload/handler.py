"""Handle an upload: authenticate the caller, receive and store the files, commit them to the ledger, then respond.

The API is "Uploading a Unit Test Report" of the CodeArts reference.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog
from aiohttp import web

from bridge.domain.build import UploadMetadata
from bridge.domain.intake import AcceptedUpload, NewRejection, ReportReceipt
from bridge.domain.routing import InvalidFilePolicy, Route
from bridge.errors import BadParameter, BridgeError, CallerError, Forbidden, NoRoute, Unauthenticated, Unavailable
from bridge.server.auth.authenticator import Authenticator, AuthResult, require
from bridge.server.compression.codecs import content_codings
from bridge.server.compression.decompress import DecompressionPipeline, decompressed
from bridge.server.http.requests import (
    Parameters,
    content_of,
    query_pairs,
    read_body,
    read_metadata,
    read_parameters,
    read_query,
    too_large,
)
from bridge.server.http.responses import REQUEST_ID, error_response, success_response
from bridge.server.upload.commit import (
    MAX_NAMED_FILES,
    Accept,
    commit_upload,
    rejected_text,
    rejection_error,
    result_text,
    route_for,
)
from bridge.server.upload.file_store import Quarantine, ReserveSpace, UploadFileStore, UploadLimits, UploadSource
from bridge.server.upload.multipart_form import FileStart, UploadForm
from bridge.server.upload.receiver import FileReceiver
from bridge.server.validation.pool import ValidationPool
from bridge.store.blobs.base import Spool
from bridge.telemetry.metrics import Metrics
from bridge.telemetry.repeated_lines import log_refusal

UPLOAD_PATH = "/v1/report/junit/report/upload"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _UploadRequest:
    """An upload whose caller and build are known."""

    request: web.Request
    identity: AuthResult
    query: Mapping[str, str]
    parameters: Parameters

    @property
    def source(self) -> UploadSource:
        parameters = self.parameters
        return UploadSource(
            job_id=parameters.job_id,
            build_no=parameters.build_no,
            node_id=parameters.node_id,
            caller=self.identity.caller.name,
        )

    def accepted(self, form: Mapping[str, str], store: UploadFileStore) -> AcceptedUpload:
        """Return the upload for the ledger, with its reports, its rejected files and its metadata."""
        upload = self.rejected(tuple(store.rejections))
        upload_metadata, complete = read_metadata(self.query, form)
        return replace(upload, upload_metadata=upload_metadata, complete=complete, reports=tuple(store.reports))

    def rejected(self, rejections: tuple[NewRejection, ...]) -> AcceptedUpload:
        """Return the upload for the ledger with nothing but rejections."""
        return AcceptedUpload(
            job_id=self.parameters.job_id,
            build_no=self.parameters.build_no,
            upload_metadata=UploadMetadata(),
            complete=False,
            caller=self.identity.caller.name,
            caller_routes=self.identity.caller.routes,
            address=self.request.remote or "",
            request_id=self.request[REQUEST_ID],
            reports=(),
            rejections=rejections,
        )


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

    async def upload(self, request: web.Request) -> web.Response:
        """Respond to POST /v1/report/junit/report/upload."""
        try:
            return await self._upload(request)
        except BridgeError as error:
            self._metrics.count_rejection(error.code)
            fields = {"address": request.remote, "code": error.code, "reason": str(error)}
            fields["request_id"] = request[REQUEST_ID]
            if isinstance(error, Unauthenticated | Unavailable):  # any client can cause these
                log_refusal(_log.warning, "upload_rejected", **fields)
            else:
                _log.warning("upload_rejected", **fields)
            raise

    async def _upload(self, request: web.Request) -> web.Response:
        identity = await self._authenticator.identify(request)
        try:
            require(identity.caller, "upload")
        except Forbidden:
            await self._verify_body(request, identity)
            raise
        self._admit()
        query = read_query(query_pairs(request))
        incoming = _UploadRequest(request=request, identity=identity, query=query, parameters=read_parameters(query))
        try:
            read_metadata(query, {})
            job_id, caller = incoming.parameters.job_id, identity.caller
            route = route_for(self._routes, job_id, caller=caller.name, caller_routes=caller.routes)
            store, upload = await self._receive(incoming, route)
        except Unauthenticated:
            raise
        except NoRoute as error:
            await self._quarantine_all(incoming, error)
            raise
        except CallerError as error:
            await self._record_rejection(incoming, error)
            raise
        receipts = await commit_upload(self._accept, upload, store)
        self._report_events(upload, receipts)
        return _response(upload, receipts, store, route)

    async def _receive(
        self, incoming: _UploadRequest, route: Route | NoRoute
    ) -> tuple[UploadFileStore, AcceptedUpload]:
        store = UploadFileStore(
            self._spool,
            self._pool,
            self._quarantine,
            source=incoming.source,
            route=route,
            limits=self._limits,
            reserve_space=self._reserve_space,
        )
        receiver = FileReceiver(store, self._limits)
        try:
            form = await self._read_form(incoming, receiver)
            upload = incoming.accepted(form, store)
            _require_content(upload)
        except BaseException:
            await receiver.discard()
            raise
        return store, upload

    async def _read_form(self, incoming: _UploadRequest, receiver: FileReceiver) -> Mapping[str, str]:
        """Pass all files of the body to `receiver`, and return the other fields of the form."""
        request, identity, max_bytes = incoming.request, incoming.identity, self._limits.max_request_size
        codings = content_codings(request.headers.get("Content-Encoding"))
        if (request.content_length or 0) > max_bytes:
            raise too_large(max_bytes)
        if not request.body_exists:  # enough for `complete=true`
            await identity.body.finish()
            return {}
        form = UploadForm(request.headers.get("Content-Type"), max_files=self._limits.max_files)
        body = identity.feed_body(read_body(await content_of(request), max_bytes=max_bytes))
        if codings:
            body = decompressed(body, DecompressionPipeline(codings, what="The upload", max_bytes=max_bytes))
        async for piece in body:
            for event in form.feed(piece):
                if event is None:
                    await receiver.end()
                elif isinstance(event, FileStart):
                    receiver.start(event)
                else:
                    await receiver.write(event)
        form.close()
        await identity.body.finish()
        return form.fields

    async def _quarantine_all(self, incoming: _UploadRequest, error: NoRoute) -> None:
        """Quarantine the files of a build that no route takes, because the operator may add a route."""
        try:
            store, upload = await self._receive(incoming, error)
            if not upload.rejections:
                await self._record_rejection(incoming, error)
                return
            await commit_upload(self._accept, replace(upload, complete=False), store)
        except Unauthenticated:
            raise
        except (CallerError, Unavailable):
            await self._record_rejection(incoming, error)

    async def _record_rejection(self, incoming: _UploadRequest, error: CallerError) -> None:
        """Record that a whole upload was rejected, so that `bridge why` can explain why its build is missing."""
        await self._verify_body(incoming.request, incoming.identity)
        rejection = NewRejection(name="", reason=str(error), code=error.code)
        with suppress(Unavailable):  # the caller gets the error of the upload even if the ledger fails
            await self._accept(incoming.rejected((rejection,)))

    async def _verify_body(self, request: web.Request, identity: AuthResult) -> None:
        """Raise Unauthenticated unless the body matches its signature; nothing is recorded for an unproven caller."""
        if not identity.body.certain:
            content = await content_of(request)
            async for _ in identity.feed_body(read_body(content, max_bytes=self._limits.max_request_size)):
                pass
            await identity.body.finish()

    def _report_events(self, upload: AcceptedUpload, receipts: Sequence[ReportReceipt]) -> None:
        duplicate = receipts.count(ReportReceipt.DUPLICATE)
        accepted = len(receipts) - duplicate
        if accepted:
            self._metrics.count_accepted(accepted)
        if duplicate:
            self._metrics.count_duplicates(duplicate)
        for rejection in upload.rejections:
            self._metrics.count_rejection(rejection.code)
        _log.info(
            "upload_accepted",
            job_id=upload.job_id,
            build_no=upload.build_no,
            accepted=accepted,
            duplicate=duplicate,
            rejected=[rejection.reason for rejection in upload.rejections[:MAX_NAMED_FILES]],
            complete=upload.complete,
            caller=upload.caller,
            address=upload.address,
            request_id=upload.request_id,
        )


def _require_content(upload: AcceptedUpload) -> None:
    if not (upload.reports or upload.rejections or upload.complete):
        raise BadParameter('The upload contains no files. Send them in the form field "files".')


def _response(
    upload: AcceptedUpload, receipts: Sequence[ReportReceipt], store: UploadFileStore, route: Route
) -> web.Response:
    reports, rejections, complete = upload.reports, upload.rejections, upload.complete
    skipped, non_xml = store.skipped, store.skipped_non_xml
    if not rejections or route.on_invalid is InvalidFilePolicy.WARN:
        return success_response(
            result_text(reports, receipts, rejections, complete=complete, skipped=skipped, skipped_non_xml=non_xml)
        )
    text = rejected_text(rejections, reports, complete=complete, skipped=skipped, skipped_non_xml=non_xml)
    return error_response(rejection_error(rejections)(text))
