"""Which upstreams are away: the circuit breaker ("gate") of each, and the evidence that opens or closes it.

A gate is closed while its upstream is away: one call probes it, all others wait. While it is closed the clocks of
give-up and hold stand still: `total_outage_us` counts that time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from bridge.domain.clock_trust import TRUSTED, Verdict

TESTNOD = "testnod"
CODEARTS = "codearts"
ARCHIVE = "archive"
MIRROR = "mirror"  # CodeArts' report API
CLOCK = "clock"  # what builds wait for that are to be ended by a clock that is doubted; no row, but a verdict
HELD = "held"
"""The gate that is closed while a restored ledger waits for a person: nothing is sent, and all clocks stand still."""

OPENS_AFTER = 3
"""Failures in a row that close a gate at least: one lost answer is no outage, and a probe a second is cheap."""

OPENING_BUILDS = 2
"""Builds that must have met odd answers before these close a gate: one build's own fault is no outage."""

FAILING_FOR_US = 5_000_000
"""How long calls must fail without a success before they close a gate, in microseconds. If many builds with faults of
their own arrive at once, sound ones succeed within this time."""

MAX_REMEMBERED_BUILDS = 16
"""Failed builds that a gate remembers, so that others probe first."""

PROBER = 0
"""Stands for the prober among the builds of a gate: its call belongs to no build."""

PROBE_SHARE = 3
"""A closed gate is probed again after this part of its outage so far, so that recovery is noticed in proportion."""

EARLY_PROBE_SHARE = 20
MAX_EARLY_PROBE_US = 30_000_000
"""A build that has not failed at the gate may probe it after these already: it shows soonest that others were at
fault. In microseconds."""


def route_breaker(route: str) -> str:
    """Name the gate that is closed while TestNod does not know the project of `route`."""
    return f"route:{route}"


def storage_breaker(route: str) -> str:
    """Name the gate that is closed while the storage that TestNod names for `route` fails."""
    return f"storage:{route}"


def register_breaker(route: str) -> str:
    """Name the gate that is closed while TestNod fails to register uploads of `route`, whatever else it answers."""
    return f"register:{route}"


def breakers_of(route: str) -> tuple[str, ...]:
    """Name all gates that are the route's own."""
    return route_breaker(route), storage_breaker(route), register_breaker(route)


def is_of_route(gate: str) -> bool:
    """Tell whether a gate is some route's own."""
    return gate.startswith(breakers_of(""))


class HealthSignal(StrEnum):
    """What one call tells of an upstream."""

    SUCCESS = "success"
    FAILURE = "failure"  # no complete answer came: enough of these close the gate
    UNEXPECTED = "unexpected"  # an answer that a working upstream would not give, perhaps to this build alone
    TRIP = "trip"  # it said so itself (project missing, credentials refused): closed at once


@dataclass(frozen=True, kw_only=True, slots=True)
class CircuitBreaker:
    """One upstream; a closed one has `failing_since`."""

    name: str
    failures: int = 0
    failing_since: int | None = None
    reason: str | None = None
    probes: int = 0
    probe_at: int | None = None
    total_outage_us: int = 0  # how long it has been closed before now, in all
    probed_at: int | None = None  # the last probe since it was closed
    doubted_since: int | None = None  # the first failure since the last success
    succeeded_at: int | None = None  # the last success, as far as it was written down
    builds: tuple[int, ...] = ()  # ids of those that failed since the last success, the newest last

    def away_until(self, now: int) -> int:
        """Return how long the gate has been closed, in microseconds, up to `now`."""
        return self.total_outage_us + (max(0, now - self.failing_since) if self.failing_since is not None else 0)


def apply_signal(
    gate: CircuitBreaker, signal: HealthSignal, reason: str, now: int, probe_delay: int, *, build_id: int | None = None
) -> CircuitBreaker:
    """Return `gate` after one signal from a call for the build `build_id` (None: for no build in particular).

    A gate that closes is probed `probe_delay` microseconds from now. CLOSES_AFTER failures in a row that have lasted
    close it; odd answers do so only if several builds met them.
    """
    if signal is HealthSignal.SUCCESS:
        return CircuitBreaker(name=gate.name, total_outage_us=gate.away_until(now), succeeded_at=now)
    failed = replace(
        gate,
        failures=gate.failures + 1,
        reason=reason,
        doubted_since=now if gate.doubted_since is None else gate.doubted_since,
        builds=() if signal is HealthSignal.TRIP else _with_build(gate.builds, build_id),
    )
    if gate.failing_since is None and _closes(failed, signal, now):
        return replace(failed, failing_since=now, probes=0, probe_at=now + probe_delay, probed_at=None)
    return failed


