"""The steps that `plan` returns and the upstream calls they consist of. `worker/` carries them out."""

from bridge.domain.changes import Change
from bridge.domain.instants import Instant
from bridge.values import dataclass


@dataclass(frozen=True, slots=True)
class FetchRecord:
    """Call record-info of CodeArts, or what it lacks."""


@dataclass(frozen=True, slots=True)
class Poll:
    """Call build-info of CodeArts; `reserved`: a slot of the shared rate limit is already taken for it."""

    reserved: bool


@dataclass(frozen=True, slots=True)
class Register:
    """Ask TestNod to open an upload for the report of this delivery."""

    delivery_id: int


@dataclass(frozen=True, slots=True)
class Put:
    """PUT the report to the presigned URL of this registration."""

    registration_id: int


@dataclass(frozen=True, slots=True)
class ReportUploadFailed:
    """Call upload_failed of TestNod for this registration."""

    registration_id: int


@dataclass(frozen=True, slots=True)
class Finalize:
    """Finalize the run. With `confirm` it was finalized before, and the call only reads its status."""

    confirm: bool


@dataclass(frozen=True, slots=True)
class CopyToArchive:
    """Copy the report of this delivery, which TestNod has, to the archive."""

    delivery_id: int


@dataclass(frozen=True, slots=True)
class FetchCheckReport:
    """Fetch the report of CodeArts Check. With `in_background`, only have Check make it; `reserved` as in Poll."""

    reserved: bool
    in_background: bool


@dataclass(frozen=True, slots=True)
class UploadToMirror:
    """Upload the reports of these deliveries to CodeArts in one request; the reconciler does not wait for its end."""

    delivery_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CompareMirror:
    """Compare CodeArts' report summary with what was delivered; the reconciler does not wait for its end."""


BACKGROUND_CALLS = (UploadToMirror, CompareMirror)
"""Calls that the reconciler starts and that end in a task of their own."""

REPEATABLE_CALLS = (FetchRecord, Poll, Finalize)
"""Calls that may be made again if their outcome was not written: it is written with what comes next."""

UPLOAD_CALLS = (Register, Put, ReportUploadFailed)
"""Calls of which at most `delivery.concurrency_per_build` run at once, whatever their number in a step."""

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
    """Something became true without a call: write the changes and plan again."""

    event: str  # for the log
    changes: tuple[Change, ...]
    reason: str | None = None  # for the log, if the event alone does not state it


@dataclass(frozen=True, slots=True)
class Execute:
    """Make these calls side by side, and plan again when all have ended.

    If there are more UPLOAD_CALLS than may run at once, the others follow while all goes well, and may be left out.
    """

    calls: tuple[UpstreamCall, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """Try to take the probe of this open breaker; plan again either way."""

    breaker: str


@dataclass(frozen=True, slots=True)
class Wait:
    """There is nothing to do before `until` (None: before something new arrives)."""

    until: Instant | None
    waiting_on: str | None = None  # the open breaker, or the queue of a job, that may end the wait early
    blocked_reason: str | None = None  # what an operator has to correct
    is_pause: bool = False  # an operator has stopped delivery: the reason is no fault
    left_to_others: bool = False  # another gateway of the ledger may be able to go on now


Step = Apply | Execute | Probe | Wait
