"""Notices that this machine's clock was set back, and has the ledger's times moved back with it.

It knows neither which times these are nor whose turn they decide. A machine may begin hours ahead (its hardware clock
holds local time) until it hears of the right time.
"""

from collections.abc import Callable

import structlog

from bridge.domain.build import SECOND
from bridge.errors import Unavailable
from bridge.store.moving_back import move_back
from bridge.worker.visit import Desk

LOOK_EVERY_US = 10 * SECOND
TOLERATED_US = 60 * SECOND  # nothing waits longer for a smaller step than for a back-off

log = structlog.get_logger(__name__)


class ClockWatch:
    """One loop for a ledger whose time is this machine's."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._ahead_us = self._now_ahead()

    async def run(self, beat: Callable[[], None]) -> None:
        """Look until the desk stops."""
        while not self._desk.stopping.is_set():
            beat()
            try:
                await self.look()
            except Unavailable as error:
                log.warning("the ledger's times are moved back later", error=str(error))
            await self._desk.clock.wait(self._desk.stopping, self._desk.clock.now() + LOOK_EVERY_US)

    async def look(self) -> None:
        """Compare both clocks; raise Unavailable where times must be moved and cannot be: the next look does it."""
        ahead_us = self._now_ahead()
        back_us = self._ahead_us - ahead_us
        if back_us > TOLERATED_US:
            moved = await self._desk.database.write(move_back, back_us)
            seconds = back_us // SECOND
            log.warning("the clock was set back, and the ledger's times with it", seconds=seconds, builds=moved)
        if back_us < 0 or back_us > TOLERATED_US:  # small steps back add up
            self._ahead_us = ahead_us

    def _now_ahead(self) -> int:
        return self._desk.clock.now() - self._desk.clock.steady()
