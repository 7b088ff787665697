"""TestNod's runs and uploads, stored as facts; each state is a function of the facts and a time in microseconds."""

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from enum import StrEnum
from itertools import count

from bridge.values import dataclass

# Three distant sequences, so that confusing the ids of a registration is noticed.
FIRST_ID, FIRST_RUN_ID, FIRST_UPLOAD_ID = 12345, 42, 1


class State(StrEnum):
    """pending → processing (run) or uploaded (upload) → processed | failed; the last two are terminal."""

    PENDING = "pending"
    UPLOADED = "uploaded"
    PROCESSING = "processing"
    PROCESSED = "processed"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterRejection:
    """A failed call: the HTTP status and `error_message`."""

    status: int
    message: str


# The error tables of the Submission API's page, verbatim.
PROJECT_NOT_FOUND = RegisterRejection(status=404, message="Project not found.")
METADATA_BUILD_ID_REQUIRED = RegisterRejection(status=422, message="metadata.build_id is required.")
NOT_CREATED = RegisterRejection(status=422, message="There was a problem creating this test run.")
CONFLICT = RegisterRejection(status=409, message="Conflicting concurrent upload.")
RUN_NOT_FOUND = RegisterRejection(status=404, message="Test run not found for this build_id.")
BUILD_ID_REQUIRED = RegisterRejection(status=422, message="build_id is required.")
NO_UPLOADS = RegisterRejection(status=422, message="No uploads received for this test run.")
# Not in the reference: for ids that no register returned.
UPLOAD_NOT_FOUND = RegisterRejection(status=404, message="Upload not found.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """A TestNod project and the token that grants access to it."""

    token: str
    name: str

    @property
    def id(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name}/{self.token}"))


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredUpload:
    """The arguments of a register call: build_id, metadata and tags."""

    build_id: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


@dataclass(kw_only=True, slots=True)
class Upload:
    """One registered file; terminal once it was parsed or, before that, reported failed."""

    id: int
    external_id: int
    run_id: int
    key: str
    registered: RegisteredUpload
    registered_at: int
    put_at: int | None = None
    parsed_at: int | None = None
    failed_at: int | None = None
    failure_message: str | None = None
    puts: int = 0
    sha256: str | None = None
    size: int | None = None

    def state_at(self, at: int) -> State:
        if self.failed_at is not None:
            return State.FAILED
        if self.parsed_at is None:
            return State.PENDING
        return State.PROCESSED if self.parsed_at <= at else State.UPLOADED

    def terminal_at(self) -> int | None:
        return self.parsed_at if self.failed_at is None else self.failed_at


@dataclass(kw_only=True, slots=True)
class SandboxRun:
    """One test run; it leaves pending after finalize was called and all its uploads are terminal."""

    id: int
    build_id: str
    project: Project
    opened_at: int
    processing_us: int
    uploads: list[Upload] = field(default_factory=list)
    finalize_calls: list[int] = field(default_factory=list)

    def left_pending_at(self) -> int | None:
        """Return when the run leaves pending, which may be in the future; None if that is not determined yet."""
        if not self.finalize_calls or not self.uploads:
            return None
        latest = self.finalize_calls[0]
        for upload in self.uploads:
            terminal_at = upload.terminal_at()
            if terminal_at is None:
                return None
            latest = max(latest, terminal_at)
        return latest

    def transitions(self, at: int) -> list[tuple[State, int]]:
        """Return each status that the run had until `at`, with the time of the change."""
        taken = [(State.PENDING, self.opened_at)]
        left = self.left_pending_at()
        if left is not None:
            all_failed = all(upload.state_at(left) is State.FAILED for upload in self.uploads)
            taken.append((State.PROCESSING, left))
            taken.append((State.FAILED if all_failed else State.PROCESSED, left + self.processing_us))
        return [(state, since) for state, since in taken if since <= at]

    def status_at(self, at: int) -> State:
        return self.transitions(max(at, self.opened_at))[-1][0]


class Runs:
    """The runs of all projects."""

    def __init__(self) -> None:
        self._projects: dict[str, Project] = {}
        self._by_build: defaultdict[tuple[str, str], list[SandboxRun]] = defaultdict(list)
        self._by_id: dict[int, SandboxRun] = {}
        self._uploads: dict[int, Upload] = {}
        self._by_key: dict[str, Upload] = {}
        self._opening: set[tuple[str, str]] = set()
        self._run_ids, self._upload_ids, self._ids = count(FIRST_RUN_ID), count(FIRST_UPLOAD_ID), count(FIRST_ID)

    def open_project(self, token: str, name: str) -> Project:
        """Grant a token access to a project."""
        project = Project(token=token, name=name)
        self._projects[token] = project
        return project

    def close_project(self, token: str) -> None:
        """Revoke a token; the project's runs stay."""
        self._projects.pop(token, None)

    def project(self, token: str) -> Project | None:
        return self._projects.get(token)

    @contextmanager
    def opening(self, project: Project, build_id: str) -> Iterator[RegisterRejection | None]:
        """Lock a build_id while its first register is in progress: a second one meanwhile is a conflict."""
        key = (project.id, build_id)
        if key in self._opening:
            yield CONFLICT
            return
        if self._by_build.get(key):
            yield None
            return
        self._opening.add(key)
        try:
            yield None
        finally:
            self._opening.discard(key)

    def open_run(self, project: Project, build_id: str, *, at: int, processing_us: int) -> SandboxRun:
        """Open a run without uploads, as TestNod leaves it if it fails between the two."""
        run = SandboxRun(
            id=next(self._run_ids), build_id=build_id, project=project, opened_at=at, processing_us=processing_us
        )
        self._by_build[project.id, build_id].append(run)
        self._by_id[run.id] = run
        return run

    def register(self, project: Project, registered: RegisteredUpload, *, at: int, processing_us: int) -> Upload:
        """Add an upload to the build's run if that is pending, else to a new run."""
        run = self.latest(project, registered.build_id)
        if run is None or run.status_at(at) is not State.PENDING:
            run = self.open_run(project, registered.build_id, at=at, processing_us=processing_us)
        upload_id = next(self._upload_ids)
        upload = Upload(
            id=upload_id,
            external_id=next(self._ids),
            run_id=run.id,
            key=f"{project.id}/{run.id}/{upload_id}.xml",
            registered=registered,
            registered_at=at,
        )
        run.uploads.append(upload)
        self._uploads[upload_id] = upload
        self._by_key[upload.key] = upload
        return upload

    def received(self, key: str, *, sha256: str, size: int, at: int) -> None:
        """Record that storage has an upload's file; parsing begins unless the upload is terminal."""
        upload = self._by_key.get(key)
        if upload is None:
            return
        upload.puts += 1
        upload.sha256, upload.size = sha256, size
        if upload.put_at is None:
            upload.put_at = at
        if upload.terminal_at() is None:
            upload.parsed_at = at + self._by_id[upload.run_id].processing_us

    def finalize(self, project: Project, build_id: str, *, at: int) -> State | RegisterRejection:
        """Finalize the build's latest run; may be called repeatedly."""
        run = self.latest(project, build_id)
        if run is None:
            return RUN_NOT_FOUND
        if not run.uploads:
            return NO_UPLOADS
        run.finalize_calls.append(at)
        return run.status_at(at)

    def upload_failed(
        self, project: Project, run_id: int, upload_id: int, *, message: str, at: int
    ) -> State | RegisterRejection:
        """Make an upload terminal, or return its earlier terminal state."""
        run, upload = self._by_id.get(run_id), self._uploads.get(upload_id)
        if run is None or upload is None or run.project != project or upload.run_id != run_id:
            return UPLOAD_NOT_FOUND
        state = upload.state_at(at)
        if state is State.PROCESSED or state is State.FAILED:
            return state
        upload.failed_at, upload.failure_message = at, message
        return State.FAILED

    def latest(self, project: Project, build_id: str) -> SandboxRun | None:
        found = self._by_build.get((project.id, build_id))
        return found[-1] if found else None

    def all(self, build_id: str | None = None) -> list[SandboxRun]:
        """Return the runs of all projects, oldest first; only those of `build_id` if given."""
        return [run for run in self._by_id.values() if build_id is None or run.build_id == build_id]

    def upload(self, upload_id: int) -> Upload | None:
        return self._uploads.get(upload_id)
