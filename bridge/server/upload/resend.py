"""A refused file sent after all: its kept bytes through the same gate as an upload, with today's settings.

It knows neither HTTP nor who may ask for it. What becomes of the report, the ledger and the worker decide as always.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from bridge.domain.intake import AcceptedUpload, ReportReceipt
from bridge.domain.routing import Route
from bridge.domain.text_format import rfc3339
from bridge.errors import CorruptBlob, NotFound, Unavailable
from bridge.server.upload.commit import Accept, commit_upload, fault_of, route_for
from bridge.server.upload.file_store import UploadFileStore, UploadSource
from bridge.server.upload.limits import RoomLeft, UploadLimits
from bridge.server.upload.multipart_form import FileStart
from bridge.server.upload.quarantine import Quarantine, WireFile
from bridge.server.upload.receiver import FileReceiver
from bridge.server.upload.response_text import rejected_text, result_text
from bridge.server.validation.pool import ValidationPool
from bridge.store.blobs.base import Spool
from bridge.store.engine.base import Database
from bridge.store.rejections import QuarantinedBody, find_quarantined, mark_sent

_log = structlog.get_logger(__name__)


class QuarantineResender:
    """Sends refused files, one after the other. `admit` raises Unavailable while no upload can be taken."""

    def __init__(  # noqa: PLR0913 -- everything it meets, each once
        self,
        *,
        database: Database,
        spool: Spool,
        checker: ValidationPool,
        quarantine: Quarantine,
        routes: Sequence[Route],
        limits: UploadLimits,
        accept: Accept,
        admit: Callable[[], None],
        room: RoomLeft,
    ) -> None:
        self._database = database
        self._spool = spool
        self._checker = checker
        self._quarantine = quarantine
        self._routes = routes
        self._limits = limits
        self._accept = accept
        self._admit = admit
        self._room = room
        self._one_at_a_time = asyncio.Lock()

    async def find(self, refusal_id: int) -> QuarantinedBody:
        """Return a refused file; raise NotFound where there is none, or none that came whole."""
        found = await self._database.read(find_quarantined, refusal_id)
        if found is None:
            raise NotFound("The ledger has no refused file of this id. Look for it in /api/v1/refusals.")
        return found

    async def read(self, refused: QuarantinedBody) -> AsyncGenerator[bytes]:
        """Yield the kept bytes in pieces; raise NotFound where they are gone or are not what came."""
        number = refused.file.rejection.id
        if refused.body is None and refused.blob is None:
            raise NotFound(f"The bytes of refusal {number} are not, or no longer, kept. Upload the file again.")
        digest = hashlib.sha256()
        try:
            async for piece in _pieces(refused, self._spool):
                digest.update(piece)
                yield piece
        except CorruptBlob as error:
            raise NotFound(f"The bytes of refusal {number} are gone. Upload the file again.") from error
        if digest.hexdigest() != refused.file.rejection.sha256:
            raise NotFound(f"The bytes of refusal {number} were damaged on the disk. Upload the file again.")

    async def send(self, refusal_id: int, *, repair: bool) -> str:
        """Send a refused file as its caller would today, with `repair` also where its route asks for none.

        Return what became of it, as an upload is told; a second time says when it was sent. Raise a CallerError with
        the reason where it is still refused: nothing is changed then, and its bytes stay.
        """
        async with self._one_at_a_time:
            refused = await self.find(refusal_id)
            if refused.file.rejection.sent_at is not None:
                return f"It was sent already, at {rfc3339(refused.file.rejection.sent_at)}"
            self._admit()
            caller, bound = refused.file.rejection.caller, refused.caller_routes
            route = route_for(self._routes, refused.file.job_id, caller=caller, bound=bound)
            filing = await self._file(refused, replace(route, repair=True) if repair else route)
            acceptance = _acceptance(refused, filing)
            receipts = await commit_upload(self._accept, acceptance, filing)
            await self._let_go(refusal_id)
        self._log(refused, receipts, repair=repair)
        return result_text(
            acceptance.reports,
            receipts,
            acceptance.refusals,
            complete=False,
            passed_over=filing.passed_over,
            unlike=filing.unlike,
        )

    async def _file(self, refused: QuarantinedBody, route: Route) -> UploadFileStore:
        filing = UploadFileStore(
            self._spool,
            self._checker,
            self._quarantine,
            sender=_sender(refused),
            route=route,
            limits=self._limits,
            room=self._room,
        )
        reception = FileReceiver(filing, self._limits)
        try:
            received = WireFile(size=refused.received_size, sha256=refused.received_sha256)
            reception.begin(FileStart(refused.raw_name), received=received)
            async for piece in self.read(refused):
                await reception.write(piece)
            await reception.end()
            _require_reports(filing)
        except BaseException:
            await reception.discard()
            raise
        return filing

    async def _let_go(self, refusal_id: int) -> None:
        """Note that it was sent; where that fails it is sent once more some day, and known then."""
        with suppress(Unavailable):
            blob = await self._database.write(mark_sent, refusal_id)
            if blob is not None:
                await self._spool.delete(blob)

    def _log(self, refused: QuarantinedBody, receipts: Sequence[ReportReceipt], *, repair: bool) -> None:
        _log.info(
            "refused file sent",
            refusal_id=refused.file.rejection.id,
            job_id=refused.file.job_id,
            build_no=refused.file.build_no,
            repair=repair,
            receipts=list(receipts),
            caller=refused.file.rejection.caller,
            request_id=refused.file.rejection.request_id,
        )


def _sender(refused: QuarantinedBody) -> UploadSource:
    file = refused.file
    return UploadSource(
        job_id=file.job_id, build_no=file.build_no, node_id=file.node_id or "", caller=file.rejection.caller
    )


def _require_reports(filing: UploadFileStore) -> None:
    if not filing.reports:
        text = rejected_text(filing.refusals, (), passed_over=filing.passed_over, unlike=filing.unlike)
        raise fault_of(filing.refusals)(text)


async def _pieces(refused: QuarantinedBody, spool: Spool) -> AsyncIterator[bytes]:
    if refused.body is not None:
        yield refused.body
    elif refused.blob is not None:
        async for piece in spool.read(refused.blob):
            yield piece


def _acceptance(refused: QuarantinedBody, filing: UploadFileStore) -> AcceptedUpload:
    """Return what the ledger is told: all as the upload said it, but that the build is complete."""
    return AcceptedUpload(
        job_id=refused.file.job_id,
        build_no=refused.file.build_no,
        upload_metadata=refused.upload_metadata,
        complete=False,
        caller=refused.file.rejection.caller,
        caller_routes=refused.caller_routes,
        address=refused.address,
        request_id=refused.file.rejection.request_id,
        reports=tuple(filing.reports),
        refusals=tuple(filing.refusals),
    )
