"""Watches the ledger's clock: corrects the ledger's times after it was set, and logs when it is doubted.

A machine may begin hours ahead (its hardware clock holds local time) or years behind (its battery is dead) until it
gets the right time from the network.
"""

from collections.abc import Callable

import structlog

from bridge.domain.build import SECOND
from bridge.domain.clock_trust import STEP_US, TRUSTED, ClockState, Step, Verdict
from bridge.errors import Unavailable
from bridge.store.ledger_times import Limits, ledger_time, take_back
from bridge.store.moving_back import move_back, move_on
from bridge.store.upstreams import look_by_clock
from bridge.worker.ledger_trust import LedgerTrust
from bridge.worker.visit import Desk

LOOK_EVERY_US = 5 * SECOND  # after a step nothing is visited until the ledger's times are corrected
TOLERATED_US = STEP_US

log = structlog.get_logger(__name__)


class ClockWatch:
    """One loop over the evidence in `trust`."""

    def __init__(self, desk: Desk, trust: LedgerTrust | None = None) -> None:
        self._desk = desk
        self._trust = trust or LedgerTrust(desk.database, desk.clock)
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
            await self._desk.database.write(ledger_time, None)
        while (step := self._trust.next_step()) is not None:
            await self._correct(step)
            self._trust.corrected()
        verdict = self._trust.verdict()
        if self._logged.doubted and not verdict.doubted:
            await self._desk.database.write(look_by_clock, None)
        self._log(verdict)

    async def _correct(self, step: Step) -> None:
        database, policy = self._desk.database, self._desk.policy
        seconds = abs(step.by_us) // SECOND
        if step.by_us > 0:
            moved = await database.write(move_on, step)
            log.warning("the clock was set forward, and the ledger's times with it", seconds=seconds, builds=moved)
            return
        moved = await database.write(move_back, -step.by_us)
        limits = Limits(give_up_after=policy.give_up_after, max_age=policy.max_age, idle_end=policy.idle_end)
        taken_back = await database.write(take_back, limits)
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
