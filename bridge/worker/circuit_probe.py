"""Probe upstreams whose circuit breaker is open: one small call shows whether an upstream works again.

TestNod and the projects of routes are probed by a finalize of a build_id that never exists, which changes nothing
there. All other upstreams are probed by a build's own call; the prober wakes the build whose turn it is.
"""

from collections.abc import Callable

import structlog

from bridge.domain.circuit_breaker import (
    OPENS_AFTER,
    PROBER,
    RESTORE_PAUSE,
    TESTNOD,
    CircuitBreaker,
    HealthSignal,
    breakers_of,
    early_probe_at,
    is_of_route,
    probe_delay_us,
    route_breaker,
)
from bridge.domain.instants import SECOND, ZERO, Duration
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
from bridge.worker.config import WorkerConfig, log_breaker_change

REMOVED_ROUTES_INTERVAL_US = Duration(60 * SECOND)
"""A reconciler with former settings, or another gateway, may close the breaker of a removed route once more."""

PROBE_INTERVAL_US = SECOND  # a breaker that just opened is seen this soon; its row says when a probe is due

NO_TOKEN = ""
"""Stands for the token of a route that a gateway does not have; another gateway may have it."""

SUSPECT_PROBE_INTERVAL_US = Duration(5 * SECOND)
"""TestNod is probed this often while one build alone meets failures: is it TestNod, or that build?"""

log = structlog.get_logger(__name__)


async def trip_breakers_of_removed_routes(database: Database, policy: Policy) -> None:
    """Open the breaker of a removed route while builds still need it, so that operators see it.

    Their clocks for giving up and for delaying a finalize then stand still. If no build needs a removed route, close
    its breaker: no other component would, and it is no outage.
    """
    configured = {route.name for route in policy.routes}
    in_use, breakers = await database.read(routes_in_use), await database.read(all_breakers)
    for route in sorted(in_use - configured):
        name = route_breaker(route)
        if breakers.open_breaker(name) is None:
            reason = "It is not in the settings."
            trip = BreakerSignal(
                breaker=name,
                signal=HealthSignal.TRIP,
                reason=reason,
                probe_delay_us=ZERO,
                token=NO_TOKEN if database.shared else None,
            )
            log_breaker_change(CircuitBreaker(name=name), await database.write(apply_breaker_signals, trip))
    needed = {name for route in configured | in_use for name in breakers_of(route)}
    for name in sorted(name for name in breakers.known if is_of_route(name) and name not in needed):
        if breakers.open_breaker(name) is not None:
            success = BreakerSignal(breaker=name, signal=HealthSignal.SUCCESS, reason="", probe_delay_us=ZERO)
            log_breaker_change(breakers.known[name], await database.write(apply_breaker_signals, success))


