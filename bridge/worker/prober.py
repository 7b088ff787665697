"""Probes of closed gates: one small call finds out whether TestNod, or the project of a route, is there again.

It knows no build. The probe is a finalize of a build_id that never exists: it leaves nothing behind. Storage and
CodeArts are probed by a build's own calls instead.
"""

from collections.abc import Callable

import structlog

from bridge.domain.backoff import delay_us
from bridge.domain.effects.signals import of_testnod
from bridge.domain.gates import HELD, TESTNOD, Gate, route_gate
from bridge.errors import Unavailable
from bridge.store.upstreams import Told, closed_gates, take_probe, tell
from bridge.worker.absent import tend_absent_routes
from bridge.worker.shift import Shift

TEND_EVERY_US = 60_000_000
"""A visit that began before its route went away may open the gate once more; a gateway with other settings may too."""

LOOK_EVERY_US = 1_000_000  # a gate that another visit closed is probed that soon; the ledger says when it is due

log = structlog.get_logger(__name__)


class Prober:
    """One loop over the closed gates of TestNod and its projects; `shift` says what each probe goes by."""

    def __init__(self, shift: Callable[[], Shift]) -> None:
        self._shift = shift
        self._desk = shift().desk  # ledger, clock and stopping, which last
        self._tend_again_at = 0
        self._date_again_at = 0

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
        """Probe every closed gate whose time has come; now and then, look after those of routes that are gone."""
        now = self._desk.clock.now()
        if not now < self._tend_again_at <= now + TEND_EVERY_US:  # later than that: the clock was set back
            self._tend_again_at = now + TEND_EVERY_US
            await tend_absent_routes(self._desk.database, self._shift().desk.policy)
        closed = await self._desk.database.read(closed_gates)
        if any(gate.name == HELD for gate in closed):
            return
        await self._ask_for_date(now)
        for gate in closed:
            if gate.probe_at is None or gate.probe_at > self._desk.database.now():
                continue
            if route := self._route_to_ask(gate):
                await self._probe(gate, route)
                beat()

    async def _ask_for_date(self, now: int) -> None:
        """Have TestNod answer if the clock is suspect and no upstream has: its Date then speaks for or against it."""
        shift = self._shift()
        routes = shift.desk.policy.routes
        if not routes or not shift.desk.trust().wants_date or now < self._date_again_at <= now + TEND_EVERY_US:
            return
        self._date_again_at = now + TEND_EVERY_US
        await shift.upstreams.testnod.probe(shift.upstreams.token(routes[0].name))

    def _route_to_ask(self, gate: Gate) -> str | None:
        """Return the route whose token the probe is made with; None where a probe would say nothing."""
        routes = [route.name for route in self._shift().desk.policy.routes]
        if gate.name == TESTNOD:
            return next(iter(routes), None)
        return next((route for route in routes if route_gate(route) == gate.name), None)

    async def _probe(self, gate: Gate, route: str) -> None:
        shift = self._shift()
        policy = shift.desk.policy
        next_us = delay_us(gate.probes + 2, first_us=policy.first_delay, max_us=policy.max_delay, salt=gate.name)
        if not await self._desk.database.write(take_probe, (gate.name, next_us)):
            return
        outcome = await shift.upstreams.testnod.probe(shift.upstreams.token(route))
        for name, signal, reason in of_testnod(outcome, route):
            told = Told(gate=name, signal=signal, reason=reason, probe_delay_us=next_us, hold_run_us=policy.hold_run)
            after = await self._desk.database.write(tell, told)
            if name == gate.name and after.failing_since is None:
                log.info("gate opened", gate=gate.name)
