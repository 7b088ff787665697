"""One call for a delivery, or for the run of a build, and its answer, as people read them.

A register or PUT that succeeds at once is not recorded: its registration has the times, and `attempts_of_registration`
returns them in the same form.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Protocol

from bridge.domain import outcomes
from bridge.domain.build import RegistrationState
from bridge.domain.instants import Duration, Instant, between
from bridge.values import dataclass

KEPT_ATTEMPTS: Final = 20
"""Attempts of one delivery, or of finalizing one build, that are kept and shown: the newest ones."""

MAX_REASON_CHARACTERS: Final = 500

OF_BUILD: Final = 0
"""Stands for the id of a delivery in attempts to finalize."""

INTERRUPTED: Final = "The gateway stopped or lost its lease before the answer came."


class CallKind(StrEnum):
    """What was called."""

    REGISTER = "register"
    PUT = "put"
    UPLOAD_FAILED = "upload_failed"
    FINALIZE = "finalize"
    ARCHIVE = "archive"
    MIRROR = "mirror"


class AttemptOutcome(StrEnum):
    """How a call ended."""

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"  # the upstream answered, and nothing was done
    UNKNOWN = "unknown"  # the call may have had an effect
    NOT_SENT = "not_sent"  # no byte left this machine
    UNREADABLE = "unreadable"  # the report's own bytes could not be read


ENDS: Final[dict[type, tuple[AttemptOutcome, int | None]]] = {
    outcomes.Registered: (AttemptOutcome.SUCCEEDED, 201),
    outcomes.Stored: (AttemptOutcome.SUCCEEDED, 200),
    outcomes.RunStatus: (AttemptOutcome.SUCCEEDED, 200),
    outcomes.FailureRecorded: (AttemptOutcome.SUCCEEDED, 200),
    outcomes.RunEmpty: (AttemptOutcome.REJECTED, 422),
    outcomes.RunMissing: (AttemptOutcome.REJECTED, 404),
    outcomes.ProjectMissing: (AttemptOutcome.REJECTED, 404),
    outcomes.Conflict: (AttemptOutcome.REJECTED, 409),
    outcomes.UrlRejected: (AttemptOutcome.NOT_SENT, None),
    outcomes.NotSent: (AttemptOutcome.NOT_SENT, None),
    outcomes.OutcomeUnknown: (AttemptOutcome.UNKNOWN, None),
    outcomes.CorruptBody: (AttemptOutcome.UNREADABLE, None),
    outcomes.SpoolUnreadable: (AttemptOutcome.UNREADABLE, None),
}
"""How the calls of these outcomes ended, and the status that leads to them; others are rejections with a status."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One call. `status` is the HTTP status of the answer, None if there was none or it is not known."""

    delivery_id: int  # OF_BUILD if it was for the run of the build
    call: CallKind
    at: Instant
    duration: Duration
    outcome: AttemptOutcome
    status: int | None
    reason: str | None  # the text of the answer


class SentRegistration(Protocol):
    """What the attempts of a registration are read from: `build.Registration`, or its row."""

    @property
    def delivery_id(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def requested_at(self) -> int: ...
    @property
    def registered_at(self) -> int | None: ...
    @property
    def stored_at(self) -> int | None: ...
    @property
    def due_at(self) -> int: ...


def new_attempt(
    call: CallKind, outcome: object, *, at: Instant, duration: Duration, delivery_id: int = OF_BUILD
) -> Attempt:
    """Return the attempt whose call had this outcome of outcomes.py."""
    ended, status = ENDS.get(type(outcome), (AttemptOutcome.REJECTED, getattr(outcome, "status", None)))
    if isinstance(outcome, outcomes.OutcomeUnknown):
        status = outcome.status
    if isinstance(outcome, outcomes.Registered) and not outcome.presigned_url:
        ended, status = AttemptOutcome.REJECTED, None
    reason = _reason(outcome)
    return Attempt(
        delivery_id=delivery_id,
        call=call,
        at=at,
        duration=duration,
        outcome=ended,
        status=status,
        reason=reason[:MAX_REASON_CHARACTERS] or None,
    )


def _reason(outcome: object) -> str:
    match outcome:
        case outcomes.Registered(presigned_url=""):
            return "the answer has no URL to which the report can be sent"
        case outcomes.RunStatus(status=status):
            return f"the run is {status}"
        case outcomes.FailureRecorded(status=status):
            return f"the upload is {status}"
        case outcomes.PutRejected():
            return outcome.text
    return getattr(outcome, "message", "")


def is_first_put(registration: SentRegistration) -> bool:
    """Return whether no PUT to this registration was tried before: each retry moves its due time."""
    return registration.due_at == registration.registered_at


def attempts_of_registration(registration: SentRegistration, recorded: Iterable[Attempt]) -> list[Attempt]:
    """Return the attempts of a registration that are not among the `recorded` ones of its delivery."""
    requested_at = Instant(registration.requested_at)
    registered_at, stored_at = registration.registered_at, registration.stored_at
    found = []
    if not any(attempt.call is CallKind.REGISTER and attempt.at == requested_at for attempt in recorded):
        if registered_at is not None:
            found.append(_succeeded(CallKind.REGISTER, 201, requested_at, registered_at, registration.delivery_id))
        elif registration.state == RegistrationState.LOST:
            found.append(
                Attempt(
                    delivery_id=registration.delivery_id,
                    call=CallKind.REGISTER,
                    at=requested_at,
                    duration=Duration(0),
                    outcome=AttemptOutcome.UNKNOWN,
                    status=None,
                    reason=INTERRUPTED,
                )
            )
    if registered_at is not None and stored_at is not None and is_first_put(registration):
        found.append(_succeeded(CallKind.PUT, 200, Instant(registered_at), stored_at, registration.delivery_id))
    return found


def _succeeded(call: CallKind, status: int, at: Instant, until: int, delivery_id: int) -> Attempt:
    return Attempt(
        delivery_id=delivery_id,
        call=call,
        at=at,
        duration=max(Duration(0), between(at, Instant(until))),
        outcome=AttemptOutcome.SUCCEEDED,
        status=status,
        reason=None,
    )
