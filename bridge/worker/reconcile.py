"""One worker's turn with one build: read it, decide one step, do it, write down what came of it.

A crash, a kill and a polite stop are one case: the next visit reads the same facts and goes on.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from bridge.clock import Clock
from bridge.domain.build import SECOND, Build
from bridge.domain.changes import Change, apply
from bridge.domain.circuit_breaker import (
    OPENS_AFTER,
    CircuitBreaker,
    CircuitBreakers,
    HealthSignal,
    RouteHealth,
    probe_delay_us,
)
from bridge.domain.clock_trust import Verdict, trusting
from bridge.domain.job_order import wakes_next_build
from bridge.domain.lifecycle.breaker_signals import Signals
from bridge.domain.lifecycle.context import route_of
from bridge.domain.plan import plan
from bridge.domain.policy import Policy
from bridge.domain.steps import BESIDE, Apply, Execute, Finalize, Probe, UpstreamCall, Wait
from bridge.errors import LeaseLost, Unavailable
from bridge.store.circuit_breakers import BreakerSignal, all_breakers, apply_breaker_signals, take_probe
from bridge.store.engine.base import Database
from bridge.store.fenced_writes import FencedChanges, write_changes_if_fenced
from bridge.store.leases import LeasedBuild, Release, Renewal, release, renew

SUCCESS_EVERY_US = 60 * SECOND
"""A success of an upstream that has no failures is written down this often: only its age is ever asked for."""

STEPS_A_TURN = 40  # then the build goes to the end of the queue: turns between builds are fair
RENEWALS_A_LEASE = 3  # two may fail before the lease is lost
STEPPED_US = SECOND  # until the ledger's times are corrected after a step of its clock

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconcilerContext:
    """What every visit works with."""

    database: Database
    clock: Clock
    policy: Policy
    lease_us: int
    stopping: asyncio.Event  # set: finish the step under way and begin no other
    newest_gates: dict[str, CircuitBreaker] = field(default_factory=dict)  # as any visit of this process saw them last
    trust: Callable[[], Verdict] = trusting  # in the ledger's clock


class BuildReconciler:
    """The build as this visit knows it, under the lease that was asked for at `requested_at`, by this machine's clock."""

    def __init__(self, desk: ReconcilerContext, claimed: LeasedBuild, requested_at: int) -> None:
        self.desk = desk
        self._lasts_until = requested_at + desk.lease_us  # at least
        self.build: Build = claimed.build
        self.gates: CircuitBreakers = claimed.breakers
        desk.newest_gates.update(claimed.breakers.known)
        self._due_at = claimed.due_at
        self._claimed_at = claimed.now

    def now(self) -> int:
        """Return the ledger's time in microseconds UTC."""
        return self.desk.database.now()

    def health(self) -> RouteHealth:
        """Return what the gates show of the build's route."""
        route = route_of(self.build, self.desk.policy)
        gates = replace(self.gates, clock=self.desk.trust())
        return gates.health(route, self.now()) if route else RouteHealth(total_outage_us=0)

    # -- the turn ------------------------------------------------------------------------------------------------

    async def run(self, caller: "CallExecutor") -> None:
        """Take steps until there is nothing to do now; raise LeaseLost where somebody else owns the build."""
        async with asyncio.TaskGroup() as tasks:
            keeper = tasks.create_task(self._keep_lease())
            end = await self._steps(caller)
            keeper.cancel()
        await self._release(end)

    async def _steps(self, caller: "CallExecutor") -> Wait:
        just_read = True
        for _ in range(STEPS_A_TURN):
            if self.desk.stopping.is_set():
                break
            if self.desk.clock.now() >= self._lasts_until:  # this process was stopped for a while: others go on
                raise self._lease_lost()
            trust = self.desk.trust()
            if trust.outdates(self._claimed_at, self.now()):
                return Wait(until=self.now() + STEPPED_US)
            step = plan(self.build, self.now(), self.desk.policy, replace(self.gates, clock=trust))
            match step:
                case Wait():
                    return step
                case Apply(event, changes):
                    await self.record(*changes)
                    log.info(event, **self.names())
                case Probe(gate):
                    await self._probe(gate)
                case Execute(calls):
                    if not just_read and any(isinstance(call, Finalize) for call in calls):
                        break  # reports may have come during the steps before: a run is ended on what was just read
                    await self._do(calls, caller)
            just_read = just_read and isinstance(step, Execute) and all(isinstance(call, BESIDE) for call in step.calls)
        return Wait(until=self.now())

    async def _do(self, calls: tuple[UpstreamCall, ...], caller: "CallExecutor") -> None:
        async with asyncio.TaskGroup() as tasks:
            for call in calls:
                tasks.create_task(caller.make(call, self))

    async def _probe(self, name: str) -> None:
        policy = self.desk.policy
        gate = self.gates.known[name]
        next_us = probe_delay_us(gate, self.now(), first_us=policy.first_delay, max_us=policy.max_delay)
        if await self.desk.database.write(take_probe, (name, next_us)):
            self.gates = replace(self.gates, probing=self.gates.probing | {name})
        else:
            self.gates = replace(await self.desk.database.read(all_breakers), probing=self.gates.probing)

    # -- what is written down ------------------------------------------------------------------------------------

    async def record(self, *changes: Change) -> tuple[Change, ...]:
        """Write changes under the fence and take them over; return them with their new ids."""
        fenced = FencedChanges(build_id=self.build.id, fencing_token=self.build.fencing_token, changes=changes)
        written = await self.desk.database.write(write_changes_if_fenced, fenced)
        if written is None:
            raise LeaseLost(f"Build {self.build.job_id}/{self.build.build_no} has a newer owner. Nothing was written.")
        self.take_over(*written)
        return written

    def take_over(self, *changes: Change) -> None:
        """Let the build in memory follow what was written."""
        self.build = apply(self.build, changes)

    async def tell(self, signals: Signals) -> None:
        """Write down what an answer shows of its upstream, if that is news."""
        for name, signal, reason in signals:
            before = self.desk.newest_gates.get(name) or CircuitBreaker(name=name)
            if signal is HealthSignal.SUCCESS and name not in self.gates.probing and not self._is_news(before):
                continue
            told = BreakerSignal(
                breaker=name,
                signal=signal,
                reason=reason,
                source=self.build.id,
                probe_delay_us=self.desk.policy.first_delay,
                hold_run_us=self.desk.policy.hold_run,
            )
            after = await self.desk.database.write(apply_breaker_signals, told)
            self.desk.newest_gates[name] = after
            known = {**self.gates.known, name: after}
            self.gates = replace(self.gates, known=known, probing=self.gates.probing - {name})
            log_change(before, after)

    def _is_news(self, gate: CircuitBreaker) -> bool:
        """Return whether a success changes what is known of the gate."""
        known = self.gates.known.get(gate.name) or gate
        recent = gate.succeeded_at is not None and self.now() - gate.succeeded_at < SUCCESS_EVERY_US
        return gate.failures > 0 or known.failures > 0 or not recent

    async def _release(self, end: Wait) -> None:
        released = Release(
            build_id=self.build.id,
            fencing_token=self.build.fencing_token,
            report_seq=self.build.report_seq,
            due_at=self._due_at,
            until=end.until,
            waiting_on=end.waiting_on,
            blocked_reason=end.blocked_reason,
            wakes_next=wakes_next_build(self.build, end),
        )
        await self.desk.database.write(release, released)

    async def _keep_lease(self) -> None:
        """Renew the lease while a step runs; raise LeaseLost, which cuts off the calls, where that fails."""
        never = asyncio.Event()
        renewal = Renewal(build_id=self.build.id, fencing_token=self.build.fencing_token, lease_us=self.desk.lease_us)
        held = True
        while held and self.desk.clock.now() < self._lasts_until:
            await self.desk.clock.wait(never, self.desk.clock.now() + self.desk.lease_us // RENEWALS_A_LEASE)
            renewed_at = self.desk.clock.now()
            try:
                async with asyncio.timeout(max(0, self._lasts_until - renewed_at) / SECOND):
                    held = await self.desk.database.write(renew, renewal)
            except (Unavailable, TimeoutError):  # it is there again before the lease has run out, or the lease is lost
                continue
            self._lasts_until = renewed_at + self.desk.lease_us
        raise self._lease_lost()

    def _lease_lost(self) -> LeaseLost:
        return LeaseLost(f"The lease of build {self.build.job_id}/{self.build.build_no} could not be renewed.")

    def names(self) -> dict[str, object]:
        """Return what names this build in a log line."""
        return {"job_id": self.build.job_id, "build_no": self.build.build_no, "fencing_token": self.build.fencing_token}


def log_change(before: CircuitBreaker, after: CircuitBreaker) -> None:
    """Log a gate that opened or closed, and one whose calls have begun to fail again and again."""
    if before.failing_since != after.failing_since:
        log.warning("gate closed" if after.failing_since else "gate opened", gate=after.name, reason=after.reason)
    elif after.failing_since is None and before.failures < OPENS_AFTER <= after.failures:
        log.warning("calls keep failing", gate=after.name, reason=after.reason, failures=after.failures)


class CallExecutor(Protocol):
    """Makes the calls of a visit: worker/call_executor.py."""

    async def make(self, call: UpstreamCall, visit: BuildReconciler) -> None: ...
