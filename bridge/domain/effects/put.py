"""What the answers to a PUT and to upload_failed change: whether a registration is stored or failed.

What each answer means is also in docs/answers.md, for operators.
"""

from dataclasses import dataclass
from types import MappingProxyType

from bridge.domain.build import SECOND, Build, Delivery, DeliveryState, Registration, RegistrationState
from bridge.domain.changes import Change, SetDelivery, SetRegistration, set_delivery, set_registration
from bridge.domain.effects.stuck import failing
from bridge.domain.effects.timing import again_at, failed_owed, next_attempt, register_again, trying
from bridge.domain.effects.unread import unread_put
from bridge.domain.gates import PROBE_SHARE, RouteHealth
from bridge.domain.outcomes import (
    Damaged,
    FailureNoted,
    Foreign,
    NotSent,
    ProjectMissing,
    PutOutcome,
    PutRefused,
    Rejected,
    SpoolUnreadable,
    Stored,
    Unknown,
    UploadFailedOutcome,
    UrlRefused,
)
from bridge.domain.policy import Policy

EARLY = 60 * SECOND  # a 403 with this much left is a rejection, later it is the URL running out
REJECTIONS = frozenset({400, 401, 403, 404})
"""Statuses that storage answers for the signer, the bucket or a key far more often than for the report itself."""

REJECTED_FOR = 6 * 3600 * SECOND
TAKEN_WITHIN = 3600 * SECOND
"""A report is given up if storage has rejected it for the first time span while it took other reports of the route,
the last of them within the second. Time in which storage was away does not count."""

MAYBE_LATER = frozenset({408, 425, 429})  # 4xx that are about the moment, not about the request


def stored(build: Build, life: Registration, now: int) -> tuple[SetRegistration | SetDelivery, ...]:
    """Return what becomes of a registration that is stored and of its delivery, be that owed or dead.

    Which of both it is by now is the ledger's to know: CI may have sent a dead one again since this visit read it.
    """
    delivery = build.deliveries[life.delivery_id]
    kept = set_registration(life, state=RegistrationState.STORED, stored_at=now, presigned_url=None)
    if delivery.state is DeliveryState.DELIVERED:
        return (kept,)
    arrived = MappingProxyType({"state": DeliveryState.DELIVERED, "delivered_at": now, "last_error": None})
    return (kept, *(SetDelivery(delivery.id, leaves, arrived) for leaves in (DeliveryState.OWED, DeliveryState.DEAD)))


def after_put(
    build: Build, life: Registration, outcome: PutOutcome, now: int, policy: Policy, health: RouteHealth
) -> tuple[Change, ...]:
    """Return what the answer to a PUT changes."""
    put = _Put(build, life, now, policy, health)
    match outcome:
        case Stored():
            return stored(build, life, now)
        case Damaged(message=message):
            return put.failed_for_good(message)
        case SpoolUnreadable():
            return unread_put(put.delivery, life, outcome, now, policy)
        case PutRefused() if outcome.is_too_large:
            return put.failed_for_good(outcome.said)
        case PutRefused(status=400, code="ExpiredToken"):
            return put.spent(outcome, outcome.said)
        case PutRefused(status=status, code=code) if status in REJECTIONS and code != "RequestTimeout":
            ran_out = status == 403 and put.url_has_run_out
            return put.spent(outcome, outcome.said) if ran_out else put.rejected(outcome, outcome.said)
        case UrlRefused(message=message):
            return put.rejected(outcome, message)
        case PutRefused():
            return put.again(outcome, outcome.said, uncertain=False)
        case NotSent() | Unknown():
            return put.again(outcome, outcome.message, uncertain=isinstance(outcome, Unknown))


