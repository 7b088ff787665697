"""Which reports are registered and PUT now, and which spent registrations TestNod is told of.

It knows neither CodeArts nor the end of a run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

from bridge.domain.build import SECOND, Build, Delivery, DeliveryState, Registration, RegistrationState
from bridge.domain.changes import (
    AddRun,
    Change,
    DropRegistration,
    SetDelivery,
    SetRegistration,
    set_delivery,
    set_registration,
    set_run,
)
from bridge.domain.circuit_breaker import PROBE_SHARE, RouteHealth, register_breaker, storage_breaker
from bridge.domain.job_order import line_of
from bridge.domain.lifecycle.breaker_signals import NO_URL
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.lifecycle.finalize import failing
from bridge.domain.lifecycle.unreadable_body import unread_put
from bridge.domain.outcomes import (
    Conflict,
    CorruptBody,
    FailureRecorded,
    NotSent,
    OutcomeUnknown,
    ProjectMissing,
    PutOutcome,
    PutRejected,
    Registered,
    RegisterOutcome,
    Rejected,
    SpoolUnreadable,
    Stored,
    UnrecognizedResponse,
    UploadFailedOutcome,
    UrlRejected,
)
from bridge.domain.policy import Policy
from bridge.domain.retry import (
    URL_LIVES,
    again_at,
    next_attempt,
    register_again,
    start_give_up_clock,
    upload_failed_owed,
)
from bridge.domain.steps import Put, Register, ReportUploadFailed, UpstreamCall


def uploads(moment: PlanContext) -> Iterator[UpstreamCall]:
    """Yield at most `concurrency_per_build` calls: what TestNod was already told of first, then what it does not know yet."""
    lives = moment.build.unsettled()
    in_flight = {life.delivery_id for life in lives}
    waiting = [delivery for delivery in moment.owed if delivery.id not in in_flight] if moment.described else []
    if not (lives or waiting):
        return
    testnod_open = moment.testnod_open()
    if moment.route is None:
        return
    free = moment.policy.concurrency_per_build
    for life in lives:
        if free and _continues(moment, life, moment.route, testnod_open=testnod_open):
            yield _next_call(life)
            free -= 1
    if waiting and testnod_open:
        yield from _registers(moment, waiting, free, alone=not in_flight)


def _continues(moment: PlanContext, life: Registration, route: str, *, testnod_open: bool) -> bool:
    if life.state is RegistrationState.REGISTERED:  # a live URL needs its storage and nobody else
        return moment.due(life.due_at) and moment.open(storage_breaker(route), probed_by_visits=True)
    return testnod_open and moment.due(life.due_at)


def _next_call(life: Registration) -> UpstreamCall:
    return Put(life.id) if life.state is RegistrationState.REGISTERED else ReportUploadFailed(life.id)


def _registers(moment: PlanContext, waiting: list[Delivery], free: int, *, alone: bool) -> Iterator[UpstreamCall]:
    if moment.hold_is_over or moment.route is None or _stands_in_line(moment):
        return
    first_of_batch = not any(
        life.registered_at is not None and life.registered_at >= moment.batch_began_at
        for life in moment.build.registrations.values()
    )
    if first_of_batch or any(delivery.send_alone for delivery in waiting):
        # TestNod answers 409 when two registers open one run at once.
        waiting = sorted(waiting, key=lambda delivery: not delivery.send_alone)
        free = min(free, 1) if alone else 0
    for delivery in waiting:
        if free <= 0:
            return
        if moment.due(delivery.due_at) and _may_register(moment, moment.route):
            yield Register(delivery.id)
            free -= 1


def _stands_in_line(moment: PlanContext) -> bool:
    """Whether earlier builds of the job open their runs first: order is worth no more than `max_finalize_delay`."""
    build = moment.build
    if (
        build.run_parameters
        or not build.earlier_in_queue
        or moment.due(build.accepted_at + moment.policy.max_finalize_delay)
    ):
        return False
    moment.waiting_on = moment.waiting_on or line_of(build.job_id)
    return True


def _may_register(moment: PlanContext, route: str) -> bool:
    breakers = (register_breaker(route), storage_breaker(route))
    return all(moment.open(breaker, probed_by_visits=True) for breaker in breakers)


# What the answer to a register changes.


def after_register(
    build: Build, life: Registration, outcome: RegisterOutcome, now: int, policy: Policy, health: RouteHealth
) -> tuple[Change, ...]:
    """Return what the answer to a register changes. No refusal is the end of a report: all are tried again."""
    delivery = build.deliveries[life.delivery_id]
    match outcome:
        case Registered():
            return registration_succeeded(build, life, outcome, now, policy, health)
        case ProjectMissing():
            return (DropRegistration(life.id),)  # the route is suspended, not the report
        case Conflict():
            return (DropRegistration(life.id), _tried(delivery, now, policy, health, outcome, send_alone=True))
        case Rejected() | UnrecognizedResponse() | NotSent():
            return (DropRegistration(life.id), _tried(delivery, now, policy, health, outcome))
        case OutcomeUnknown():
            return (
                set_registration(life, state=RegistrationState.LOST),
                _tried(delivery, now, policy, health, outcome),
            )


def _tried(
    delivery: Delivery,
    now: int,
    policy: Policy,
    health: RouteHealth,
    outcome: Conflict | Rejected | UnrecognizedResponse | NotSent | OutcomeUnknown,
    **also: bool,
) -> Change:
    again = register_again(delivery, now, policy, health, outcome)
    return set_delivery(delivery, last_error=outcome.message, **again, **also)


def registration_succeeded(
    build: Build, life: Registration, answer: Registered, now: int, policy: Policy, health: RouteHealth
) -> tuple[Change, ...]:
    """Return what the ids of an upload change.

    A run of the same project that was unknown until now proves that the older ones left pending. An upload without a
    URL is reported failed and registered again.
    """
    delivery = build.deliveries[life.delivery_id]
    known = any(run.test_run_id == answer.test_run_id for run in build.runs)
    older = [] if known else [run for run in build.runs if run.is_pending and run.may_be_of(answer.project_id)]
    ids = {"test_run_id": answer.test_run_id, "upload_id": answer.upload_id, "registered_at": now}
    runs: tuple[Change, ...] = (
        AddRun(answer.test_run_id, answer.test_run_url, now, answer.project_id),
        *(set_run(run, status="processing") for run in older),
    )
    if not answer.presigned_url:
        failed = {"state": RegistrationState.FAILURE_UNREPORTED, "attempts": 0, "due_at": now, "failure": NO_URL}
        again = register_again(delivery, now, policy, health)
        retry = set_delivery(delivery, last_error=NO_URL, send_alone=False, **again)
        return (set_registration(life, **ids, **failed), retry, *runs)
    return (
        set_registration(
            life,
            **ids,
            state=RegistrationState.REGISTERED,
            presigned_url=answer.presigned_url,
            expires_at=answer.expires_at or life.requested_at + URL_LIVES,
            attempts=0,
            due_at=now,
        ),
        set_delivery(delivery, send_alone=False),
        *runs,
    )


# What the answers to a PUT and to upload_failed change: whether a registration is stored or failed.
#
# What each answer means is also in docs/answers.md, for operators.


EARLY = 60 * SECOND  # a 403 with this much left is a rejection, later it is the URL running out
REJECTIONS = frozenset({400, 401, 403, 404})
"""Statuses that storage answers for the signer, the bucket or a key far more often than for the report itself."""

REJECTED_FOR = 6 * 3600 * SECOND
TAKEN_WITHIN = 3600 * SECOND
"""A report is given up if storage has rejected it for the first time span while it took other reports of the route,
the last of them within the second. Time in which storage was away does not count."""

MAYBE_LATER = frozenset({408, 425, 429})  # 4xx that are about the moment, not about the request


def upload_succeeded(build: Build, life: Registration, now: int) -> tuple[SetRegistration | SetDelivery, ...]:
    """Return what becomes of a registration that is stored and of its delivery, be that owed or dead.

    Which of both it is by now is the ledger's to know: CI may have sent a dead one again since this visit read it.
    """
    delivery = build.deliveries[life.delivery_id]
    kept = set_registration(life, state=RegistrationState.STORED, stored_at=now, presigned_url=None)
    if delivery.state is DeliveryState.DELIVERED:
        return (kept,)
    arrived = MappingProxyType({"state": DeliveryState.DELIVERED, "delivered_at": now, "last_error": None})
    return (
        kept,
        *(SetDelivery(delivery.id, leaves, arrived) for leaves in (DeliveryState.PENDING, DeliveryState.DEAD)),
    )


def after_put(
    build: Build, life: Registration, outcome: PutOutcome, now: int, policy: Policy, health: RouteHealth
) -> tuple[Change, ...]:
    """Return what the answer to a PUT changes."""
    put = _Put(build, life, now, policy, health)
    match outcome:
        case Stored():
            return upload_succeeded(build, life, now)
        case CorruptBody(message=message):
            return put.failed_for_good(message)
        case SpoolUnreadable():
            return unread_put(put.delivery, life, outcome, now, policy)
        case PutRejected() if outcome.is_too_large:
            return put.failed_for_good(outcome.said)
        case PutRejected(status=400, code="ExpiredToken"):
            return put.spent(outcome, outcome.said)
        case PutRejected(status=status, code=code) if status in REJECTIONS and code != "RequestTimeout":
            ran_out = status == 403 and put.url_has_run_out
            return put.spent(outcome, outcome.said) if ran_out else put.rejected(outcome, outcome.said)
        case UrlRejected(message=message):
            return put.rejected(outcome, message)
        case PutRejected():
            return put.again(outcome, outcome.said, uncertain=False)
        case NotSent() | OutcomeUnknown():
            return put.again(outcome, outcome.message, uncertain=isinstance(outcome, OutcomeUnknown))


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
        left, lives = expires_at - self.now, expires_at - (self.life.registered_at or self.life.requested_at)
        return left < EARLY and left <= lives // 2

    def again(self, outcome: object, message: str, *, uncertain: bool) -> tuple[Change, ...]:
        """PUT again to the same URL while it lives."""
        attempts = next_attempt(self.life.attempts, self.health)
        at = again_at(self.now, self.policy, attempts, f"put/{self.life.id}", outcome)
        uncertain = self.life.put_outcome_unknown or uncertain
        values = {"attempts": attempts, "due_at": at, "put_outcome_unknown": uncertain, "failure": message}
        clock = {"rejected_since": None, **start_give_up_clock(self.delivery, self.now, self.health.total_outage_us)}
        return (set_registration(self.life, **values), set_delivery(self.delivery, last_error=message, **clock))

    def spent(self, outcome: PutRejected, message: str) -> tuple[Change, ...]:
        """Report this registration failed and register again, as often as it takes."""
        return (self._failed_owed(message), self._tried(outcome, message))

    def rejected(self, outcome: PutRejected | UrlRejected, message: str) -> tuple[Change, ...]:
        """Report this registration failed and register again.

        The report itself is at fault only if storage takes others meanwhile. As long as it does not, that is an outage
        of storage or of its signer, and the give-up clock stands still.
        """
        since, taken_at, requested_at = self.delivery.rejected_since, self.health.stored_at, self._asked_before()
        suspect_since = max(requested_at, default=None) if since is None else since
        clock: dict[str, int | None] = {}
        if taken_at is None or suspect_since is None or taken_at < suspect_since:
            lasted = self.now - min(requested_at, default=self.now)
            again_at_latest = self.now + max(self.policy.retry_initial_delay, lasted // PROBE_SHARE)
            clock = {"rejected_since": None, "first_failure_at": None, "outage_us_at_first_failure": 0}
            clock["again_at_latest"] = again_at_latest
        elif since is None or self.delivery.first_failure_at is None:
            clock = {"rejected_since": suspect_since, "first_failure_at": suspect_since}
            clock["outage_us_at_first_failure"] = self.health.total_outage_us
        elif self._is_hopeless(since, taken_at):
            return (self._failed_owed(message), self._died(message))
        return (self._failed_owed(message), self._tried(outcome, message, **clock))

    def _asked_before(self) -> list[int]:
        """Return when the report was registered before this registration."""
        delivery, lives = self.delivery, self.build.registrations.values()
        others = (life for life in lives if life.delivery_id == delivery.id and life.id != self.life.id)
        return [life.requested_at for life in others if life.requested_at >= delivery.pending_since]

    def _is_hopeless(self, since: int, taken_at: int) -> bool:
        total_outage_us = self.health.total_outage_us - self.delivery.outage_us_at_first_failure
        lasted = self.now - since - total_outage_us >= REJECTED_FOR
        return lasted and self.now - taken_at <= TAKEN_WITHIN and not self.health.clock_doubted

    def failed_for_good(self, message: str) -> tuple[Change, ...]:
        return (self._failed_owed(message), self._died(message))

    def _failed_owed(self, message: str) -> Change:
        values = upload_failed_owed(self.life, self.now, self.policy, fencing_token=self.build.fencing_token)
        return set_registration(self.life, **{**values, "failure": message})

    def _tried(
        self, outcome: PutRejected | UrlRejected, message: str, again_at_latest: int | None = None, **clock: int | None
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
        case FailureRecorded(status="processed") if life.put_outcome_unknown:
            return upload_succeeded(build, life, now)
        case FailureRecorded():
            return (set_registration(life, state=RegistrationState.FAILED, presigned_url=None),)
        case ProjectMissing():
            return ()
        case Rejected(status=status) if status not in MAYBE_LATER:
            return (set_registration(life, state=RegistrationState.LOST, presigned_url=None),)
        case OutcomeUnknown(status=200) if (
            life.failing_since is not None and now - life.failing_since >= policy.confirm_timeout
        ):
            # TestNod has answered in unknown words for as long as a run is confirmed: the report goes out again.
            return (set_registration(life, state=RegistrationState.LOST, presigned_url=None),)
        case Rejected() | UnrecognizedResponse() | NotSent() | OutcomeUnknown():
            since = life.failing_since or now
            attempts = life.attempts + 1
            at = again_at(now, policy, attempts, f"upload_failed/{life.id}", outcome)
            retry = set_registration(life, attempts=attempts, due_at=at, failing_since=since)
            return (retry, failing(since, now, policy, "upload_failed", outcome.message))
