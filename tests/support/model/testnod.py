"""TestNod and its storage as their references say, reduced to what may be lost, doubled or left pending."""

from dataclasses import dataclass, field
from enum import StrEnum

from bridge.domain.build import RegistrationState
from bridge.domain.instants import SECOND
from bridge.domain.outcomes import (
    FailureRecorded,
    FinalizeOutcome,
    PutOutcome,
    PutRejected,
    Registered,
    RunMissing,
    RunStatus,
    Stored,
    UploadFailedOutcome,
)

URL_LIFETIME = 300 * SECOND
MAY_BE_PUT = {RegistrationState.REQUESTED, RegistrationState.REGISTERED}
"""Registrations under which bytes may be on their way: at most one of a delivery."""


class UploadState(StrEnum):
    REGISTERED = "registered"
    RECEIVED = "received"
    FAILED = "failed"


@dataclass
class Upload:
    """One upload: of which delivery, until when its URL works, and what became of it."""

    delivery_id: int
    expires_at: int
    state: UploadState = UploadState.REGISTERED


@dataclass
class RunModel:
    """A run is pending until it has been finalized and all its uploads have ended."""

    uploads: list[str] = field(default_factory=list)
    finalized: bool = False
    left_pending: bool = False


@dataclass
class TestNodModel:
    """One project, one build_id."""

    __test__ = False
    url_lives: int = URL_LIFETIME
    runs: list[RunModel] = field(default_factory=list)
    uploads: dict[str, Upload] = field(default_factory=dict)

    def register(self, delivery_id: int, now: int) -> Registered:
        """Open an upload in the pending run, or in a new one if there is none."""
        if not self.runs or self.runs[-1].left_pending:
            self.runs.append(RunModel())
        upload_id = f"upload-{len(self.uploads) + 1}"
        expires_at = now + self.url_lives
        self.uploads[upload_id] = Upload(delivery_id, expires_at)
        self.runs[-1].uploads.append(upload_id)
        run = f"run-{len(self.runs)}"
        return Registered(
            test_run_id=run,
            upload_id=upload_id,
            test_run_url=f"https://testnod.test/{run}",
            presigned_url=f"https://storage.test/{upload_id}",
            expires_at=expires_at,
        )

    def put(self, url: str, begun_at: int) -> PutOutcome:
        """Store a PUT, also of an upload that has failed: assume that TestNod reads it, which is worse."""
        upload = self.uploads[url.rpartition("/")[2]]
        if begun_at >= upload.expires_at:
            return PutRejected(status=403, code="AccessDenied", message="Request has expired")
        upload.state = UploadState.RECEIVED
        self._settle()
        return Stored()

    def upload_failed(self, upload_id: str) -> UploadFailedOutcome:
        upload = self.uploads[upload_id]
        if upload.state is UploadState.REGISTERED:
            upload.state = UploadState.FAILED
        self._settle()
        return FailureRecorded(status="failed" if upload.state is UploadState.FAILED else "processed")

    def finalize(self) -> FinalizeOutcome:
        """Finalize the pending run; if there is none, return the status of the last one."""
        if not self.runs:
            return RunMissing(message="Test run not found")
        self.runs[-1].finalized = True
        self._settle()
        return RunStatus(status="processing" if self.runs[-1].left_pending else "pending")

    def _settle(self) -> None:
        for run in self.runs:
            ended = all(self.uploads[key].state is not UploadState.REGISTERED for key in run.uploads)
            run.left_pending |= run.finalized and ended

    def received(self, delivery_id: int) -> int:
        """Return how often a report has arrived."""
        return sum(
            upload.delivery_id == delivery_id and upload.state is UploadState.RECEIVED
            for upload in self.uploads.values()
        )

    def pending(self) -> list[RunModel]:
        return [run for run in self.runs if not run.left_pending]

    def check_pending(self, known: set[str | None], *, stuck: bool, excused: bool = False) -> None:
        """Fail if a run is left pending in silence.

        Only an upload whose id never reached the ledger (`known`) may hold a run, and then the build is shown as
        stuck. `excused`: TestNod rejected a report of a failed upload.
        """
        for run in self.pending():
            assert run.finalized
            assert stuck, "a run is left pending in silence"
            nameless = set(run.uploads) - known
            assert any(self.uploads[key].state is UploadState.REGISTERED for key in nameless) or excused
