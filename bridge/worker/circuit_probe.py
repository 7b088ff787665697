"""Probes of closed gates: one small call finds out whether an upstream works again.

TestNod and the projects of routes are probed by a finalize of a build_id that never exists: it leaves nothing behind.
All other upstreams are probed by a build's own call; the prober wakes the build whose turn it is.
"""

from collections.abc import Callable

import structlog

from bridge.domain.circuit_breaker import (
    HELD,
    OPENS_AFTER,
    PROBER,
    TESTNOD,
    CircuitBreaker,
    HealthSignal,
    breakers_of,
    early_probe_at,
    is_of_route,
    probe_delay_us,
    route_breaker,
)
from bridge.domain.lifecycle.breaker_signals import of_testnod
from bridge.domain.policy import Policy
from bridge.errors import Unavailable
from bridge.store.circuit_breakers import (
    BreakerSignal,
    WakeForProbe,
    all_breakers,
    apply_breaker_signals,
    take_probe,
    troubled_breakers,
    wake_for_probe,
)
from bridge.store.engine.base import Database
from bridge.store.retention import routes_in_use
from bridge.worker.reconcile import log_change
from bridge.worker.worker_config import WorkerConfig

# Routes that are not in the settings: while builds still wait for one, its gate is shut, so that it shows.
#
# It knows no call. The clocks of giving up and of holding stand still meanwhile; the prober opens what comes back.


async def trip_breakers_of_removed_routes(database: Database, policy: Policy) -> None:
    """Shut the gate of every route that builds are pinned to and `policy` does not know.

    Gates of a route that nobody knows and nothing waits for are opened: nobody else would, and it is no outage.
    """
    known = {route.name for route in policy.routes}
    pinned, gates = await database.read(routes_in_use), await database.read(all_breakers)
    for route in sorted(pinned - known):
        if gates.closed(route_breaker(route)) is None:
            reason = "It is not in the settings."
            told = BreakerSignal(
                breaker=route_breaker(route), signal=HealthSignal.TRIP, reason=reason, probe_delay_us=0
            )
            await database.write(apply_breaker_signals, told)
    needed = {name for route in known | pinned for name in breakers_of(route)}
    for name in sorted(name for name in gates.known if is_of_route(name) and name not in needed):
        if gates.closed(name) is not None:
            await database.write(
                apply_breaker_signals,
                BreakerSignal(breaker=name, signal=HealthSignal.SUCCESS, reason="", probe_delay_us=0),
            )


TEND_EVERY_US = 60_000_000
"""A visit that began before its route went away may open the gate once more; a gateway with other settings may too."""

LOOK_EVERY_US = 1_000_000  # a gate that a visit closed is probed that soon; the ledger says when it is due

DOUBTED_EVERY_US = 5_000_000
"""TestNod is probed this often while one build alone meets failures: is it TestNod, or that build?"""

log = structlog.get_logger(__name__)


class CircuitProber:
    """One loop over all gates that are closed or in doubt; `shift` says what each probe goes by."""

    def __init__(self, shift: Callable[[], WorkerConfig]) -> None:
        self._shift = shift
        self._desk = shift().desk  # ledger, clock and stopping, which last
        self._tend_again_at = 0
        self._date_again_at = 0
        self._doubted_at = 0
        self._woken: dict[str, int] = {}  # by gate, the build that was woken last: turns go on from there

    async def run(self, beat: Callable[[], None]) -> None:
        """Probe until the desk stops."""
        while not self._desk.stopping.is_set():
            beat()
            try:
                await self.probe_due(beat)
            except Unavailable as error:
                log.warning("cannot read the ledger, trying again", error=str(error))
            await self._desk.clock.wait(self._desk.stopping, self._desk.clock.now() + LOOK_EVERY_US)

    async def probe_due(self, beat: Callable[[], None] = lambda: None) -> None:
        """Probe every gate whose time has come; now and then, look after those of routes that are gone."""
        now = self._desk.clock.now()
        if not now < self._tend_again_at <= now + TEND_EVERY_US:  # later than that: the clock was set back
            self._tend_again_at = now + TEND_EVERY_US
            await trip_breakers_of_removed_routes(self._desk.database, self._shift().desk.policy)
        troubled = await self._desk.database.read(troubled_breakers)
        if any(gate.name == HELD for gate in troubled):
            return
        await self._ask_for_date(now)
        for gate in troubled:
            if self._is_probed_here(gate):
                await self._probe_if_due(gate)
            elif gate.failing_since is not None:
                await self._wake(gate)
            beat()

    def _is_probed_here(self, gate: CircuitBreaker) -> bool:
        return gate.name == TESTNOD or gate.name.startswith(route_breaker(""))

    async def _probe_if_due(self, gate: CircuitBreaker) -> None:
        route, now = self._route_to_ask(gate), self._desk.database.now()
        if route is None:
            return
        if gate.failing_since is None:  # in doubt
            first_at = self._doubted_at + DOUBTED_EVERY_US
            if gate.name == TESTNOD and gate.failures >= OPENS_AFTER and not now < first_at <= now + DOUBTED_EVERY_US:
                self._doubted_at = now
                await self._probe(gate, route)
        elif gate.probe_at is not None and gate.probe_at <= now:
            policy = self._shift().desk.policy
            next_us = probe_delay_us(gate, now, first_us=policy.first_delay, max_us=policy.max_delay)
            if await self._desk.database.write(take_probe, (gate.name, next_us)):
                await self._probe(gate, route)

    async def _ask_for_date(self, now: int) -> None:
        """Have TestNod answer if the clock is suspect and no upstream has: its Date then speaks for or against it."""
        shift = self._shift()
        routes = shift.desk.policy.routes
        if not routes or not shift.desk.trust().wants_date or now < self._date_again_at <= now + TEND_EVERY_US:
            return
        self._date_again_at = now + TEND_EVERY_US
        await shift.upstreams.testnod.probe(shift.upstreams.token(routes[0].name))

    def _route_to_ask(self, gate: CircuitBreaker) -> str | None:
        """Return the route whose token the probe is made with; None if a probe would show nothing."""
        routes = [route.name for route in self._shift().desk.policy.routes]
        if gate.name == TESTNOD:
            return next(iter(routes), None)
        return next((route for route in routes if route_breaker(route) == gate.name), None)

    async def _probe(self, gate: CircuitBreaker, route: str) -> None:
        shift = self._shift()
        policy, upstreams = shift.desk.policy, shift.upstreams
        outcome = await upstreams.testnod.probe(upstreams.token(route))
        for name, signal, reason in of_testnod(outcome, route):
            told = BreakerSignal(
                breaker=name,
                signal=signal,
                reason=reason,
                source=PROBER,
                probe_delay_us=policy.first_delay,
                hold_run_us=policy.hold_run,
            )
            before = shift.desk.newest_gates.get(name) or CircuitBreaker(name=name)
            after = await shift.desk.database.write(apply_breaker_signals, told)
            shift.desk.newest_gates[name] = after
            log_change(gate if name == gate.name else before, after)

    async def _wake(self, gate: CircuitBreaker) -> None:
        """Wake the build whose turn it is to probe the gate, if a probe is due."""
        first_us = self._shift().desk.policy.first_delay
        if early_probe_at(gate, first_us=first_us) > self._desk.database.now():
            return
        asked = WakeForProbe(breaker=gate.name, after=self._woken.get(gate.name, 0), first_us=first_us)
        woken = await self._desk.database.write(wake_for_probe, asked)
        if woken is not None:
            self._woken[gate.name] = woken
