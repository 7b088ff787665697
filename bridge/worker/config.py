"""What the worker uses until the next reload: clients of all upstreams, rules, and what its components share."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import structlog
from pydantic import SecretStr

from bridge.client.codearts import CodeArts, CodeArtsCheck, CodeArtsReports
from bridge.client.presigned_put import PresignedUploader
from bridge.client.testnod import TestNod
from bridge.clock import Clock
from bridge.domain.circuit_breaker import CODEARTS, OPENS_AFTER, TESTNOD, CircuitBreaker, HealthSignal, route_breaker
from bridge.domain.clock_trust import Verdict, trusting
from bridge.domain.notices import NO_SUBSCRIPTIONS, Subscriptions
from bridge.domain.policy import Policy
from bridge.domain.steps import UpstreamCall
from bridge.store.circuit_breakers import BreakerSignal, apply_breaker_signals
from bridge.store.engine.base import Database
from bridge.values import dataclass
from bridge.worker.own_faults import OwnFaults, credential_digest, unclaimed_routes
from bridge.worker.recent_calls import RecentCalls
from bridge.worker.request_rates import RequestRates

if TYPE_CHECKING:
    from bridge.worker.reconcile import BuildReconciler

NO_CREDENTIALS = SecretStr("")

log = structlog.get_logger(__name__)


class Poller(Protocol):
    """Chooses which build is polled (`worker/status_poller.py`)."""

    def wake(self, job_id: str) -> None:
        """Look at the open builds of a job now."""


class CallExecutor(Protocol):
    """Makes the calls of a step (`worker/call_executor.py`)."""

    @property
    def free_slots(self) -> int:
        """Return how many more calls to TestNod and its storage could be made now."""

    def make(self, call: UpstreamCall, reconciler: "BuildReconciler") -> Coroutine[object, object, UpstreamCall | None]:
        """Make one call and record its outcome; return the call that may follow it at once."""


@dataclass(frozen=True, kw_only=True)
class UpstreamClients:
    """The clients of all upstreams, None if an upstream is not configured, and each route's project token."""

    testnod: TestNod
    storage: PresignedUploader
    codearts: CodeArts | None
    check: CodeArtsCheck | None
    reports: CodeArtsReports | None  # set if `codearts` is
    project_tokens: Mapping[str, SecretStr]
    codearts_credentials: SecretStr = NO_CREDENTIALS  # all of them as one text, to tell gateways apart

    def token(self, route: str) -> str:
        """Return the project token of `route` for the one call that sends it."""
        return self.project_tokens[route].get_secret_value()

    @cached_property
    def credential_digests(self) -> Mapping[str, str]:
        """What stands in the ledger for the credentials in which gateways may differ, by breaker."""
        tokens = {route_breaker(route): self.token(route) for route in self.project_tokens}
        credentials = {**tokens, CODEARTS: self.codearts_credentials.get_secret_value()}
        return {name: credential_digest(name, credential) for name, credential in credentials.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerConfig:
    """What the worker uses until the next reload. A reconciler keeps the one it began with."""

    database: Database
    clock: Clock
    stopping: asyncio.Event  # once set, the step in flight ends and no other begins
    policy: Policy
    lease_us: int
    routes: tuple[str, ...]  # names of the routes that builds may wait in, sorted
    clients: UpstreamClients
    executor: CallExecutor
    newest_breakers: dict[str, CircuitBreaker] = field(default_factory=dict)  # as this process saw them last
    clock_verdict: Callable[[], Verdict] = trusting  # whether the ledger's clock is trusted
    own_faults: OwnFaults = field(default_factory=OwnFaults)
    recent_calls: RecentCalls = field(default_factory=RecentCalls)  # to TestNod
    rates: RequestRates | None = None  # of CodeArts' APIs
    poller: Poller | None = None  # None: each build polls itself
    notices: Subscriptions = NO_SUBSCRIPTIONS  # which events notices tell

    def unclaimed_routes(self) -> set[str]:
        """Return the routes whose builds are left to other gateways of the ledger."""
        faults, served = self.own_faults, (route.name for route in self.policy.routes)
        if not faults.shared:
            return set()
        rejected = faults.rejected(self.clients.credential_digests)
        return unclaimed_routes(self.routes, served, rejected, self.newest_breakers)

    async def send_signal(
        self, name: str, signal: HealthSignal, reason: str, source: int, seen: CircuitBreaker | None = None
    ) -> CircuitBreaker:
        """Write and log what a call shows of an upstream, which was `seen` so before; return its breaker."""
        faults, digests = self.own_faults, self.clients.credential_digests
        if name == TESTNOD:
            self.recent_calls.record(signal, source, self.clock.steady())
        token = digests.get(name) if faults.shared else None
        before = seen or self.newest_breakers.get(name) or CircuitBreaker(name=name)
        written = BreakerSignal(
            breaker=name,
            signal=signal,
            reason=reason,
            source=source,
            probe_delay_us=self.policy.retry_initial_delay,
            max_finalize_delay_us=self.policy.max_finalize_delay,
            token=token,
        )
        if signal is HealthSignal.SUCCESS:
            faults.accept(name)
        breaker = await self.database.write(apply_breaker_signals, written)
        self.newest_breakers[name] = breaker
        if token is not None and signal is HealthSignal.TRIP:
            if not breaker.is_open and name not in faults.rejected(digests):
                log.warning("credential_rejected", upstream=name, reason=reason)
            faults.reject(name, token, reason, self.database.now())
        log_breaker_change(before, breaker)
        return breaker


def log_breaker_change(before: CircuitBreaker, after: CircuitBreaker) -> None:
    """Log a breaker that opened or closed, with the reason why it opened, and an upstream that fails repeatedly."""
    if not before.is_open and after.is_open:
        log.warning("breaker_opened", upstream=after.name, reason=after.reason)
    elif before.is_open and not after.is_open:
        log.info("breaker_closed", upstream=after.name, reason=before.reason)
    elif after.opened_at is None and before.failures < OPENS_AFTER <= after.failures:
        log.warning("upstream_failing", upstream=after.name, reason=after.reason, failures=after.failures)
