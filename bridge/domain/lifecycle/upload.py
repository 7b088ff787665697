"""Upload reports to TestNod: register, PUT and upload_failed; when each is due, and what each outcome changes.

docs/answers.md lists the same outcomes for operators.
"""

from collections.abc import Iterator
from types import MappingProxyType

from bridge.domain import changes, outcomes
from bridge.domain.build import Build, Delivery, DeliveryState, Registration, RegistrationState
from bridge.domain.circuit_breaker import PROBE_SHARE, RouteHealth, outage_since, register_breaker, storage_breaker
from bridge.domain.instants import EPOCH, HOUR, MINUTE, Duration, Instant, after, between
from bridge.domain.job_order import queue_of
from bridge.domain.lifecycle.breaker_signals import NO_URL
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.lifecycle.replacement import leaves_probes_to_others, must_ask_again, must_finalize_again
from bridge.domain.lifecycle.time_transitions import show_failing_call
from bridge.domain.lifecycle.unreadable_body import retry_unread_put
from bridge.domain.policy import Policy
from bridge.domain.retry import (
    URL_LIFETIME,
    attempts_after,
    back_off_register,
    failure_unreported_values,
    next_attempt_at,
    start_give_up_clock,
)
from bridge.domain.steps import Put, Register, ReportUploadFailed, UpstreamCall
from bridge.values import dataclass

EXPIRY_MARGIN = (
    MINUTE  # a 403 with this much left, or over half of the URL's life, is a rejection; later it may be expiry
)

REJECTED_STATUSES = frozenset({400, 401, 403, 404})
"""Statuses with which storage far more often rejects the signer, the bucket or a key than the report itself."""

REJECTED_FOR = Duration(6 * HOUR)
ACCEPTED_WITHIN = HOUR
"""A report is given up if storage has rejected it for REJECTED_FOR while it accepted other reports of the route, the
last of them within ACCEPTED_WITHIN. Time in an outage does not count."""

TEMPORARY_STATUSES = frozenset({408, 425, 429})  # 4xx that do not reject the request itself


# -- when a call is due --------------------------------------------------------------------------------------------


def due_uploads(context: PlanContext) -> Iterator[UpstreamCall]:
    """Yield as many calls as a step takes: open registrations first, then new ones."""
    unsettled = context.build.unsettled()
    in_progress = {registration.delivery_id for registration in unsettled}
    waiting = []
    if context.require_record():
        waiting = [delivery for delivery in context.sendable if delivery.id not in in_progress]
    if not (unsettled or waiting):
        return
    testnod = context.require_testnod()
    if context.route is None:
        return
    free = context.uploads_per_step
    for registration in unsettled:
        if free and _is_due(context, registration, context.route, testnod=testnod):
            may_put = registration.state is RegistrationState.REGISTERED
            yield Put(registration.id) if may_put else ReportUploadFailed(registration.id)
            free -= 1
    if waiting and testnod:
        yield from _due_registers(context, waiting, free, alone=not in_progress)


def _is_due(context: PlanContext, registration: Registration, route: str, *, testnod: bool) -> bool:
    if registration.state is RegistrationState.REGISTERED:  # a PUT needs storage, but not TestNod
        return context.wait_until(registration.due_at) and context.require_circuit(
            storage_breaker(route), may_probe=True
        )
    return testnod and context.wait_until(registration.due_at)


def _due_registers(context: PlanContext, waiting: list[Delivery], free: int, *, alone: bool) -> Iterator[UpstreamCall]:
    if context.wait_for_finalize_delay() or context.route is None or _wait_in_queue(context):
        return
    if must_ask_again(context.build, context.now) or must_finalize_again(context.build):  # next_finalize_step does
        return
    registered_at = context.build.last_registered_at
    opens_run = registered_at is None or registered_at < context.last_finalize_at
    if opens_run or any(delivery.send_alone for delivery in waiting):
        # TestNod answers 409 if two registers open one run at once.
        waiting = sorted(waiting, key=lambda delivery: not delivery.send_alone)
        free = min(free, 1) if alone else 0
    for delivery in waiting:
        if free <= 0:
            return
        if context.wait_until(delivery.due_at) and _require_route(context, context.route):
            yield Register(delivery.id)
            free -= 1


