"""An accepted upload as a value, and the receipt that the ledger returns for it.

Names are exactly as received; the ledger escapes and cuts them.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from bridge.domain.build import Build, BuildNo, DeliveryTarget, SubmittedRun, UploadMetadata
from bridge.domain.instants import Duration, Instant
from bridge.domain.junit.result import NO_HIGHLIGHTS, Highlights, TestCounts
from bridge.domain.notices import NoticeEvent
from bridge.values import dataclass

MAX_REPORT_SIZE: Final = 50 << 20  # bytes: the default, and those below
MAX_REQUEST_SIZE: Final = 256 << 20
MAX_FILES: Final = 5000  # of one upload


class ReportReceipt(StrEnum):
    """What the ledger did with one report."""

    NEW = "new"
    DUPLICATE = "duplicate"  # the same report was accepted before: nothing changes
    REQUEUED = "requeued"  # the same report was accepted before, and its dead delivery is pending again


@dataclass(frozen=True, kw_only=True)
class NewReport:
    """A report with its bytes: small ones in `body`, others in the spool under `blob`."""

    name: str
    node_id: str
    size: int  # bytes as received
    sent_size: int  # bytes as delivered: they differ if it was decompressed, repaired or stripped
    received_sha256: str
    sent_sha256: str
    counts: TestCounts  # of the bytes as delivered
    highlights: Highlights = NO_HIGHLIGHTS
    changes: tuple[str, ...] = ()  # what repair and strip did: sentences for people
    notes: tuple[str, ...] = ()  # what else is worth knowing
    body: bytes | None = None
    blob: str | None = None
    case_digest: bytes = b""  # of its cases (domain/junit/case_digest.py); empty: there is none
    dedupe_key: bytes | None = None  # if only the key is known, and the name only escaped and cut
    failure: str | None = None  # why its file never came (Report.failure)


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class NewRejection:
    """A file, or a whole request (`name` empty), that was not accepted."""

    name: str
    reason: str  # both sentences of the response to CI
    code: str  # from errors.py
    kind: str = ""  # short class of the reason, such as not_junit; empty: that of the code
    quarantined: QuarantinedFile | None = None


@dataclass(frozen=True, kw_only=True)
class AcceptedUpload:
    """One upload request after validation."""

    job_id: str
    build_no: BuildNo
    upload_metadata: UploadMetadata
    complete: bool
    caller: str  # empty: not proven, so the upload has nothing but a rejection
    caller_routes: tuple[str, ...] | None  # None = any route
    address: str
    request_id: str
    reports: tuple[NewReport, ...]
    rejections: tuple[NewRejection, ...]
    targets: tuple[DeliveryTarget, ...] = (DeliveryTarget.TESTNOD,)  # of its reports
    is_foreign: bool = False  # the caller may not upload for the job, so the upload has nothing but a rejection
    forbidden_routes: frozenset[str] = frozenset()  # a build of one of these takes nothing of the upload
    submitted: SubmittedRun | None = None  # of a registration through TestNod's API
    trace_context: str | None = None  # of its request, as Report.trace_context
    submission_id: int | None = None  # the registered upload whose file this is, or whose file never came
    file_sha256: str | None = None  # of that file as received: one, though an archive has several reports
    notices: tuple[NoticeEvent, ...] = ()  # events that it makes true

    @property
    def body_size(self) -> int:
        """Return the number of bytes that are stored in rows."""
        quarantined = (rejection.quarantined for rejection in self.rejections if rejection.quarantined is not None)
        bodies = (*(report.body for report in self.reports), *(file.body for file in quarantined))
        digests = sum(len(report.case_digest) for report in self.reports)
        return digests + sum(len(body) for body in bodies if body is not None)


@dataclass(frozen=True, kw_only=True)
class UploadReceipt:
    """What the ledger did with one upload: one receipt for each report, in order; none if it took nothing of it."""

    receipts: tuple[ReportReceipt, ...]
    freed: tuple[str, ...] = ()  # blobs of rejected files that no row refers to: delete them
    forbidden: bool = False  # the build has one of the forbidden routes, and nothing was written
    may_be_due: bool = True  # False: the build is due no sooner, because its reports wait for TestNod
    has_other_file: bool = False  # the registered upload has another file already, and nothing was written


MAX_REJECTIONS = 100
"""Stored for one build and caller; the newest replace older ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """A file, or a whole request (`name` empty), that was not accepted."""

    id: int
    rejected_at: Instant
    name: str  # escaped and cut
    reason: str  # both sentences of the response to CI
    code: str  # from errors.py
    caller: str
    request_id: str
    size: int | None = None  # of a file that arrived whole; so is sha256
    sha256: str | None = None
    kept_until: Instant | None = None  # None: its bytes are not in quarantine
    sent_at: Instant | None = None  # when it was sent from quarantine
    is_foreign: bool = False  # the caller may not use the route of the build


def explaining(rejections: Sequence[Rejection], *, accepted: bool) -> list[Rejection]:
    """Return the rejections that may explain a build, which has reports if `accepted`.

    Those of callers that may not use its route explain it only if there is nothing else, and so do those of unproven
    callers if nothing of the build was accepted.
    """
    own = [rejection for rejection in rejections if not rejection.is_foreign]
    if accepted:
        return own
    return [rejection for rejection in own if rejection.caller] or list(rejections)


def unresolved(build: Build, rejections: Sequence[Rejection]) -> list[Rejection]:
    """Return the rejections that nothing has replaced.

    A rejected file is replaced if it was sent from quarantine, or by a later report of its name; a rejected request by
    any later uploaded report, or by `complete=true`. A duplicate leaves no trace: if CI uploads a valid file, an
    invalid one and the same valid one again, the rejection of the invalid one stays.
    """
    newest: dict[str, int] = {}
    for report in (each for each in build.reports.values() if not each.generated):
        newest[report.name] = max(newest.get(report.name, 0), report.accepted_at)
    any_later = max([*newest.values(), build.completed_at or 0])
    return [
        rejection
        for rejection in rejections
        if rejection.sent_at is None
        and rejection.rejected_at >= (newest.get(rejection.name, 0) if rejection.name else any_later)
    ]
