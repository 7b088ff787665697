"""Read rejected files from the quarantine, and upload them again on behalf of their callers with today's settings."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from bridge.domain.intake import AcceptedUpload
from bridge.domain.routing import Route
from bridge.domain.text_format import rfc3339
from bridge.errors import CorruptBlob, NotFound, Unavailable
from bridge.server.upload.commit import (
    Accept,
    commit_upload,
    forbidden_routes,
    rejected_text,
    rejection_error,
    result_text,
    route_for,
)
from bridge.server.upload.file_store import Quarantine, ReserveSpace, UploadFileStore, UploadLimits, UploadSource
from bridge.server.upload.multipart_form import FileStart
from bridge.server.upload.receiver import FileReceiver
from bridge.server.validation.messages import FileDigest
from bridge.server.validation.pool import ValidationPool
from bridge.store.blobs.base import Spool
from bridge.store.engine.base import Database
from bridge.store.rejections import QuarantinedBody, find_quarantined, mark_sent

_log = structlog.get_logger(__name__)


class QuarantineResender:
    """Uploads rejected files again, one at a time. `admit` raises Unavailable if uploads cannot be accepted now."""

    def __init__(  # noqa: PLR0913 -- one parameter for each collaborator
        self,
        *,
        database: Database,
        spool: Spool,
        pool: ValidationPool,
        quarantine: Quarantine,
        routes: Sequence[Route],
        limits: UploadLimits,
        accept: Accept,
        admit: Callable[[], None],
        reserve_space: ReserveSpace,
    ) -> None:
        self._database = database
        self._spool = spool
        self._pool = pool
        self._quarantine = quarantine
        self._routes = routes
        self._limits = limits
        self._accept = accept
        self._admit = admit
        self._reserve_space = reserve_space
        self._lock = asyncio.Lock()

    async def find(self, rejection_id: int) -> QuarantinedBody:
        """Return a rejected file; raise NotFound if there is none, or if it was not received completely."""
        found = await self._database.read(find_quarantined, rejection_id)
        if found is None:
            raise NotFound("The ledger has no rejected file with this id. Find its id with GET /api/v1/rejections.")
        return found

    async def read(self, quarantined: QuarantinedBody) -> AsyncGenerator[bytes]:
        """Yield the bytes in pieces; raise NotFound if they are gone or are not the bytes that were received."""
        rejection_id = quarantined.file.rejection.id
        if quarantined.body is None and quarantined.blob is None:
            raise NotFound(f"The bytes of rejection {rejection_id} are no longer stored. Upload the file again.")
        digest = hashlib.sha256()
        try:
            async for piece in _pieces(quarantined, self._spool):
                digest.update(piece)
                yield piece
        except CorruptBlob as error:
            raise NotFound(f"The bytes of rejection {rejection_id} are gone. Upload the file again.") from error
        if digest.hexdigest() != quarantined.file.rejection.sha256:
            raise NotFound(f"The bytes of rejection {rejection_id} are damaged on the disk. Upload the file again.")

    async def send(self, rejection_id: int, *, repair: bool) -> str:
        """Upload a rejected file as its caller would today; with `repair`, repair it even if its route does not.

        Return the text of the response to the upload; if it was sent before, return when. Raise a CallerError with the
        reason if it is rejected again: nothing changes then, and its bytes stay.
        """
        async with self._lock:
            quarantined = await self.find(rejection_id)
            rejection = quarantined.file.rejection
            if rejection.sent_at is not None:
                return f"It was already sent at {rfc3339(rejection.sent_at)}"
            self._admit()
            route = route_for(
                self._routes,
                quarantined.file.job_id,
                build_no=quarantined.file.build_no,
                caller=rejection.caller,
                caller_routes=quarantined.caller_routes,
            )
            store = await self._receive(quarantined, replace(route, repair=True) if repair else route)
            forbidden = forbidden_routes(self._routes, quarantined.caller_routes)
            upload = replace(_accepted(quarantined, store), forbidden_routes=forbidden)
            receipts = await commit_upload(self._accept, upload, store)
            await self._mark_sent(rejection_id)
        _log.info(
            "rejected_file_sent",
            rejection_id=rejection_id,
            job_id=upload.job_id,
            build_no=upload.build_no,
            repair=repair,
            receipts=list(receipts),
            caller=upload.caller,
            request_id=upload.request_id,
        )
        return result_text(
            upload.reports,
            receipts,
            upload.rejections,
            complete=False,
            skipped=store.skipped,
            skipped_non_xml=store.skipped_non_xml,
        )

    async def _receive(self, quarantined: QuarantinedBody, route: Route) -> UploadFileStore:
        store = UploadFileStore(
            self._spool,
            self._pool,
            self._quarantine,
            source=_source(quarantined),
            route=route,
            limits=self._limits,
            reserve_space=self._reserve_space,
        )
        receiver = FileReceiver(store, self._limits)
        try:
            received = FileDigest(quarantined.received_size, quarantined.received_sha256)
            receiver.start(FileStart(quarantined.raw_name), received=received)
            async for piece in self.read(quarantined):
                await receiver.write(piece)
            await receiver.end()
            _require_reports(store)
        except BaseException:
            await receiver.discard()
            raise
        return store

    async def _mark_sent(self, rejection_id: int) -> None:
        with suppress(Unavailable):  # if it is sent again later, it is a duplicate
            blob = await self._database.write(mark_sent, rejection_id)
            if blob is not None:
                await self._spool.delete(blob)


def _require_reports(store: UploadFileStore) -> None:
    if not store.reports:
        text = rejected_text(store.rejections, (), skipped=store.skipped, skipped_non_xml=store.skipped_non_xml)
        raise rejection_error(store.rejections, text)


def _source(quarantined: QuarantinedBody) -> UploadSource:
    file = quarantined.file
    return UploadSource(
        job_id=file.job_id, build_no=file.build_no, node_id=file.node_id or "", caller=file.rejection.caller
    )


async def _pieces(quarantined: QuarantinedBody, spool: Spool) -> AsyncIterator[bytes]:
    if quarantined.body is not None:
        yield quarantined.body
    elif quarantined.blob is not None:
        async for piece in spool.read(quarantined.blob):
            yield piece


def _accepted(quarantined: QuarantinedBody, store: UploadFileStore) -> AcceptedUpload:
    """Return the original upload with the file of today; it does not complete the build."""
    rejection = quarantined.file.rejection
    return AcceptedUpload(
        job_id=quarantined.file.job_id,
        build_no=quarantined.file.build_no,
        upload_metadata=quarantined.upload_metadata,
        complete=False,
        caller=rejection.caller,
        caller_routes=quarantined.caller_routes,
        address=quarantined.address,
        request_id=rejection.request_id,
        reports=tuple(store.reports),
        rejections=tuple(store.rejections),
    )
