"""What the answers to a PUT and to upload_failed change: whether a registration is stored or failed.

It follows the rows `PUT` of design.md, What each answer means.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bridge.domain.build import SECOND, Build, Delivery, DeliveryState, PutRefusal, Registration, RegistrationState
from bridge.domain.changes import Change, SetDelivery, SetRegistration, set_delivery, set_registration
from bridge.domain.effects.stuck import failing
from bridge.domain.effects.timing import again_at, register_again, spent_at, trying
from bridge.domain.effects.unread import unread_put
from bridge.domain.outcomes import (
    Damaged,
    FailureNoted,
    NotSent,
    ProjectMissing,
    PutOutcome,
    PutRefused,
    Rejected,
    SpoolUnreadable,
    Stored,
    Unknown,
    UploadFailedOutcome,
)
from bridge.domain.policy import Policy

EARLY = 60 * SECOND  # a 403 with this much left is a refusal, later it is the URL running out
MAX_EARLY_REFUSALS = 5  # 403 on fresh URLs: by then it is not the clock
MAX_BAD_REQUESTS = 3  # 400 on fresh URLs: by then it is the report
MAYBE_LATER = frozenset({408, 425, 429})  # 4xx that say nothing of the request itself


def stored(build: Build, life: Registration, now: int) -> tuple[SetRegistration | SetDelivery, ...]:
    """Return what becomes of a registration that is stored and of its delivery, be that owed or dead.

    Which of both it is by now is the ledger's to know: CI may have sent a dead one again since this visit read it.
    """
    delivery = build.deliveries[life.delivery_id]
    kept = set_registration(life, state=RegistrationState.STORED, stored_at=now, presigned_url=None, put_refusal=None)
    if delivery.state is DeliveryState.DELIVERED:
        return (kept,)
    arrived = MappingProxyType({"state": DeliveryState.DELIVERED, "delivered_at": now, "last_error": None})
    return (kept, *(SetDelivery(delivery.id, leaves, arrived) for leaves in (DeliveryState.OWED, DeliveryState.DEAD)))


def after_put(
    build: Build, life: Registration, outcome: PutOutcome, now: int, policy: Policy, away_us: int
) -> tuple[Change, ...]:
    """Return what the answer to a PUT changes."""
    put = _Put(build, life, now, policy, away_us)
    match outcome:
        case Stored():
            return stored(build, life, now)
        case Damaged(message=message):
            return put.failed_for_good(message)
        case SpoolUnreadable():
            return unread_put(put.delivery, life, outcome, now, policy)
        case PutRefused(status=403):
            early = (life.expires_at or 0) - now >= EARLY
            return put.refused(outcome, PutRefusal.FORBIDDEN_EARLY, MAX_EARLY_REFUSALS) if early else put.spent(outcome)
        case PutRefused(status=400, code="ExpiredToken"):
            return put.spent(outcome)
        case PutRefused(status=400, code=code) if code != "RequestTimeout":
            return put.refused(outcome, PutRefusal.BAD_REQUEST, MAX_BAD_REQUESTS)
        case PutRefused(status=413):
            return put.failed_for_good(outcome.said)
        case PutRefused():
            return put.again(outcome, outcome.said, uncertain=outcome.status >= 500)
        case NotSent() | Unknown():
            return put.again(outcome, outcome.message, uncertain=isinstance(outcome, Unknown))


@dataclass(frozen=True, slots=True)
class _Put:
    """One PUT that was not simply stored."""

    build: Build
    life: Registration
    now: int
    policy: Policy
    away_us: int

    @property
    def delivery(self) -> Delivery:
        return self.build.deliveries[self.life.delivery_id]

    def again(self, outcome: object, message: str, *, uncertain: bool) -> tuple[Change, ...]:
        """PUT again to the same URL while it lives."""
        attempts = self.life.attempts + 1
        at = again_at(self.now, self.policy, attempts, f"put/{self.life.id}", outcome)
        uncertain = self.life.put_uncertain or uncertain
        values = {"attempts": attempts, "due_at": at, "put_uncertain": uncertain, "failure": message}
        clock = trying(self.delivery, self.now, self.away_us)
        return (set_registration(self.life, **values), set_delivery(self.delivery, last_error=message, **clock))

    def spent(self, outcome: PutRefused) -> tuple[Change, ...]:
        """Report this registration failed and register anew, as often as it takes."""
        return (self._failed_owed(outcome.said), self._tried(outcome))

    def refused(self, outcome: PutRefused, refusal: PutRefusal, limit: int) -> tuple[Change, ...]:
        """Report this registration failed and register anew; `limit` times the same refusal is the end."""
        before = sum(
            other.put_refusal is refusal
            for other in self.build.registrations.values()
            if other.delivery_id == self.delivery.id and other.asked_at >= self.delivery.owed_since
        )
        failed = self._failed_owed(outcome.said, put_refusal=refusal)
        return (failed, self._died(outcome.said) if before + 1 >= limit else self._tried(outcome))

    def failed_for_good(self, message: str) -> tuple[Change, ...]:
        return (self._failed_owed(message), self._died(message))

    def _failed_owed(self, message: str, **also: Any) -> Change:
        due_at = spent_at(self.life, self.now, self.policy, fence=self.build.fence)
        values = {"state": RegistrationState.FAILED_OWED, "attempts": 0, "due_at": due_at, "presigned_url": None}
        also = {"failure": message, **also}
        return set_registration(self.life, **values, **also)

    def _tried(self, outcome: PutRefused) -> Change:
        again = register_again(self.delivery, self.now, self.policy, self.away_us, outcome)
        return set_delivery(self.delivery, last_error=outcome.said, **again)

    def _died(self, message: str) -> Change:
        return set_delivery(self.delivery, state=DeliveryState.DEAD, last_error=message)


def after_upload_failed(
    build: Build, life: Registration, outcome: UploadFailedOutcome, now: int, policy: Policy
) -> tuple[Change, ...]:
    """Return what the answer to upload_failed changes: it decides whether the report was stored after all."""
    match outcome:
        case FailureNoted(status="failed"):
            return (set_registration(life, state=RegistrationState.FAILED, presigned_url=None),)
        case FailureNoted():
            return stored(build, life, now)
        case ProjectMissing():
            return ()
        case Rejected(status=status) if status not in MAYBE_LATER:
            return (set_registration(life, state=RegistrationState.LOST, presigned_url=None),)
        case Rejected() | NotSent() | Unknown():
            since = life.failing_since or now
            attempts = life.attempts + 1
            at = again_at(now, policy, attempts, f"upload_failed/{life.id}", outcome)
            retry = set_registration(life, attempts=attempts, due_at=at, failing_since=since)
            return (retry, failing(since, now, policy, "upload_failed", outcome.message))