@dataclass(frozen=True, slots=True)
class _Put:
    """One PUT that was not simply stored."""

    build: Build
    life: Registration
    now: int
    policy: Policy
    health: RouteHealth

    @property
    def delivery(self) -> Delivery:
        return self.build.deliveries[self.life.delivery_id]

    @property
    def url_has_run_out(self) -> bool:
        """Whether a 403 says that the URL ran out, and not that storage rejects it."""
        expires_at = self.life.expires_at or 0
        left, lives = expires_at - self.now, expires_at - (self.life.named_at or self.life.asked_at)
        return left < EARLY and left <= lives // 2

    def again(self, outcome: object, message: str, *, uncertain: bool) -> tuple[Change, ...]:
        """PUT again to the same URL while it lives."""
        attempts = next_attempt(self.life.attempts, self.health)
        at = again_at(self.now, self.policy, attempts, f"put/{self.life.id}", outcome)
        uncertain = self.life.put_uncertain or uncertain
        values = {"attempts": attempts, "due_at": at, "put_uncertain": uncertain, "failure": message}
        clock = {"rejected_since": None, **trying(self.delivery, self.now, self.health.away_us)}
        return (set_registration(self.life, **values), set_delivery(self.delivery, last_error=message, **clock))

    def spent(self, outcome: PutRefused, message: str) -> tuple[Change, ...]:
        """Report this registration failed and register again, as often as it takes."""
        return (self._failed_owed(message), self._tried(outcome, message))

    def rejected(self, outcome: PutRefused | UrlRefused, message: str) -> tuple[Change, ...]:
        """Report this registration failed and register again.

        The report itself is at fault only if storage takes others meanwhile. As long as it does not, that is an outage
        of storage or of its signer, and the give-up clock stands still.
        """
        since, taken_at, asked_at = self.delivery.rejected_since, self.health.stored_at, self._asked_before()
        suspect_since = max(asked_at, default=None) if since is None else since
        clock: dict[str, int | None] = {}
        if taken_at is None or suspect_since is None or taken_at < suspect_since:
            lasted = self.now - min(asked_at, default=self.now)
            again_at_latest = self.now + max(self.policy.first_delay, lasted // PROBE_SHARE)
            clock = {"rejected_since": None, "trying_since": None, "trying_away_us": 0}
            clock["again_at_latest"] = again_at_latest
        elif since is None or self.delivery.trying_since is None:
            clock = {"rejected_since": suspect_since, "trying_since": suspect_since}
            clock["trying_away_us"] = self.health.away_us
        elif self._is_hopeless(since, taken_at):
            return (self._failed_owed(message), self._died(message))
        return (self._failed_owed(message), self._tried(outcome, message, **clock))

    def _asked_before(self) -> list[int]:
        """Return when the report was registered before this registration."""
        delivery, lives = self.delivery, self.build.registrations.values()
        others = (life for life in lives if life.delivery_id == delivery.id and life.id != self.life.id)
        return [life.asked_at for life in others if life.asked_at >= delivery.owed_since]

    def _is_hopeless(self, since: int, taken_at: int) -> bool:
        away_us = self.health.away_us - self.delivery.trying_away_us
        lasted = self.now - since - away_us >= REJECTED_FOR
        return lasted and self.now - taken_at <= TAKEN_WITHIN and not self.health.clock_doubted

    def failed_for_good(self, message: str) -> tuple[Change, ...]:
        return (self._failed_owed(message), self._died(message))

    def _failed_owed(self, message: str) -> Change:
        values = failed_owed(self.life, self.now, self.policy, fence=self.build.fence)
        return set_registration(self.life, **{**values, "failure": message})

    def _tried(
        self, outcome: PutRefused | UrlRefused, message: str, again_at_latest: int | None = None, **clock: int | None
    ) -> Change:
        again = register_again(self.delivery, self.now, self.policy, self.health, outcome)
        if again_at_latest is not None:  # like a closed gate, so that the end of a short outage is noticed in time
            again["due_at"] = min(again["due_at"], again_at_latest)
        return set_delivery(self.delivery, last_error=message, **{**again, **clock})

    def _died(self, message: str) -> Change:
        return set_delivery(self.delivery, state=DeliveryState.DEAD, last_error=message)


def after_upload_failed(
    build: Build, life: Registration, outcome: UploadFailedOutcome, now: int, policy: Policy
) -> tuple[Change, ...]:
    """Return what the answer to upload_failed changes: it decides whether the report was stored after all.

    `processed` counts as stored only if a PUT may have got through. Else the upload has ended without the report,
    which is registered again.
    """
    match outcome:
        case FailureNoted(status="processed") if life.put_uncertain:
            return stored(build, life, now)
        case FailureNoted():
            return (set_registration(life, state=RegistrationState.FAILED, presigned_url=None),)
        case ProjectMissing():
            return ()
        case Rejected(status=status) if status not in MAYBE_LATER:
            return (set_registration(life, state=RegistrationState.LOST, presigned_url=None),)
        case Unknown(status=200) if life.failing_since is not None and now - life.failing_since >= policy.confirm_for:
            # TestNod has answered in unknown words for as long as a run is confirmed: the report goes out again.
            return (set_registration(life, state=RegistrationState.LOST, presigned_url=None),)
        case Rejected() | Foreign() | NotSent() | Unknown():
            since = life.failing_since or now
            attempts = life.attempts + 1
            at = again_at(now, policy, attempts, f"upload_failed/{life.id}", outcome)
            retry = set_registration(life, attempts=attempts, due_at=at, failing_since=since)
            return (retry, failing(since, now, policy, "upload_failed", outcome.message))