class CircuitProber:
    """One loop over all breakers that are open or about to open. `config` returns what each probe uses."""

    def __init__(self, config: Callable[[], WorkerConfig]) -> None:
        self._config = config
        self._database, self._clock, self._stopping = config().database, config().clock, config().stopping
        self._check_routes_at = 0
        self._request_date_at = 0
        self._suspect_probed_at: dict[str, int] = {}  # by breaker
        self._last_woken: dict[str, int] = {}  # by breaker, the build that was woken last; turns continue from there

    async def run(self, beat: Callable[[], None]) -> None:
        """Probe until the worker stops."""
        while not self._stopping.is_set():
            beat()
            try:
                await self.probe_due(beat)
            except Unavailable as error:
                log.warning("ledger_read_retried", error=str(error))
            await self._clock.wait(self._stopping, self._clock.now() + PROBE_INTERVAL_US)

    async def probe_due(self, beat: Callable[[], None] = lambda: None) -> None:
        """Probe each upstream whose probe is due; once a minute, look for routes that were removed."""
        now = self._clock.now()
        if not now < self._check_routes_at <= now + REMOVED_ROUTES_INTERVAL_US:  # later: the clock was set back
            self._check_routes_at = now + REMOVED_ROUTES_INTERVAL_US
            await trip_breakers_of_removed_routes(self._database, self._config().policy)
        troubled = await self._database.read(troubled_breakers)
        self._update_newest(troubled)
        if any(breaker.name == RESTORE_PAUSE for breaker in troubled):
            return
        await self._request_date(now)
        for breaker in troubled:
            if breaker.name == TESTNOD or breaker.name.startswith(route_breaker("")):
                await self._probe_if_due(breaker)
            elif breaker.opened_at is not None:
                await self._wake_build(breaker)
            beat()
        await self._probe_rejected_tokens()

    def _update_newest(self, troubled: list[CircuitBreaker]) -> None:
        """Show the dispatcher which breakers other gateways have opened and closed."""
        newest = self._config().newest_breakers
        newest |= {
            name: CircuitBreaker(name=name, succeeded_at=breaker.succeeded_at)
            for name, breaker in newest.items()
            if breaker.is_open
        }
        newest |= {breaker.name: breaker for breaker in troubled}

    async def _probe_rejected_tokens(self) -> None:
        """Probe routes whose token only this gateway has, and TestNod rejects: no breaker is open for them."""
        config = self._config()
        for name, rejected in config.own_faults.rejected(config.clients.credential_digests).items():
            breaker = config.newest_breakers.get(name) or CircuitBreaker(name=name)
            route = self._route_to_probe(breaker)
            if route is not None and not breaker.is_open and rejected.probe_is_due(self._database.now()):
                await self._probe(breaker, route)

    async def _probe_if_due(self, breaker: CircuitBreaker) -> None:
        route, now = self._route_to_probe(breaker), self._database.now()
        if route is None:
            return
        if self._rejects_others_only(breaker):
            await self._probe_suspect(breaker, route, now)
        elif breaker.opened_at is None:  # calls fail, but too few to open it
            if breaker.name == TESTNOD and breaker.failures >= OPENS_AFTER:
                await self._probe_suspect(breaker, route, now)
        elif breaker.probe_at is not None and breaker.probe_at <= now:
            policy = self._config().policy
            next_us = probe_delay_us(breaker, now, first_us=policy.retry_initial_delay, max_us=policy.retry_max_delay)
            if await self._database.write(take_probe, (breaker.name, next_us)):
                await self._probe(breaker, route)

    async def _probe_suspect(self, breaker: CircuitBreaker, route: str, now: int) -> None:
        next_at = self._suspect_probed_at.get(breaker.name, 0) + SUSPECT_PROBE_INTERVAL_US
        if not now < next_at <= now + SUSPECT_PROBE_INTERVAL_US:  # later: the clock was set back
            self._suspect_probed_at[breaker.name] = now
            await self._probe(breaker, route)

    def _rejects_others_only(self, breaker: CircuitBreaker) -> bool:
        """Return whether a route's breaker was tripped for the token of another gateway, and this one's may work."""
        if breaker.name == TESTNOD or breaker.rejected_token is None:
            return False
        config = self._config()
        digests = config.clients.credential_digests
        return breaker.rejected_token != digests.get(breaker.name) and breaker.name not in config.own_faults.rejected(
            digests
        )

    async def _request_date(self, now: int) -> None:
        """Probe TestNod if the clock is not trusted and no upstream has answered: the answer's Date is evidence."""
        config = self._config()
        waits = now < self._request_date_at <= now + REMOVED_ROUTES_INTERVAL_US
        if not config.policy.routes or not config.clock_verdict().wants_date or waits:
            return
        self._request_date_at = now + REMOVED_ROUTES_INTERVAL_US
        await config.clients.testnod.probe(config.clients.token(config.policy.routes[0].name))

    def _route_to_probe(self, breaker: CircuitBreaker) -> str | None:
        """Return the route whose token the probe sends; None if a probe would show nothing."""
        routes = [route.name for route in self._config().policy.routes]
        if breaker.name == TESTNOD:
            return next(iter(routes), None)
        return next((route for route in routes if route_breaker(route) == breaker.name), None)

    async def _probe(self, breaker: CircuitBreaker, route: str) -> None:
        config = self._config()
        if route not in config.clients.project_tokens:  # a reload has removed it since the probe was taken
            return
        outcome = await config.clients.testnod.probe(config.clients.token(route))
        for name, signal, reason in of_testnod(outcome, route):
            await config.send_signal(name, signal, reason, PROBER, breaker if name == breaker.name else None)

    async def _wake_build(self, breaker: CircuitBreaker) -> None:
        """Wake the build whose turn it is to probe the upstream, if a probe is due."""
        first_us = self._config().policy.retry_initial_delay
        if early_probe_at(breaker, first_us=first_us) > self._database.now():
            return
        wake = WakeForProbe(breaker=breaker.name, after=self._last_woken.get(breaker.name, 0), first_us=first_us)
        woken = await self._database.write(wake_for_probe, wake)
        if woken is not None:
            self._last_woken[breaker.name] = woken