def _wait_in_queue(context: PlanContext) -> bool:
    """Return whether earlier builds of the job open their runs first, for `delivery.max_finalize_delay` at most."""
    build = context.build
    if build.run_parameters or not build.earlier_in_queue:
        return False
    if context.wait_until(after(build.accepted_at, context.policy.max_finalize_delay)):
        return False
    context.waiting_on = context.waiting_on or queue_of(build.job_id)
    return True


def _require_route(context: PlanContext, route: str) -> bool:
    register = register_breaker(route)
    if context.breakers.open_breaker(register) and leaves_probes_to_others(context):
        # It does not wait on the breaker, so it is not chosen for a probe. It is due again soon enough.
        context.wake_times.append(after(context.now, context.policy.retry_max_delay))
        return False
    return all(context.require_circuit(breaker, may_probe=True) for breaker in (register, storage_breaker(route)))


# -- register ------------------------------------------------------------------------------------------------------


def after_register(
    build: Build,
    registration: Registration,
    outcome: outcomes.RegisterOutcome,
    now: Instant,
    policy: Policy,
    health: RouteHealth,
) -> tuple[changes.Change, ...]:
    """Return what the outcome of a register changes. No rejection is final for a report: all are retried.

    An upload without a URL is reported failed, and its report is registered again.
    """
    delivery = build.deliveries[registration.delivery_id]
    match outcome:
        case outcomes.Registered(presigned_url=""):
            failed = {"state": RegistrationState.FAILURE_UNREPORTED, "attempts": 0, "due_at": now, "failure": NO_URL}
            ids = changes.set_registration(registration, **_ids(outcome, now), **failed)
            again = back_off_register(delivery, now, policy, health)
            retry = changes.set_delivery(delivery, last_error=NO_URL, send_alone=False, **again)
            return (ids, retry, *_run_opened(build, registration, outcome, now))
        case outcomes.Registered():
            return registration_succeeded(build, registration, outcome, now)
        case outcomes.ProjectMissing():
            return (changes.DropRegistration(registration.id),)  # this blocks the route, not the report
        case outcomes.Conflict():
            return (
                changes.DropRegistration(registration.id),
                _retry_register(delivery, now, policy, health, outcome, send_alone=True),
            )
        case outcomes.Rejected() | outcomes.UnrecognizedResponse() | outcomes.NotSent():
            return (changes.DropRegistration(registration.id), _retry_register(delivery, now, policy, health, outcome))
        case outcomes.OutcomeUnknown():
            return (
                changes.set_registration(registration, state=RegistrationState.LOST),
                _retry_register(delivery, now, policy, health, outcome),
            )


def _retry_register(
    delivery: Delivery,
    now: Instant,
    policy: Policy,
    health: RouteHealth,
    outcome: outcomes.Conflict
    | outcomes.Rejected
    | outcomes.UnrecognizedResponse
    | outcomes.NotSent
    | outcomes.OutcomeUnknown,
    **values: bool,
) -> changes.Change:
    again = back_off_register(delivery, now, policy, health, outcome)
    return changes.set_delivery(delivery, last_error=outcome.message, **again, **values)


def registration_succeeded(
    build: Build, registration: Registration, answer: outcomes.Registered, now: Instant
) -> tuple[changes.Change, ...]:
    """Return what the ids and the URL of an upload change."""
    delivery = build.deliveries[registration.delivery_id]
    return (
        changes.set_registration(
            registration,
            **_ids(answer, now),
            state=RegistrationState.REGISTERED,
            presigned_url=answer.presigned_url,
            expires_at=answer.expires_at or after(registration.requested_at, URL_LIFETIME),
            attempts=0,
            due_at=now,
        ),
        *((changes.set_delivery(delivery, send_alone=False),) if delivery.send_alone else ()),
        *_run_opened(build, registration, answer, now),
    )


def _ids(answer: outcomes.Registered, now: Instant) -> dict[str, str | Instant]:
    return {"test_run_id": answer.test_run_id, "upload_id": answer.upload_id, "registered_at": now}


def _run_opened(
    build: Build, registration: Registration, answer: outcomes.Registered, now: Instant
) -> tuple[changes.Change, ...]:
    """Return what a run changes that is new: older ones of its project and generation have left `pending`."""
    if any(run.test_run_id == answer.test_run_id for run in build.runs):
        return ()
    new = changes.AddRun(answer.test_run_id, answer.test_run_url, now, answer.project_id, registration.generation)
    older = [run for run in build.current_runs if run.is_pending and run.may_be_of(answer.project_id)]
    return (new, *(changes.set_run(run, status="processing") for run in older))


