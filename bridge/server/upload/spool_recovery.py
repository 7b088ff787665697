"""Adoption: bytes in the spool that no row names become reports again, by what stands beside them.

It knows neither HTTP nor what becomes of a report later. What is no JUnit report was a refused file and stays put.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bridge.domain.build import DeliveryTarget, UploadMetadata
from bridge.domain.intake import AcceptedUpload, NewReport, ReportReceipt
from bridge.domain.junit.result import Valid
from bridge.errors import CorruptBlob, Unavailable
from bridge.server.validation.pool import ValidationPool
from bridge.store.blobs.base import Spool
from bridge.store.blobs.metadata import BlobMetadata
from bridge.store.engine.base import Database
from bridge.store.retention import known_blobs
from bridge.store.uploads import accept

RECOVERED = "Taken up from the spool after its ledger was restored."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoolRecovery:
    """Looks through a spool once; `routes_of` says where a caller may send (None: anywhere), by its name."""

    database: Database
    spool: Spool
    checker: ValidationPool
    targets: tuple[DeliveryTarget, ...]
    routes_of: Callable[[str], tuple[str, ...] | None]

    async def adopt(self, before_hour: str) -> tuple[int, int]:
        """Take up what was begun before an hour (as keys begin); return how many were taken up, how many left."""
        adopted = left = 0
        for hour in await self.spool.hours_before(before_hour):
            async for blobs in self.spool.blobs_of(hour):
                for blob in sorted(set(blobs) - await self.database.read(known_blobs, blobs)):
                    taken = await self._adopt(blob)
                    adopted, left = adopted + taken, left + (not taken)
        return adopted, left

    async def _adopt(self, blob: str) -> bool:
        try:
            label = await self.spool.metadata(blob)
            accepted = await self._check(blob, label)
        except (CorruptBlob, Unavailable) as error:
            log.warning("a blob without a row was left", blob=blob, reason=str(error))
            return False
        if accepted is None:
            log.info("a blob without a row is no report, and was left", blob=blob)
            return False
        acceptance = self._acceptance(blob, label, accepted)
        entry = await self.database.write(accept, acceptance)
        if entry.receipts == (ReportReceipt.DUPLICATE,):
            log.info("a blob without a row is a report that is known, and was left", blob=blob)
            return False
        log.info("a blob without a row was adopted", blob=blob, job_id=label.job_id, build_no=label.build_no)
        return True

    async def _check(self, blob: str, label: BlobMetadata) -> Valid | None:
        """Judge the bytes as an upload's; raise DamagedBlob where they are not what the label says."""
        writer, digest = await self.spool.create(), hashlib.sha256()
        try:
            async for piece in self.spool.read(blob):
                digest.update(piece)
                await writer.write(piece)
            if digest.hexdigest() != label.sent_sha256:
                raise CorruptBlob(f"The blob {blob} is not what stands beside it. Upload the report again.")
            await writer.flush()
            verdict = await self.checker.check_file(writer.path)
        finally:
            await writer.discard()
        return verdict if isinstance(verdict, Valid) else None

    def _acceptance(self, blob: str, label: BlobMetadata, accepted: Valid) -> AcceptedUpload:
        report = NewReport(
            name=label.name,
            node_id=label.node_id,
            size=label.size,
            sent_size=label.sent_size,
            received_sha256=label.received_sha256,
            sent_sha256=label.sent_sha256,
            counts=accepted.counts,
            notes=(*accepted.notes, RECOVERED),
            blob=blob,
            dedupe_key=bytes.fromhex(label.dedupe_key),
        )
        return AcceptedUpload(
            job_id=label.job_id,
            build_no=label.build_no,
            upload_metadata=UploadMetadata(),
            complete=False,
            caller=label.caller,
            caller_routes=self.routes_of(label.caller),
            address="",
            request_id="",
            reports=(report,),
            refusals=(),
            targets=self.targets,
        )