def _closes(gate: CircuitBreaker, signal: HealthSignal, now: int) -> bool:
    if signal is HealthSignal.TRIP:
        return True
    if gate.failures < OPENS_AFTER:
        return False
    if now - (gate.doubted_since or now) < FAILING_FOR_US:
        return False
    return signal is HealthSignal.FAILURE or len(gate.builds) >= OPENING_BUILDS


def _with_build(builds: tuple[int, ...], build_id: int | None) -> tuple[int, ...]:
    if build_id is None:
        return builds
    return (*(other for other in builds if other != build_id), build_id)[-MAX_REMEMBERED_BUILDS:]


def probe_delay_us(gate: CircuitBreaker, now: int, *, first_us: int, max_us: int) -> int:
    """Return the wait from a probe of a closed gate at `now` to the next one, in microseconds."""
    away = now - gate.failing_since if gate.failing_since is not None else 0
    return min(max_us, max(first_us, away // PROBE_SHARE))


def early_probe_at(gate: CircuitBreaker, *, first_us: int) -> int:
    """Return from when on a build that has not failed at this closed gate may probe it, in microseconds UTC.

    A gate that its upstream shut itself (no build failed) is never probed early: refused credentials get locked.
    """
    if gate.failing_since is None or gate.probe_at is None or not gate.builds:
        return gate.probe_at or 0
    last = gate.failing_since if gate.probed_at is None else gate.probed_at
    wait = max(first_us, min((last - gate.failing_since) // EARLY_PROBE_SHARE, MAX_EARLY_PROBE_US))
    return min(gate.probe_at, last + wait)


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteHealth:
    """What the gates show of a route at one moment."""

    total_outage_us: int  # how long TestNod, its storage or the route was away so far, in sum
    is_away: bool = False  # one of them is away now, also if this call is its probe
    stored_at: int | None = None  # when storage last took a report of the route, as far as it was written down
    clock_doubted: bool = False  # nothing may be given up for its age


@dataclass(frozen=True, kw_only=True, slots=True)
class CircuitBreakers:
    """All gates as one visit sees them; `probing` are the closed ones that this visit may try."""

    known: Mapping[str, CircuitBreaker] = field(default_factory=lambda: MappingProxyType({}))
    probing: frozenset[str] = frozenset()
    clock: Verdict = TRUSTED  # on the ledger's clock, whose times all of this is

    @classmethod
    def of(cls, gates: Iterable[CircuitBreaker]) -> "CircuitBreakers":
        return cls(known=MappingProxyType({gate.name: gate for gate in gates}))

    def closed(self, name: str) -> CircuitBreaker | None:
        """Return the gate where it is closed and not this visit's to try."""
        gate = self.known.get(name)
        return gate if gate and gate.failing_since is not None and name not in self.probing else None

    def is_closed(self, name: str) -> bool:
        """Return whether the gate is closed, also if this visit may probe it."""
        gate = self.known.get(name)
        return gate is not None and gate.failing_since is not None

    def suspended(self, route: str) -> str | None:
        """Say why nothing is sent for `route` and what to mend; None while its gate is open."""
        gate = self.closed(route_breaker(route))
        return f'Route "{route}": {gate.reason} Mend its project_token; it resumes by itself.' if gate else None

    @property
    def held(self) -> str | None:
        """Say why nothing at all is sent and what to do; None where the ledger is not held."""
        gate = self.known.get(HELD)
        return gate.reason if gate and gate.failing_since is not None else None

    def total_outage_us(self, route: str, now: int) -> int:
        """Return how long the ledger was held, or TestNod, its storage or `route` away, up to `now`, in microseconds.

        Times when two of them were away count twice: a clock that stands still too long delays a death, never
        hastens it.
        """
        return sum(gate.away_until(now) for gate in self._needed_by(route))

    def health(self, route: str, now: int) -> RouteHealth:
        """Return what the effects of a call need to know of `route` at `now`."""
        storage = self.known.get(storage_breaker(route))
        return RouteHealth(
            total_outage_us=self.total_outage_us(route, now),
            is_away=self.is_away(route),
            stored_at=storage.succeeded_at if storage else None,
            clock_doubted=self.clock.doubted,
        )

    def away_of(self, name: str, now: int) -> int:
        """Return how long one upstream has been away up to `now`, in microseconds."""
        gate = self.known.get(name)
        return gate.away_until(now) if gate else 0

    def is_away(self, route: str) -> bool:
        """Whether the clocks of `route` stand still: TestNod, its storage or the route is away."""
        return any(gate.failing_since is not None for gate in self._needed_by(route))

    def _needed_by(self, route: str) -> list[CircuitBreaker]:
        names = (HELD, TESTNOD, route_breaker(route), register_breaker(route), storage_breaker(route))
        return [self.known[name] for name in names if name in self.known]
