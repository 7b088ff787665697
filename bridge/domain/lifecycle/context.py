"""A build at one moment: what every rule asks of it, and what the rules found themselves waiting for.

It knows no rule.
"""

from collections import defaultdict

from bridge.domain.build import SECOND, Build, BuildState, DeliveryTarget, Registration
from bridge.domain.circuit_breaker import CODEARTS, TESTNOD, CircuitBreakers, RouteHealth, route_breaker
from bridge.domain.clock_trust import ClockState
from bridge.domain.policy import Policy
from bridge.domain.routing import match_route, routing_keys_of

DOUBT_US = 60 * SECOND  # between two looks at a build that waits until the clock is trusted


class PlanContext:
    """The build as it is now, for one decision: `now` and all times are microseconds UTC."""

    def __init__(self, build: Build, now: int, policy: Policy, breakers: CircuitBreakers) -> None:
        self.build = build
        self.now = now
        self.policy = policy
        self.breakers = breakers
        self.later: list[int] = []
        self.waiting_on: str | None = None
        self.waits_for_clock = False
        self.blocked_reason: str | None = None
        self.probe: str | None = None
        self.lives: dict[int, list[Registration]] = defaultdict(list)
        for registration in build.registrations.values():
            self.lives[registration.delivery_id].append(registration)
        self.owed = build.owed(DeliveryTarget.TESTNOD)
        self.route = route_of(build, policy)

    # -- times and gates: what is not yet, is remembered as something to wait for ----------------------------------

    def due(self, at: int | None) -> bool:
        """Whether `at` has come; if not, the build is looked at again then."""
        if at is None:
            return False
        if at <= self.now:
            return True
        self.later.append(at)
        return False

    def clock_trusted(self) -> bool:
        """Whether time alone may end something for good; if not, the build is looked at again soon."""
        return not self._waits_for_clock(doubted=self.breakers.clock.doubted)

    def clock_suspect(self) -> bool:
        """Whether something speaks against the clock; if so, the build is looked at again soon."""
        return self._waits_for_clock(doubted=self.breakers.clock.state is ClockState.SUSPECT)

    def _waits_for_clock(self, *, doubted: bool) -> bool:
        if doubted:
            self.waits_for_clock = True
            self.later.append(self.now + DOUBT_US)
        return doubted

    def due_while_working(self, at: int, route: str) -> bool:
        """Whether `at` has come on the clock of `route`; one that stands still is nothing to wake up for."""
        if self.breakers.in_outage(route):
            return at <= self.now
        return self.due(at)

    def open(self, breaker_name: str, *, probed_by_visits: bool = False) -> bool:
        """Return whether calls may pass the gate; if not, the build waits for it, or may try to be its probe.

        A build that waits is woken when the gate opens, or if the prober chose it for the next probe.
        """
        breaker = self.breakers.open_breaker(breaker_name)
        if breaker is None:
            return True
        if probed_by_visits and breaker.probe_at is not None and breaker.probe_at <= self.now:
            self.probe = self.probe or breaker_name
        if self.waiting_on in (None, CODEARTS):  # whatever holds reports back is to wake the build
            self.waiting_on = breaker_name
        self.later.append(self.now + self.policy.retry_max_delay)
        return False

    def testnod_open(self) -> bool:
        """Whether TestNod can be asked about this build at all: a route, its project, the host."""
        if self.route is None:
            name = self.build.run_parameters.route if self.build.run_parameters else ""
            self.blocked_reason = (
                f'Its route "{name}" is no longer in the settings. Put it back, and its reports go out.'
                if name
                else "No route takes this build. Add or mend a [[routes]] table that matches it."
            )
            if self.breakers.open_breaker(
                route_breaker(name)
            ):  # one that is open would wake the build at once, again and again
                self.waiting_on = self.waiting_on or route_breaker(name)
            self.later.append(self.now + self.policy.retry_max_delay)
            return False
        self.blocked_reason = self.breakers.route_blocked_reason(self.route)
        return self.open(route_breaker(self.route)) and self.open(TESTNOD)

    # -- the build as several rules see it -------------------------------------------------------------------------

    @property
    def batch_began_at(self) -> int:
        return self.build.finalized_at or 0

    @property
    def described(self) -> bool:
        """Whether record-info has been read, or waiting for it longer would only delay reports."""
        build = self.build
        return (
            not self.policy.has_codearts
            or build.run_parameters is not None
            or build.described_at is not None
            or (self.due(build.accepted_at + self.policy.record_timeout) and not self._is_asked_soon())
        )

    def _is_asked_soon(self) -> bool:
        """Whether record-info, which nobody has asked for yet, can be: the bridge or its ledger may have been away."""
        build = self.build
        soon = build.describe_due_at <= self.now + self.policy.record_timeout  # its place under the common rate
        asked = bool(self.owed) and build.describe_attempts == 0  # where nothing is owed, nobody asks
        return asked and soon and self.breakers.open_breaker(CODEARTS) is None

    @property
    def health(self) -> RouteHealth:
        """What the gates show of the route now."""
        return self.breakers.health(self.route, self.now) if self.route else RouteHealth(total_outage_us=0)

    @property
    def total_outage_us(self) -> int:
        """How long the route has been away until now, in sum."""
        return self.health.total_outage_us

    @property
    def hold_is_over(self) -> bool:
        """Whether stragglers are no longer waited for: time in which they could not have arrived does not count."""
        build = self.build
        if build.state is not BuildState.ENDED or build.finalize_hold_since is None or build.run_parameters is None:
            return False
        away = self.breakers.total_outage_us(build.run_parameters.route, self.now) - build.outage_us_at_hold
        over_at = build.finalize_hold_since + self.policy.max_finalize_delay + away
        return self._stored_in_batch() and self.due_while_working(over_at, build.run_parameters.route)

    def _stored_in_batch(self) -> bool:
        return any(
            life.stored_at is not None and life.stored_at >= self.batch_began_at
            for life in self.build.registrations.values()
        )


def route_of(build: Build, policy: Policy) -> str | None:
    """Return the name of the route that `build` is pinned to, or would be by what is known now; None: there is none."""
    if build.run_parameters:
        known = any(route.name == build.run_parameters.route for route in policy.routes)
        return build.run_parameters.route if known else None
    chosen = match_route(policy.routes, routing_keys_of(build))
    return chosen.name if chosen else None
