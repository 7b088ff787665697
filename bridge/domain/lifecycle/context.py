"""The context of one `plan`: the build at one moment, and what its rules have found it to wait for."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property

from bridge.domain.build import (
    Build,
    BuildState,
    Delivery,
    DeliveryTarget,
    Registration,
    Report,
    is_pending,
    is_unsettled,
)
from bridge.domain.circuit_breaker import CODEARTS, TESTNOD, CircuitBreakers, RouteHealth, outage_since, route_breaker
from bridge.domain.clock_trust import ClockState
from bridge.domain.instants import EPOCH, MINUTE, ZERO, Duration, Instant, after
from bridge.domain.lifecycle.build_record import is_gone
from bridge.domain.policy import Policy
from bridge.domain.routing import choose_route

CLOCK_RECHECK_US = MINUTE  # a build that waits for a trusted clock is planned again that often

CONTESTED = (
    "Callers of different routes uploaded to this build, and no record of CodeArts decides which route it has. "
    "Make record-info readable for the bridge, or tell the routes apart by job_id. Delivery then resumes automatically."
)
UNKNOWN_BUILD = (
    "CodeArts has no such build, so its branch and repository are not known, and they decide its route. "
    "Check the job and the number, or tell the routes apart by job_id. Delivery then resumes automatically."
)
UPLOADS_AHEAD = 8
"""Uploads that a step takes for each one that may run at once: the others follow, without a plan between them."""

DELIVERIES_PER_UPLOAD = 100
"""Deliveries that are planned in about a twentieth of the time of one upload."""

GIVEN_UP = "Given up after trying for as long as is allowed."


class PlanContext:
    """The build as it is `now`.

    `wait_…` and `require_…` return whether a condition holds. If not, the build waits for it.
    """

    def __init__(self, build: Build, now: Instant, policy: Policy, breakers: CircuitBreakers) -> None:
        self.build = build
        self.now = now
        self.policy = policy
        self.breakers = breakers
        self.wake_times: list[Instant] = []
        self.waiting_on: str | None = None
        self.waits_for_clock = False
        self.left_to_others = False
        self.blocked_reason: str | None = None
        self.probe: str | None = None
        self.unsettled = build.registrations.where(is_unsettled)  # of all generations
        self.registrations: dict[int, list[Registration]] = defaultdict(list)  # those of them, by delivery
        for registration in self.unsettled:
            self.registrations[registration.delivery_id].append(registration)
        self.all_pending = build.deliveries.where(is_pending)
        self.pending = self.pending_to(DeliveryTarget.TESTNOD)
        self.choice = choose_route(policy.routes, build)
        self.route = bound_route(build, policy) if build.run_parameters else self.choice.name

    # -- commands: what does not hold yet is waited for --------------------------------------------------------------

    def wait_until(self, at: Instant | None) -> bool:
        """Return whether `at` has come; if not, plan the build again then. None never comes."""
        if at is None:
            return False
        if at <= self.now:
            return True
        self.wake_times.append(at)
        return False

    def wait_until_outside_outages(self, at: Instant, route: str) -> bool:
        """Return whether `at` has come. In an outage of `route` its clock stands still, so nothing wakes the build."""
        if self.breakers.in_outage(route):
            return at <= self.now
        return self.wait_until(at)

    def wait_for_grace_period(self) -> bool:
        """Return whether `polling.grace_period` has passed since the end of the build and since its last report."""
        ended_at = max(self.build.ended_at or EPOCH, self.build.last_report_at)
        return self.wait_until(after(ended_at, self.policy.grace_period))

    def wait_for_finalize_delay(self) -> bool:
        """Return whether late reports no longer delay the finalize; time in an outage does not count.

        Only a run that has got a report since the last finalize is delayed.
        """
        build, parameters = self.build, self.build.run_parameters
        if build.state is not BuildState.ENDED or build.finalize_hold_since is None or parameters is None:
            return False
        outage_us = outage_since(self.breakers.total_outage_us(parameters.route, self.now), build.outage_us_at_hold)
        over_at = after(build.finalize_hold_since, self.policy.max_finalize_delay, outage_us)
        return self._stored_since_finalize() and self.wait_until_outside_outages(over_at, parameters.route)

    def require_trusted_clock(self) -> bool:
        """Return whether age alone may end something for good."""
        return self._require_clock(fit=not self.breakers.clock.doubted)

    def require_unsuspected_clock(self) -> bool:
        """Return whether no sign speaks against the clock."""
        return self._require_clock(fit=self.breakers.clock.state is not ClockState.SUSPECT)

    def _require_clock(self, *, fit: bool) -> bool:
        if not fit:
            self.waits_for_clock = True
            self.wake_times.append(after(self.now, CLOCK_RECHECK_US))
        return fit

    def require_circuit(self, name: str, *, may_probe: bool = False) -> bool:
        """Return whether the breaker lets calls pass; if not, wait on it, or try to take its probe if `may_probe`.

        A build that waits is woken when the breaker closes, or when `worker/circuit_probe.py` chooses it for the probe.
        """
        if self.breakers.is_left_to_others(name):
            self.left_to_others = True
            self.wake_times.append(after(self.now, self.policy.retry_max_delay))
            return False
        breaker = self.breakers.open_breaker(name)
        if breaker is None:
            return True
        may_probe = may_probe and name not in self.breakers.rejected_here  # it would only show the same
        if may_probe and breaker.probe_at is not None and breaker.probe_at <= self.now:
            self.probe = self.probe or name
        if self.waiting_on in (None, CODEARTS):  # what blocks reports takes precedence
            self.waiting_on = name
        self.wake_times.append(after(self.now, self.policy.retry_max_delay))
        return False

    def require_testnod(self) -> bool:
        """Return whether TestNod can be called for this build: it has a route, and no breaker blocks it."""
        if self.route is not None:
            self.blocked_reason = self.breakers.route_blocked_reason(self.route) or self.blocked_reason
            return self.require_circuit(route_breaker(self.route)) and self.require_circuit(TESTNOD)
        name = self.build.run_parameters.route if self.build.run_parameters else ""
        self.blocked_reason = (
            f'Its route "{name}" is no longer in the settings. Put it back. Delivery then resumes automatically.'
            if name
            else "No route takes this build. Add or correct a [[routes]] table that matches it."
        )
        if self.breakers.open_breaker(route_breaker(name)):  # a closed one would wake the build at once, in a loop
            self.waiting_on = self.waiting_on or route_breaker(name)
        else:  # another gateway may have the route
            self.left_to_others = True
        self.wake_times.append(after(self.now, self.policy.retry_max_delay))
        return False

    def require_record(self) -> bool:
        """Return whether record-info was read, or has been waited for long enough.

        Callers of different routes wait longer, since another one may still state another route: without end if they
        contradict each other, or if CodeArts has no such build, which a caller could upload to in advance.
        """
        build, policy, choice = self.build, self.policy, self.choice
        if not policy.has_codearts or build.run_parameters is not None:
            return True
        described = build.described_at is not None
        over = described or is_gone(build) or self.wait_until(after(build.accepted_at, policy.record_timeout))
        if choice.is_contested:
            return self._block(CONTESTED, over=over)
        if choice.is_exclusive and not described:
            over = self.wait_until(after(build.accepted_at, max(policy.record_timeout, policy.not_found_timeout)))
            if build.record_missing:
                return self._block(UNKNOWN_BUILD, over=over)
        return described or (over and not self._fetches_record_soon())

    def _block(self, reason: str, *, over: bool) -> bool:
        """Return False, and once the usual wait is `over`, block the build with a reason."""
        self.blocked_reason = reason if over else self.blocked_reason
        self.wake_times.append(after(self.now, self.policy.retry_max_delay))
        return False

    def block_report(self, reason: str) -> None:
        """Block the build because its settings keep a report from the route, and leave it to other gateways.

        They may have other settings. What the record or a run decides explains no build that has reports of the route:
        it would show one caller what another one sent.
        """
        if not (self.choice.is_certain and self.build.has_report_for(self.route)):
            self.blocked_reason = self.blocked_reason or reason
        if not self.build.registrations:
            self.left_to_others = True

    def give_up_blocked(self, delivery: Delivery) -> str | None:
        """Return why a delivery is given up that the settings have blocked for long; None if it is not."""
        if delivery.blocked_since is None:
            return None
        over = self.wait_until(after(delivery.blocked_since, self.policy.give_up_after))
        return given_up(delivery) if over and self.require_trusted_clock() else None

    def give_up_reason(self, delivery: Delivery, breaker: str) -> str | None:
        """Return why a delivery that needs only `breaker` is given up now; None if it is not."""
        if delivery.first_failure_at is None or delivery.unread_since is not None:
            return None
        outage_us = outage_since(self.breakers.outage_us_of(breaker, self.now), delivery.outage_us_at_first_failure)
        over_at = after(delivery.first_failure_at, self.policy.give_up_after, outage_us)
        over = over_at <= self.now if self.breakers.open_breaker(breaker) else self.wait_until(over_at)
        return given_up(delivery) if over and self.require_trusted_clock() else None

    # -- queries -----------------------------------------------------------------------------------------------------

    @cached_property
    def foreign_reports(self) -> Mapping[int, Report]:
        """Return the reports whose callers may not use the route of the build, by id."""
        pages = self.build.reports.by_page(_foreign, self.route) if self.route is not None else ()
        return {report.id: report for page in pages for report in page}

    def pending_to(self, target: DeliveryTarget) -> list[Delivery]:
        """Return the pending deliveries to `target`, oldest first."""
        return [delivery for delivery in self.all_pending if delivery.target is target]

    @property
    def sendable(self) -> list[Delivery]:
        """Return the pending deliveries to TestNod that no setting keeps from it."""
        return [delivery for delivery in self.pending if delivery.blocked_since is None]

    @property
    def mirrors(self) -> bool:
        """Return whether the route of the build mirrors to CodeArts."""
        return any(route.name == self.route and route.mirror for route in self.policy.routes)

    @property
    def last_finalize_at(self) -> Instant:
        return self.build.finalized_at or EPOCH

    @property
    def uploads_per_step(self) -> int:
        """How many uploads a step takes: many of those that may run at once, and more if planning takes long."""
        return self.policy.concurrency_per_build * (UPLOADS_AHEAD + len(self.build.deliveries) // DELIVERIES_PER_UPLOAD)

    @property
    def health(self) -> RouteHealth:
        """Return the health of the build's route now."""
        if self.route is None:
            return RouteHealth(total_outage_us=ZERO)
        return self.breakers.health(self.route, self.now)

    @property
    def total_outage_us(self) -> Duration:
        return self.health.total_outage_us

    def _fetches_record_soon(self) -> bool:
        """Return whether record-info was never fetched and soon can be: the gateway may have been down."""
        build = self.build
        soon = build.describe_due_at <= after(self.now, self.policy.record_timeout)
        due = bool(self.pending) and build.describe_attempts == 0
        return due and soon and self.breakers.open_breaker(CODEARTS) is None

    def _stored_since_finalize(self) -> bool:
        stored_at = self.build.last_stored_at
        return stored_at is not None and stored_at >= self.last_finalize_at


def _foreign(reports: Iterable[Report], route: str) -> tuple[Report, ...]:
    return tuple(report for report in reports if not report.may_go_to(route))


def given_up(delivery: Delivery) -> str:
    """Return the reason of a delivery that is given up because of its age."""
    return f"{GIVEN_UP} The last error was: {delivery.last_error}"


def route_of(build: Build, policy: Policy) -> str | None:
    """Return the name of the route that `build` is bound to, or would be now; None if no route takes it."""
    return bound_route(build, policy) if build.run_parameters else choose_route(policy.routes, build).name


def bound_route(build: Build, policy: Policy) -> str | None:
    """Return the name of the route of the build's run parameters; None if it has none, or the route is gone."""
    name = build.run_parameters.route if build.run_parameters else None
    return next((name for route in policy.routes if route.name == name), None)