# -- PUT -----------------------------------------------------------------------------------------------------------


def upload_succeeded(
    build: Build, registration: Registration, now: Instant
) -> tuple[changes.SetRegistration | changes.SetDelivery, ...]:
    """Return what a stored report changes of its registration and its delivery, whether pending or dead.

    Both are covered, because CI may have made a dead delivery pending since the build was read.
    """
    delivery = build.deliveries[registration.delivery_id]
    stored = changes.set_registration(registration, state=RegistrationState.STORED, stored_at=now, presigned_url=None)
    if delivery.state is DeliveryState.DELIVERED:
        return (stored,)
    # The archive keeps the copy by the day of the first delivery.
    first_at = delivery.delivered_at or now
    delivered = MappingProxyType({"state": DeliveryState.DELIVERED, "delivered_at": first_at, "last_error": None})
    leaves = (DeliveryState.PENDING, DeliveryState.DEAD)
    return (stored, *(changes.SetDelivery(delivery.id, state, delivered) for state in leaves))


def after_put(
    build: Build,
    registration: Registration,
    outcome: outcomes.PutOutcome,
    now: Instant,
    policy: Policy,
    health: RouteHealth,
) -> tuple[changes.Change, ...]:
    """Return what the outcome of a PUT changes."""
    put = _FailedPut(build, registration, now, policy, health)
    match outcome:
        case outcomes.Stored():
            return upload_succeeded(build, registration, now)
        case outcomes.CorruptBody(message=message):
            return put.give_up(message)
        case outcomes.SpoolUnreadable():
            return retry_unread_put(put.delivery, registration, outcome, now, policy)
        case outcomes.PutRejected() if outcome.is_too_large:
            return put.give_up(outcome.text)
        case outcomes.PutRejected(status=status, code=code) if status in REJECTED_STATUSES and code != "RequestTimeout":
            expired = put.url_has_expired if status == 403 else (status, code) == (400, "ExpiredToken")
            return (put.register_again if expired else put.reject)(outcome, outcome.text)
        case outcomes.UrlRejected(message=message):
            return put.reject(outcome, message)
        case outcomes.PutRejected():
            return put.retry(outcome, outcome.text, unknown=False)
        case outcomes.NotSent() | outcomes.OutcomeUnknown():
            return put.retry(outcome, outcome.message, unknown=isinstance(outcome, outcomes.OutcomeUnknown))


