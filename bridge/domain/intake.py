"""An accepted upload as a value, and the receipt that the ledger returns for it.

Names are exactly as received; the ledger escapes and cuts them.
"""

from dataclasses import dataclass
from enum import StrEnum

from bridge.domain.build import DeliveryTarget, UploadMetadata
from bridge.domain.instants import Duration
from bridge.domain.junit.validator import TestCounts


class ReportReceipt(StrEnum):
    """What the ledger did with one report."""

    NEW = "new"
    DUPLICATE = "duplicate"  # the same report was accepted before: nothing changes
    REQUEUED = "requeued"  # the same report was accepted before, and its dead delivery is pending again


@dataclass(frozen=True, kw_only=True, slots=True)
class NewReport:
    """A report with its bytes: small ones in `body`, others in the spool under `blob`."""

    name: str
    node_id: str
    size: int  # bytes as received
    sent_size: int  # bytes as delivered: they differ if it was decompressed, repaired or stripped
    received_sha256: str
    sent_sha256: str
    counts: TestCounts
    changes: tuple[str, ...] = ()  # what repair and strip did: sentences for people
    notes: tuple[str, ...] = ()  # what else is worth knowing
    body: bytes | None = None
    blob: str | None = None
    dedupe_key: bytes | None = None  # if only the key is known, and the name only escaped and cut


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantinedFile:
    """A rejected file that arrived whole and can be sent later; without body and blob the quarantine had no space."""

    node_id: str
    route: str  # that would have taken it; empty: none
    size: int
    sha256: str
    received_size: int  # as received: it differs from `size` if the file was compressed; so does the digest
    received_sha256: str
    keep_us: Duration
    body: bytes | None = None
    blob: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRejection:
    """A file, or a whole request (`name` empty), that was not accepted."""

    name: str
    reason: str  # both sentences of the response to CI
    code: str  # from errors.py
    quarantined: QuarantinedFile | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptedUpload:
    """One upload request after validation."""

    job_id: str
    build_no: int
    upload_metadata: UploadMetadata
    complete: bool
    caller: str
    caller_routes: tuple[str, ...] | None  # None = any route
    address: str
    request_id: str
    reports: tuple[NewReport, ...]
    rejections: tuple[NewRejection, ...]
    targets: tuple[DeliveryTarget, ...] = (DeliveryTarget.TESTNOD,)  # of its reports

    @property
    def body_size(self) -> int:
        """Return the number of bytes that are stored in rows."""
        quarantined = (rejection.quarantined for rejection in self.rejections if rejection.quarantined is not None)
        bodies = (*(report.body for report in self.reports), *(file.body for file in quarantined))
        return sum(len(body) for body in bodies if body is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadReceipt:
    """What the ledger did with one upload: one receipt for each report, in order."""

    receipts: tuple[ReportReceipt, ...]
    freed: tuple[str, ...] = ()  # blobs of rejected files that no row refers to: delete them
