"""Check the ledger's clock: correct the ledger's times after the clock was set, and log if it is not trusted.

A machine may start hours ahead (its hardware clock holds local time) or years behind (its battery is empty) until it
gets the right time from the network.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from bridge.clock import Clock
from bridge.domain.clock_trust import STEP_US, TRUSTED, ClockState, ClockTrust, Step, Verdict
from bridge.domain.instants import SECOND, Duration
from bridge.domain.policy import Policy
from bridge.errors import Unavailable
from bridge.store.circuit_breakers import wake_builds_waiting_for_clock
from bridge.store.clock_skew import RetryWindow, ledger_time, move_back, move_on, revert_early_ends, times_in_ledger
from bridge.store.engine.base import Database

CHECK_INTERVAL_US = Duration(5 * SECOND)  # after a step no build is reconciled until the ledger's times are corrected
TOLERATED_US = STEP_US
STEPPED = Verdict(
    state=ClockState.STEPPED, reason="The clock was set, and the times in the ledger are corrected first."
)

log = structlog.get_logger(__name__)


class LedgerClockCheck:
    """The evidence for and against the clock of `database`. Every method first checks whether the clock was set."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._trust = ClockTrust.started(database.now(), clock.steady())
        self._steps: list[Step] = []
        self._corrected_at: int | None = None

    async def start(self) -> None:
        """Read the ledger's own times as evidence. Call this once, before anything is written."""
        await self._database.transact(ledger_time)  # the time of a shared ledger is known from writes
        at_start = await self._database.read(times_in_ledger)
        self._trust = ClockTrust.started(self._database.now(), self._clock.steady(), at_start)

    def record_date(self, upstream: str, at: int) -> None:
        """Record that `upstream` has just answered with the time `at` (microseconds UTC)."""
        self._detect_step()
        self._trust = self._trust.with_date(upstream, at, self._clock.steady())

    def check(self) -> Verdict:
        """Check the clock and return whether it is trusted."""
        self._detect_step()
        steady = self._clock.steady()
        uncorrected = self._steps or self._trust.correction(steady) is not None
        verdict = STEPPED if uncorrected else self._trust.verdict(steady)
        return verdict if self._corrected_at is None else replace(verdict, corrected_at=self._corrected_at)

    def check_step(self) -> Step | None:
        """Check the clock and return the step by which the ledger's times must be corrected next, if any."""
        self._detect_step()
        return self._steps[0] if self._steps else self._trust.correction(self._clock.steady())

    def mark_corrected(self) -> None:
        """Record that the ledger's times were corrected by the step that `check_step` returned."""
        self._corrected_at = self._database.now()
        if self._steps:
            del self._steps[0]
        else:
            self._trust = self._trust.after_correction()

    def _detect_step(self) -> None:
        self._trust, step = self._trust.after_reading(self._database.now(), self._clock.steady())
        if step is not None:
            self._steps.append(step)


class ClockSkewMonitor:
    """One loop that corrects the ledger's times and logs whether its clock is trusted."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        stopping: asyncio.Event,
        policy: Callable[[], Policy],
        check: LedgerClockCheck | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._stopping = stopping
        self._policy = policy
        self._check = check or LedgerClockCheck(database, clock)
        self._logged = TRUSTED

    async def run(self, beat: Callable[[], None]) -> None:
        """Check the clock until the worker stops."""
        while not self._stopping.is_set():
            beat()
            try:
                await self.check()
            except Unavailable as error:
                log.warning("clock_correction_postponed", error=str(error))
            await self._clock.wait(self._stopping, self._clock.now() + CHECK_INTERVAL_US)

    async def check(self) -> None:
        """Check the clock once; raise Unavailable if a correction cannot be written, which the next check repeats."""
        if self._database.shared:  # the time of a shared ledger is known from the last write
            await self._database.transact(ledger_time)
        while (step := self._check.check_step()) is not None:
            await self._correct(step)
            self._check.mark_corrected()
        verdict = self._check.check()
        if self._logged.doubted and not verdict.doubted:
            await self._database.transact(wake_builds_waiting_for_clock)
        self._log(verdict)

    async def _correct(self, step: Step) -> None:
        database, policy, seconds = self._database, self._policy(), abs(step.by_us) // SECOND
        if step.by_us > 0:
            builds = await database.write(move_on, step)
            log.warning("clock_stepped_forward", seconds=seconds, builds=builds)
            return
        builds = await database.write(move_back, -step.by_us)
        limits = RetryWindow(
            give_up_after=policy.give_up_after, max_age=policy.max_age, idle_timeout=policy.idle_timeout
        )
        taken_back = await database.write(revert_early_ends, limits)
        log.warning("clock_stepped_back", seconds=seconds, builds=builds, taken_back=taken_back)

    def _log(self, verdict: Verdict) -> None:
        if verdict.state is self._logged.state and verdict.wants_date is self._logged.wants_date:
            return
        if verdict.state is ClockState.SUSPECT:
            log.warning("clock_distrusted", reason=verdict.reason)
        elif self._logged.state is ClockState.SUSPECT:
            log.info("clock_trusted")
        self._logged = verdict
