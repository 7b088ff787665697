"""What a visit may be told to do next, as values.

It knows neither how a step is chosen (plan.py) nor how it is carried out (worker/).
"""

from dataclasses import dataclass

from bridge.domain.changes import Change


@dataclass(frozen=True, slots=True)
class FetchRecord:
    """Ask record-info; `reserved` as of a Poll."""

    reserved: bool


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask build-info; `reserved`: its place under the common rate is already paid for."""

    reserved: bool


@dataclass(frozen=True, slots=True)
class Register:
    """Ask TestNod for an upload of this delivery's report."""

    delivery_id: int


@dataclass(frozen=True, slots=True)
class Put:
    """PUT the report to the URL of this registration."""

    registration_id: int


@dataclass(frozen=True, slots=True)
class ReportUploadFailed:
    """Tell TestNod upload_failed for this registration."""

    registration_id: int


@dataclass(frozen=True, slots=True)
class Finalize:
    """Say that the build is complete; again, to `confirm`, it only reads the run's state."""

    confirm: bool


@dataclass(frozen=True, slots=True)
class CopyToArchive:
    """Keep a copy of this delivery's report, which TestNod has."""

    delivery_id: int


@dataclass(frozen=True, slots=True)
class FetchCheckReport:
    """Ask CodeArts Check for its report, or `in_background` to make it anew; `reserved` as of a Poll."""

    reserved: bool
    in_background: bool


@dataclass(frozen=True, slots=True)
class UploadToMirror:
    """Upload the reports of these deliveries to CodeArts, in one request; nobody waits for its end."""

    delivery_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CompareMirror:
    """Ask CodeArts' report summary, and compare it with what was delivered; nobody waits for its end."""


BESIDE = (UploadToMirror, CompareMirror)
"""Begun by a visit, and ended beside it."""

UpstreamCall = (
    FetchRecord
    | Poll
    | Register
    | Put
    | ReportUploadFailed
    | FetchCheckReport
    | Finalize
    | CopyToArchive
    | UploadToMirror
    | CompareMirror
)


@dataclass(frozen=True, slots=True)
class Apply:
    """Something became true without any call: write it down and decide again."""

    event: str  # for the log
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Execute:
    """Make these calls side by side; decide again when all have ended."""

    calls: tuple[UpstreamCall, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """Try to become the one that probes this closed gate; decide again either way."""

    breaker: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until` (None: before something new arrives)."""

    until: int | None
    waiting_on: str | None = None  # the closed gate whose opening may end the wait early
    blocked_reason: str | None = None  # what a person has to mend


Step = Apply | Execute | Probe | Wait
