"""What intake hands to the ledger, and what the ledger answers: the counter of the post office, as values.

It knows neither HTTP nor the database. Names are raw here, exactly as they came; the ledger escapes and cuts them.
"""

from dataclasses import dataclass
from enum import StrEnum

from bridge.domain.build import DeliveryTarget, UploadMetadata
from bridge.domain.junit.validator import TestCounts


class ReportReceipt(StrEnum):
    """What the ledger made of one report."""

    NEW = "new"
    DUPLICATE = "duplicate"  # the same report was accepted before: nothing changes
    REQUEUED = "requeued"  # the same report was accepted before and its delivery is dead


@dataclass(frozen=True, kw_only=True, slots=True)
class NewReport:
    """A report whose bytes are at hand: small ones in `body`, others in the spool under `blob`."""

    name: str
    node_id: str
    size: int  # bytes as received
    sent_size: int  # bytes at hand: other than received where it was unpacked, repaired or stripped
    received_sha256: str
    sent_sha256: str
    counts: TestCounts
    changes: tuple[str, ...] = ()  # what repairing and stripping did: sentences for people
    notes: tuple[str, ...] = ()  # what else is worth knowing
    body: bytes | None = None
    blob: str | None = None
    dedupe_key: bytes | None = None  # where only it is known, and the name only as people see it


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantinedFile:
    """A refused file that came whole, to be looked at and sent after all; without body and blob there was no room."""

    node_id: str
    route: str  # which was to take it; empty: none
    size: int
    sha256: str
    received_size: int  # as it came: other than `size` where it was compressed, and so the digest
    received_sha256: str
    keep_us: int
    body: bytes | None = None
    blob: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRejection:
    """A file, or a whole request (`name` empty), that was not accepted."""

    name: str
    reason: str  # both sentences, as CI was told
    code: str  # from errors.py
    kept: QuarantinedFile | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptedUpload:
    """One upload request after it was read and checked."""

    job_id: str
    build_no: int
    upload_metadata: UploadMetadata
    complete: bool
    caller: str
    caller_routes: tuple[str, ...] | None  # None = any route
    address: str
    request_id: str
    reports: tuple[NewReport, ...]
    refusals: tuple[NewRejection, ...]
    targets: tuple[DeliveryTarget, ...] = (DeliveryTarget.TESTNOD,)  # whom its reports are owed to

    @property
    def body_size(self) -> int:
        """Bytes that ride in rows."""
        kept = [refusal.kept.body for refusal in self.refusals if refusal.kept is not None]
        return sum(len(body) for body in (*(report.body for report in self.reports), *kept) if body is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadReceipt:
    """What the ledger made of one upload: a receipt a report, in order."""

    receipts: tuple[ReportReceipt, ...]
    freed: tuple[str, ...] = ()  # blobs of refused files that no row names: to be deleted
