"""The circuit breakers of the upstreams: which are open, what opens and closes them, and when they are probed.

A closed breaker lets calls pass. An open one blocks them, and the builds wait; it is half-open for the one caller that
makes its probe. While a breaker is open, the clocks for giving up and for delaying a finalize stand still: `outage_us`
counts that time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

from bridge.domain.clock_trust import TRUSTED, Verdict
from bridge.domain.instants import EPOCH, HOUR, SECOND, ZERO, Duration, Instant, after, between
from bridge.values import dataclass

TESTNOD = "testnod"
CODEARTS = "codearts"
ARCHIVE = "archive"
MIRROR = "mirror"  # CodeArts' report API
CLOCK = "clock"  # builds wait on it while the clock is not trusted; it has a verdict and no row

RESTORE_PAUSE = "restore_pause"
"""The breaker that is open from the restore of a ledger until `bridge resume`: nothing is sent, and all clocks stand
still."""

PAUSE = "pause:"

OPENS_AFTER = 3
"""Failures in a row that a breaker needs to open: one lost response is no outage, and a probe a second is cheap."""

OPENING_BUILDS = 2
"""Builds that must have met unexpected responses before these open a breaker: the fault of one build is no outage."""

FAILING_FOR_US = Duration(5 * SECOND)
"""How long calls must fail without a success before they open a breaker. If many builds with faults of
their own arrive at once, sound ones succeed within this time."""

ONE_OUTAGE_US = Duration(HOUR)
"""Outages that follow each other this soon are kept as one, so that a correction of the clock corrects all of them."""

MAX_REMEMBERED_BUILDS = 16
"""Failed builds that a breaker remembers, so that other builds probe first."""

PROBER = 0
"""Stands for `worker/circuit_probe.py` among the build ids of a breaker: its calls belong to no build."""

PROBE_SHARE = 3
"""An open breaker is probed again after this part of its outage so far, so that recovery is noticed in proportion."""

EARLY_PROBE_SHARE = 20
MAX_EARLY_PROBE_US = Duration(30 * SECOND)
"""A build that has not failed at the breaker may probe it after the smaller of these: if it succeeds, the builds that
failed were at fault."""


def route_breaker(route: str) -> str:
    """Return the name of the breaker that opens if TestNod does not find the project of `route`."""
    return f"route:{route}"


def storage_breaker(route: str) -> str:
    """Return the name of the breaker that opens if the storage behind the presigned URLs of `route` fails."""
    return f"storage:{route}"


def register_breaker(route: str) -> str:
    """Return the name of the breaker that opens if TestNod fails to register uploads of `route`."""
    return f"register:{route}"


def pause_breaker(route: str) -> str:
    """Return the name of the breaker that is open while operators have paused `route`."""
    return f"{PAUSE}{route}"


def is_pause(breaker: str) -> bool:
    """Return whether a breaker is a pause that only people end, of all routes or of one."""
    return breaker == RESTORE_PAUSE or breaker.startswith(PAUSE)


def breakers_of(route: str) -> tuple[str, ...]:
    """Return the names of the route's own breakers."""
    return route_breaker(route), storage_breaker(route), register_breaker(route)


def is_of_route(breaker: str) -> bool:
    """Return whether a breaker is one of a route's own."""
    return breaker.startswith(breakers_of(""))


class HealthSignal(StrEnum):
    """What one call shows of an upstream."""

    SUCCESS = "success"
    FAILURE = "failure"  # no complete response came
    UNEXPECTED = "unexpected"  # a response that a working upstream would not give, perhaps to this build alone
    TRIP = "trip"  # a fault that no retry cures (project missing, credentials rejected): opens the breaker at once


