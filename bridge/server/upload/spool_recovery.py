"""Recover reports from blobs without a row, by their metadata, after a restore of the ledger.

Blobs that are not JUnit reports were rejected files; they stay where they are.
"""

import hashlib
from collections.abc import Callable

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
from bridge.store.submissions import accept_submitted
from bridge.store.uploads import accept
from bridge.values import dataclass

RECOVERED = "Recovered from the spool after the ledger was restored."

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoolRecovery:
    """Scans a spool once. `routes_of` returns the routes that a caller may use by its name (None: all)."""

    database: Database
    spool: Spool
    pool: ValidationPool
    targets: tuple[DeliveryTarget, ...]
    routes_of: Callable[[str], tuple[str, ...] | None]

    async def recover(self, before_hour: str) -> tuple[int, int]:
        """Recover blobs from before an hour (the first part of their keys); return counts of recovered and left."""
        recovered = left = 0
        for hour in await self.spool.hours_before(before_hour):
            async for blobs in self.spool.blobs_of(hour):
                for blob in sorted(set(blobs) - await self.database.read(known_blobs, blobs)):
                    done = await self._recover(blob)
                    recovered, left = recovered + done, left + (not done)
        return recovered, left

    async def _recover(self, blob: str) -> bool:
        try:
            metadata = await self.spool.metadata(blob)
            valid = await self._validate(blob, metadata)
        except (CorruptBlob, Unavailable) as error:
            _log.warning("blob_not_recovered", blob=blob, reason=str(error))
            return False
        if valid is None:
            _log.info("blob_not_recovered", blob=blob, reason="It is not a JUnit report.")
            return False
        function = accept_submitted if isinstance(metadata.build_no, str) else accept
        receipt = await self.database.write(function, self._accepted(blob, metadata, valid))
        if receipt.receipts == (ReportReceipt.DUPLICATE,):
            _log.info("blob_not_recovered", blob=blob, reason="It is a duplicate.")
            return False
        _log.info("blob_recovered", blob=blob, job_id=metadata.job_id, build_no=metadata.build_no)
        return True

    async def _validate(self, blob: str, metadata: BlobMetadata) -> Valid | None:
        """Validate the bytes like an upload; raise CorruptBlob if they do not match the metadata."""
        writer, digest = await self.spool.create(), hashlib.sha256()
        try:
            async for piece in self.spool.read(blob):
                digest.update(piece)
                await writer.write(piece)
            if digest.hexdigest() != metadata.sent_sha256:
                raise CorruptBlob(f"The blob {blob} does not match its metadata. Upload the report again.")
            await writer.flush()
            result = await self.pool.validate_file(writer.path)
        finally:
            await writer.discard()
        return result if isinstance(result, Valid) else None

    def _accepted(self, blob: str, metadata: BlobMetadata, valid: Valid) -> AcceptedUpload:
        report = NewReport(
            name=metadata.name,
            node_id=metadata.node_id,
            size=metadata.size,
            sent_size=metadata.sent_size,
            received_sha256=metadata.received_sha256,
            sent_sha256=metadata.sent_sha256,
            counts=valid.counts,
            highlights=valid.highlights,
            notes=(*valid.notes, RECOVERED),
            blob=blob,
            case_digest=valid.case_digest,
            dedupe_key=bytes.fromhex(metadata.dedupe_key),
        )
        return AcceptedUpload(
            job_id=metadata.job_id,
            build_no=metadata.build_no,
            upload_metadata=UploadMetadata(),
            complete=False,
            caller=metadata.caller,
            caller_routes=self.routes_of(metadata.caller),
            address="",
            request_id="",
            reports=(report,),
            rejections=(),
            targets=self.targets,
        )
