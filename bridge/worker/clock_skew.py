"""Watches the ledger's clock: corrects the ledger's times after it was set, and logs when it is doubted.

A machine may begin hours ahead (its hardware clock holds local time) or years behind (its battery is dead) until it
gets the right time from the network.
"""

from collections.abc import Callable
from dataclasses import replace

import structlog

from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.domain.clock_trust import STEP_US, TRUSTED, ClockState, ClockTrust, Step, Verdict
from bridge.errors import Unavailable
from bridge.store.circuit_breakers import wake_builds_waiting_for_clock
from bridge.store.clock_skew import RetryWindow, ledger_time, move_back, move_on, revert_early_ends, times_in_ledger
from bridge.store.engine.base import Database
from bridge.worker.reconcile import ReconcilerContext

# Collects what speaks for and against the ledger's clock while the gateway runs: `verdict` returns what follows.


SET = Verdict(state=ClockState.STEPPED, reason="The clock was set, and the times in the ledger are corrected first.")


class LedgerClockCheck:
    """The evidence on the clock of `database`; every question looks at the clock first, so that no step is missed."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._trust = ClockTrust.begun(database.now(), clock.steady())
        self._steps: list[Step] = []
        self._corrected_at: int | None = None

    async def begin(self) -> None:
        """Read what the ledger's own times tell; to be called once, before anything is written."""
        await self._database.transact(ledger_time)  # a shared ledger's time is known from writes
        at_start = await self._database.read(times_in_ledger)
        self._trust = ClockTrust.begun(self._database.now(), self._clock.steady(), at_start)

    def heard(self, upstream: str, at: int) -> None:
        """Take in that `upstream` answered just now, and that it was `at` (microseconds UTC) by its clock."""
        self._look()
        self._trust = self._trust.heard(upstream, at, self._clock.steady())

    def verdict(self) -> Verdict:
        """Return whether the ledger's clock is trusted now."""
        self._look()
        steady = self._clock.steady()
        awaited = self._steps or self._trust.correction(steady) is not None
        return replace(SET if awaited else self._trust.verdict(steady), corrected_at=self._corrected_at)

    def next_step(self) -> Step | None:
        """Return the step by which the ledger's times are to be corrected next; None if there is none."""
        self._look()
        return self._steps[0] if self._steps else self._trust.correction(self._clock.steady())

    def corrected(self) -> None:
        """Take in that the ledger's times were corrected by the step that `next_step` returned."""
        self._corrected_at = self._database.now()
        if self._steps:
            del self._steps[0]
        else:
            self._trust = self._trust.corrected()

    def _look(self) -> None:
        self._trust, step = self._trust.looked(self._database.now(), self._clock.steady())
        if step is not None:
            self._steps.append(step)


LOOK_EVERY_US = 5 * SECOND  # after a step nothing is visited until the ledger's times are corrected
TOLERATED_US = STEP_US

log = structlog.get_logger(__name__)


class ClockSkewMonitor:
    """One loop over the evidence in `trust`."""

    def __init__(self, desk: ReconcilerContext, trust: LedgerClockCheck | None = None) -> None:
        self._desk = desk
        self._trust = trust or LedgerClockCheck(desk.database, desk.clock)
        self._logged = TRUSTED

    async def run(self, beat: Callable[[], None]) -> None:
        """Look until the desk stops."""
        while not self._desk.stopping.is_set():
            beat()
            try:
                await self.look()
            except Unavailable as error:
                log.warning("the ledger's times are corrected later", error=str(error))
            await self._desk.clock.wait(self._desk.stopping, self._desk.clock.now() + LOOK_EVERY_US)

    async def look(self) -> None:
        """Look at the clock once; raise Unavailable if times must be corrected and cannot be: the next look does it."""
        if self._desk.database.shared:  # what a gateway knows of a database's clock is from its last write
            await self._desk.database.transact(ledger_time)
        while (step := self._trust.next_step()) is not None:
            await self._correct(step)
            self._trust.corrected()
        verdict = self._trust.verdict()
        if self._logged.doubted and not verdict.doubted:
            await self._desk.database.transact(wake_builds_waiting_for_clock)
        self._log(verdict)

    async def _correct(self, step: Step) -> None:
        database, policy = self._desk.database, self._desk.policy
        seconds = abs(step.by_us) // SECOND
        if step.by_us > 0:
            moved = await database.write(move_on, step)
            log.warning("the clock was set forward, and the ledger's times with it", seconds=seconds, builds=moved)
            return
        moved = await database.write(move_back, -step.by_us)
        limits = RetryWindow(give_up_after=policy.give_up_after, max_age=policy.max_age, idle_end=policy.idle_end)
        taken_back = await database.write(revert_early_ends, limits)
        log.warning(
            "the clock was set back, and the ledger's times with it",
            seconds=seconds,
            builds=moved,
            taken_back=taken_back,
        )

    def _log(self, verdict: Verdict) -> None:
        if verdict.state is self._logged.state and verdict.wants_date is self._logged.wants_date:
            return
        if verdict.state is ClockState.SUSPECT:
            log.warning("the clock is doubted, so nothing is given up or deleted for its age", reason=verdict.reason)
        elif self._logged.state is ClockState.SUSPECT:
            log.info("the clock is no longer doubted")
        self._logged = verdict