@dataclass(frozen=True, kw_only=True, slots=True)
class CircuitBreaker:
    """The breaker of one upstream."""

    name: str
    failures: int = 0  # since the last success
    opened_at: Instant | None = None  # None: closed
    reason: str | None = None
    probes: int = 0
    probe_at: Instant | None = None
    total_outage_us: Duration = ZERO  # of all outages that have ended, but the last one
    outage_began_at: Instant | None = None  # the last outage that has ended: instants, which are corrected if the
    outage_ended_at: Instant | None = None  # clock that they were read from was wrong
    probed_at: Instant | None = None  # the last probe of this outage
    first_failure_at: Instant | None = None  # since the last success
    succeeded_at: Instant | None = None  # the last success that was recorded
    builds: tuple[int, ...] = ()  # ids of builds that failed since the last success, the newest last
    accepted_token: str | None = None  # digest of the token of the last success; None on a ledger of one gateway
    rejected_token: str | None = None  # digest of the last token for which the breaker was tripped

    @property
    def is_open(self) -> bool:
        """Return whether the breaker is open or half-open."""
        return self.opened_at is not None

    def outage_us(self, now: Instant) -> Duration:
        """Return how long the breaker has been open up to `now`, in all."""
        if self.opened_at is None and self.outage_ended_at is None:  # nearly always
            return self.total_outage_us
        last = _lasted(self.outage_began_at, self.outage_ended_at)
        return Duration(self.total_outage_us + last + _lasted(self.opened_at, now))


def _lasted(began_at: Instant | None, ended_at: Instant | None) -> Duration:
    if began_at is None or ended_at is None:
        return ZERO
    return max(ZERO, between(began_at, ended_at))  # less while one of them is still to be corrected


def _not_after(now: Instant, at: Instant | None) -> Instant | None:
    return None if at is None else min(at, now)  # a time to come was read from a clock that was ahead


def outage_since(total_us: Duration, total_then_us: Duration) -> Duration:
    """Return how long outages have lasted since their total was `total_then_us`.

    A correction of the clock may have reduced the total since.
    """
    return max(ZERO, Duration(total_us - total_then_us))


def close_breaker(breaker: CircuitBreaker, now: Instant) -> CircuitBreaker:
    """Return `breaker` closed at `now` and without failures; its outage stays counted."""
    closed = CircuitBreaker(
        name=breaker.name,
        total_outage_us=breaker.total_outage_us,
        outage_began_at=breaker.outage_began_at,
        outage_ended_at=_not_after(now, breaker.outage_ended_at),
        succeeded_at=breaker.succeeded_at,
        accepted_token=breaker.accepted_token,
    )
    if breaker.opened_at is None:
        return closed
    began_at, total_us = breaker.opened_at, breaker.total_outage_us
    if breaker.outage_began_at is not None:
        gap_us = _lasted(closed.outage_ended_at, breaker.opened_at)
        if gap_us <= ONE_OUTAGE_US:
            began_at = after(breaker.outage_began_at, gap_us)
        else:
            total_us = Duration(total_us + _lasted(breaker.outage_began_at, closed.outage_ended_at))
    return replace(closed, total_outage_us=total_us, outage_began_at=min(began_at, now), outage_ended_at=now)


def apply_signal(
    breaker: CircuitBreaker,
    signal: HealthSignal,
    reason: str,
    now: Instant,
    probe_delay: Duration,
    *,
    build_id: int | None = None,
    token: str | None = None,
) -> CircuitBreaker:
    """Return `breaker` after one signal from a call for the build `build_id` (None: for no build in particular).

    A breaker that opens is probed after `probe_delay`. OPENS_AFTER failures in a row open it if they have
    lasted for FAILING_FOR_US; unexpected responses only if OPENING_BUILDS met them.

    `token` is the digest of the token that the call sent, if gateways of the ledger may differ in it. If the last
    success came with another token, a trip opens the breaker only if no gateway succeeds for FAILING_FOR_US.
    """
    if signal is HealthSignal.SUCCESS:
        accepted_token = breaker.accepted_token if token is None else token
        return replace(close_breaker(breaker, now), succeeded_at=now, accepted_token=accepted_token)
    failed = replace(
        breaker,
        failures=breaker.failures + 1,
        reason=reason,
        first_failure_at=now if breaker.first_failure_at is None else breaker.first_failure_at,
        builds=() if signal is HealthSignal.TRIP else _with_build(breaker.builds, build_id),
        rejected_token=token if signal is HealthSignal.TRIP else breaker.rejected_token,
    )
    if not breaker.is_open and _opens(failed, signal, now):
        return replace(failed, opened_at=now, probes=0, probe_at=after(now, probe_delay), probed_at=None)
    return failed


