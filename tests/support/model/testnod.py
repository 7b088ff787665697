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


NOT_REPLACED = ("3 runs in a row have stayed pending", "all delivered reports are in a run that has left pending")
"""Why a run may stay pending although nothing else stands against its replacement."""


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

    build_id: str
    uploads: list[str] = field(default_factory=list)
    finalized: bool = False
    left_pending: bool = False


@dataclass
class TestNodModel:
    """One project and the build_ids of one build: that of its route, and those of its replaced runs."""

    __test__ = False
    url_lives: int = URL_LIFETIME
    runs: list[RunModel] = field(default_factory=list)
    uploads: dict[str, Upload] = field(default_factory=dict)

    def register(self, delivery_id: int, now: int, build_id: str) -> Registered:
        """Open an upload in the pending run of `build_id`, or in a new one if there is none."""
        run_model = self._latest(build_id)
        if run_model is None or run_model.left_pending:
            run_model = RunModel(build_id)
            self.runs.append(run_model)
        upload_id = f"upload-{len(self.uploads) + 1}"
        expires_at = now + self.url_lives
        self.uploads[upload_id] = Upload(delivery_id, expires_at)
        run_model.uploads.append(upload_id)
        run = f"run-{self.runs.index(run_model) + 1}"
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

    def finalize(self, build_id: str) -> FinalizeOutcome:
        """Finalize the pending run of `build_id`; if there is none, return the status of the last one."""
        run = self._latest(build_id)
        if run is None:
            return RunMissing(message="Test run not found")
        run.finalized = True
        self._settle()
        return RunStatus(status="processing" if run.left_pending else "pending")

    def _latest(self, build_id: str) -> RunModel | None:
        return next((run for run in reversed(self.runs) if run.build_id == build_id), None)

    def _settle(self) -> None:
        for run in self.runs:
            ended = all(self.uploads[key].state is not UploadState.REGISTERED for key in run.uploads)
            run.left_pending |= run.finalized and ended

    def received(self, build_id: str) -> list[str]:
        """Return the uploads that have arrived in the runs that count, if those of `build_id` are the newest."""
        counting = [run for run in self.runs if run.left_pending or run.build_id == build_id]
        return [key for run in counting for key in run.uploads if self.uploads[key].state is UploadState.RECEIVED]

    def arrivals(self, delivery_id: int, build_id: str) -> int:
        """Return how often a report has arrived in the runs that count."""
        return sum(self.uploads[key].delivery_id == delivery_id for key in self.received(build_id))

    def check_pending(self, known: set[str | None], build_id: str, *, stuck: str | None, excused: bool = False) -> None:
        """Fail if a run is left pending in silence, or could have been replaced by one of a later build_id.

        Only an upload whose id never reached the ledger (`known`) may hold a run. One of the newest `build_id` is then
        shown as stuck. `excused`: TestNod rejected a report of a failed upload.
        """
        for run in self.runs:
            if run.left_pending:
                continue
            assert run.finalized
            nameless = set(run.uploads) - known
            assert any(self.uploads[key].state is UploadState.REGISTERED for key in nameless) or excused
            if run.build_id == build_id:
                assert stuck, "a run is left pending in silence"
                assert any(reason in stuck for reason in NOT_REPLACED), stuck