@dataclass(frozen=True, slots=True)
class _FailedPut:
    """One PUT that was not stored; the methods return what follows."""

    build: Build
    registration: Registration
    now: Instant
    policy: Policy
    health: RouteHealth

    @property
    def delivery(self) -> Delivery:
        return self.build.deliveries[self.registration.delivery_id]

    @property
    def url_has_expired(self) -> bool:
        """Return whether a 403 means that the URL has expired, and not that storage rejects it."""
        expires_at = self.registration.expires_at or EPOCH
        left = between(self.now, expires_at)
        lifetime = between(self.registration.registered_at or self.registration.requested_at, expires_at)
        return left < EXPIRY_MARGIN and left <= lifetime // 2

    def retry(self, outcome: object, message: str, *, unknown: bool) -> tuple[changes.Change, ...]:
        """PUT again to the same URL while it works."""
        attempts = attempts_after(self.registration.attempts, self.health)
        at = next_attempt_at(self.now, self.policy, attempts, f"put/{self.registration.id}", outcome)
        unknown = self.registration.put_outcome_unknown or unknown
        values = {"attempts": attempts, "due_at": at, "put_outcome_unknown": unknown, "failure": message}
        clock = {"rejected_since": None, **start_give_up_clock(self.delivery, self.now, self.health.total_outage_us)}
        return (
            changes.set_registration(self.registration, **values),
            changes.set_delivery(self.delivery, last_error=message, **clock),
        )

    def register_again(self, outcome: outcomes.PutRejected, message: str) -> tuple[changes.Change, ...]:
        """Report this registration failed and register again; only `delivery.give_up_after` limits this."""
        return (self._fail(message), self._retry_register(outcome, message))

    def reject(self, outcome: outcomes.PutRejected | outcomes.UrlRejected, message: str) -> tuple[changes.Change, ...]:
        """Report this registration failed and register again.

        The report is at fault only if storage accepts others meanwhile. Until it does, this is an outage of storage or
        of its signer, and the give-up clock stands still.
        """
        since, accepted_at, requested_at = self.delivery.rejected_since, self.health.stored_at, self._requested_before()
        suspect_since = max(requested_at, default=None) if since is None else since
        clock: dict[str, int | None] = {}
        latest: Instant | None = None
        if accepted_at is None or suspect_since is None or accepted_at < suspect_since:
            lasted = between(min(requested_at, default=self.now), self.now)
            # As with an open breaker, the end of a short outage is noticed in proportion.
            latest = after(self.now, max(self.policy.retry_initial_delay, Duration(lasted // PROBE_SHARE)))
            clock = {"rejected_since": None, "first_failure_at": None, "outage_us_at_first_failure": 0}
        elif since is None or self.delivery.first_failure_at is None:
            clock = {
                "rejected_since": suspect_since,
                "first_failure_at": suspect_since,
                "outage_us_at_first_failure": self.health.total_outage_us,
            }
        elif self._is_hopeless(since, accepted_at):
            return self.give_up(message)
        return (self._fail(message), self._retry_register(outcome, message, latest, **clock))

    def give_up(self, message: str) -> tuple[changes.Change, ...]:
        return (self._fail(message), changes.set_delivery(self.delivery, state=DeliveryState.DEAD, last_error=message))

    def _requested_before(self) -> list[Instant]:
        """Return when the report was registered before this registration."""
        return [
            other.requested_at
            for other in self.build.registrations.values()
            if other.delivery_id == self.delivery.id
            and other.id != self.registration.id
            and other.requested_at >= self.delivery.pending_since
        ]

    def _is_hopeless(self, since: Instant, accepted_at: Instant) -> bool:
        outage_us = outage_since(self.health.total_outage_us, self.delivery.outage_us_at_first_failure)
        lasted = between(since, self.now) - outage_us >= REJECTED_FOR
        return lasted and between(accepted_at, self.now) <= ACCEPTED_WITHIN and not self.health.clock_doubted

    def _fail(self, message: str) -> changes.Change:
        token = self.build.fencing_token
        values = failure_unreported_values(self.registration, self.now, self.policy, fencing_token=token)
        return changes.set_registration(self.registration, **{**values, "failure": message})

    def _retry_register(
        self,
        outcome: outcomes.PutRejected | outcomes.UrlRejected,
        message: str,
        latest: Instant | None = None,
        **clock: int | None,
    ) -> changes.Change:
        again = back_off_register(self.delivery, self.now, self.policy, self.health, outcome)
        if latest is not None:
            again["due_at"] = min(again["due_at"], latest)
        return changes.set_delivery(self.delivery, last_error=message, **{**again, **clock})


# -- upload_failed -------------------------------------------------------------------------------------------------


def after_upload_failed(
    build: Build, registration: Registration, outcome: outcomes.UploadFailedOutcome, now: Instant, policy: Policy
) -> tuple[changes.Change, ...]:
    """Return what the outcome of upload_failed changes: it shows whether the report was stored after all.

    `processed` counts as stored only if a PUT may have got through. Otherwise the upload has ended without the report,
    which is registered again.
    """
    match outcome:
        case outcomes.FailureRecorded(status="processed") if registration.put_outcome_unknown:
            return upload_succeeded(build, registration, now)
        case outcomes.FailureRecorded():
            return (changes.set_registration(registration, state=RegistrationState.FAILED, presigned_url=None),)
        case outcomes.ProjectMissing():
            return ()
        case outcomes.Rejected(status=status) if status not in TEMPORARY_STATUSES:
            return (changes.set_registration(registration, state=RegistrationState.LOST, presigned_url=None),)
        case outcomes.OutcomeUnknown(status=200) if (
            registration.failing_since is not None
            and between(registration.failing_since, now) >= policy.confirm_timeout
        ):
            # TestNod has given answers that cannot be read for polling.confirm_timeout: the report is sent again.
            return (changes.set_registration(registration, state=RegistrationState.LOST, presigned_url=None),)
        case outcomes.Rejected() | outcomes.UnrecognizedResponse() | outcomes.NotSent() | outcomes.OutcomeUnknown():
            since = registration.failing_since or now
            attempts = registration.attempts + 1
            at = next_attempt_at(now, policy, attempts, f"upload_failed/{registration.id}", outcome)
            retry = changes.set_registration(registration, attempts=attempts, due_at=at, failing_since=since)
            return (retry, show_failing_call(since, now, policy, "upload_failed", outcome.message))