def _opens(breaker: CircuitBreaker, signal: HealthSignal, now: Instant) -> bool:
    if signal is HealthSignal.TRIP:
        others_work = breaker.rejected_token is not None and breaker.accepted_token not in (
            None,
            breaker.rejected_token,
        )
        return not others_work or between(breaker.first_failure_at or now, now) >= FAILING_FOR_US
    if breaker.failures < OPENS_AFTER or between(breaker.first_failure_at or now, now) < FAILING_FOR_US:
        return False
    return signal is HealthSignal.FAILURE or len(breaker.builds) >= OPENING_BUILDS


def _with_build(builds: tuple[int, ...], build_id: int | None) -> tuple[int, ...]:
    if build_id is None:
        return builds
    return (*(other for other in builds if other != build_id), build_id)[-MAX_REMEMBERED_BUILDS:]


def probe_delay_us(breaker: CircuitBreaker, now: Instant, *, first_us: Duration, max_us: Duration) -> Duration:
    """Return the wait from a probe of an open breaker at `now` to the next one."""
    lasted = between(breaker.opened_at, now) if breaker.opened_at is not None else 0
    return min(max_us, max(first_us, Duration(lasted // PROBE_SHARE)))


def early_probe_at(breaker: CircuitBreaker, *, first_us: Duration) -> Instant:
    """Return from when on a build that has not failed at this open breaker may probe it.

    A breaker that was tripped (no build failed) is never probed early: Huawei locks credentials that are tried often.
    """
    if breaker.opened_at is None or breaker.probe_at is None or not breaker.builds:
        return breaker.probe_at or EPOCH
    last = breaker.opened_at if breaker.probed_at is None else breaker.probed_at
    share = Duration(between(breaker.opened_at, last) // EARLY_PROBE_SHARE)
    return min(breaker.probe_at, after(last, max(first_us, min(share, MAX_EARLY_PROBE_US))))


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteHealth:
    """What the breakers show of a route at one moment."""

    total_outage_us: Duration  # summed over the breakers that the route needs
    testnod_outage_us: Duration = ZERO  # over those that a finalize needs, which are probed even if no report waits
    in_outage: bool = False  # one of these is open or half-open
    stored_at: Instant | None = None  # when storage last took a report of the route, if that was recorded
    clock_doubted: bool = False  # nothing may be given up because of its age


@dataclass(frozen=True, kw_only=True, slots=True)
class CircuitBreakers:
    """All breakers as one reconciler sees them; `probing` are those whose probe it makes: half-open for it."""

    known: Mapping[str, CircuitBreaker] = field(default_factory=lambda: MappingProxyType({}))
    probing: frozenset[str] = frozenset()
    clock: Verdict = TRUSTED  # on the ledger's clock, by which all these times were read
    rejected_here: frozenset[str] = frozenset()  # breakers whose upstreams reject the credentials of this gateway
    disturbed_at: Instant | None = None  # the last disturbance of TestNod that this gateway met (disturbance.py)

    @classmethod
    def of(cls, breakers: Iterable[CircuitBreaker]) -> "CircuitBreakers":
        return cls(known=MappingProxyType({breaker.name: breaker for breaker in breakers}))

    def open_breaker(self, name: str) -> CircuitBreaker | None:
        """Return the breaker if it blocks calls: it is open, and this reconciler does not make its probe."""
        breaker = self.known.get(name)
        return breaker if breaker and breaker.is_open and name not in self.probing else None

    def is_open(self, name: str) -> bool:
        """Return whether the breaker is open or half-open."""
        breaker = self.known.get(name)
        return breaker is not None and breaker.is_open

    def is_left_to_others(self, name: str) -> bool:
        """Return whether an upstream rejects the credentials of this gateway, while those of another one work."""
        return name in self.rejected_here and not self.is_open(name)

    def route_blocked_reason(self, route: str) -> str | None:
        """Return why nothing is sent for `route` and what to do; None if its breaker does not block it."""
        breaker = self.open_breaker(route_breaker(route))
        if breaker is None:
            return None
        return f'Route "{route}": {breaker.reason} Fix its project_token. Delivery resumes automatically.'

    def pause_of(self, route: str) -> CircuitBreaker | None:
        """Return the breaker of a route that operators have paused; None if it is not paused."""
        breaker = self.known.get(pause_breaker(route))
        return breaker if breaker and breaker.is_open else None

    @property
    def paused_reason(self) -> str | None:
        """Return why nothing at all is sent and what to do; None if there is no restore pause."""
        breaker = self.known.get(RESTORE_PAUSE)
        return breaker.reason if breaker and breaker.is_open else None

    def with_clock(self, verdict: Verdict) -> "CircuitBreakers":
        """Return these breakers with another verdict on the clock."""
        return self if self.clock is verdict else replace(self, clock=verdict)

    def outage_us_of(self, name: str, now: Instant) -> Duration:
        """Return how long one breaker has been open up to `now`, in all."""
        breaker = self.known.get(name)
        return breaker.outage_us(now) if breaker else ZERO

    def total_outage_us(self, route: str, now: Instant) -> Duration:
        """Return how long the breakers that `route` needs have been open up to `now`, in sum.

        Times in which two of them were open count twice: a clock that stands still too long delays a death, and never
        hastens it.
        """
        return _total_outage_us(self._needed_by(route), now)

    def in_outage(self, route: str) -> bool:
        """Return whether the clocks of `route` stand still because a breaker that it needs is open."""
        return any(breaker.is_open for breaker in self._needed_by(route))

    def outage_ended_at(self, route: str, now: Instant) -> Instant:
        """Return when the last outage ended in which TestNod registered no upload of `route`; EPOCH if none did."""
        breakers = [self.known[name] for name in (TESTNOD, register_breaker(route)) if name in self.known]
        return max((min(now, each.outage_ended_at or EPOCH) for each in breakers), default=EPOCH)

    def health(self, route: str, now: Instant) -> RouteHealth:
        """Return what the outcome of a call for `route` is judged by at `now`."""
        only_reports = (register_breaker(route), storage_breaker(route))
        storage = self.known.get(only_reports[1])
        needed = self._needed_by(route)
        return RouteHealth(
            total_outage_us=_total_outage_us(needed, now),
            testnod_outage_us=_total_outage_us([each for each in needed if each.name not in only_reports], now),
            in_outage=any(breaker.is_open for breaker in needed),
            stored_at=storage.succeeded_at if storage else None,
            clock_doubted=self.clock.doubted,
        )

    def _needed_by(self, route: str) -> list[CircuitBreaker]:
        return [self.known[name] for name in _names_needed_by(route) if name in self.known]


@lru_cache(maxsize=256)
def _names_needed_by(route: str) -> tuple[str, ...]:
    pauses = (RESTORE_PAUSE, pause_breaker(route))
    return (*pauses, TESTNOD, route_breaker(route), register_breaker(route), storage_breaker(route))


def _total_outage_us(breakers: Iterable[CircuitBreaker], now: Instant) -> Duration:
    return Duration(sum(breaker.outage_us(now) for breaker in breakers))
