"""Tells the other gateways of a PostgreSQL ledger that there is work, and hears it from them: LISTEN and NOTIFY.

It knows no work. A nudge that is lost costs a second or two: everybody looks by themselves, as they do behind a
PgBouncer, where nothing can be listened for.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.domain.retry import delay_us
from bridge.store.engine.postgres_connection import LOST, LedgerUnreachable, connect

CHANNEL = "bridge"
TELL_EVERY_US = SECOND // 4  # to others, at most: commits of notifications stand in one line in PostgreSQL
LOOK_EVERY_US = 15 * SECOND  # whether the connection still lives, and to be seen alive
FIRST_DELAY_US = SECOND
MAX_DELAY_US = 60 * SECOND
QUERY_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(kw_only=True, slots=True)
class Notifier:
    """One loop over one connection; `hear` is called for every nudge of another gateway."""

    url: str
    clock: Clock
    hear: Callable[[], None]
    stopping: asyncio.Event
    _told: asyncio.Event = field(default_factory=asyncio.Event)
    _failures: int = 0  # since it last heard

    def tell(self) -> None:
        """Have the other gateways look at the ledger soon."""
        self._told.set()

    async def run(self, beat: Callable[[], None]) -> None:
        """Tell and hear until it is time to stop, over connections made anew as they are lost."""
        while not self.stopping.is_set():
            beat()
            try:
                await self._connected(beat)
            except (LedgerUnreachable, *LOST) as error:
                self._failures += 1
                if self._failures == 1:
                    log.warning("nudges of other gateways are not heard", reason=type(error).__name__)
                pause = delay_us(self._failures, first_us=FIRST_DELAY_US, max_us=MAX_DELAY_US, salt=CHANNEL)
                await self.clock.wait(self.stopping, self.clock.now() + pause)

    async def _connected(self, beat: Callable[[], None]) -> None:
        connection = await connect(self.url)
        try:
            own = connection.get_server_pid()
            async with asyncio.timeout(QUERY_SECONDS):
                await connection.add_listener(CHANNEL, lambda _c, pid, _channel, _payload: self._heard(pid, own))
            self._failures = 0
            while not self.stopping.is_set():
                beat()
                await self.clock.wait(self._told, self.clock.now() + LOOK_EVERY_US)
                async with asyncio.timeout(QUERY_SECONDS):
                    if self._told.is_set():
                        self._told.clear()
                        await connection.execute(f"NOTIFY {CHANNEL}")
                    else:
                        await connection.execute("SELECT 1")
                await self.clock.wait(self.stopping, self.clock.now() + TELL_EVERY_US)
        finally:
            connection.terminate()

    def _heard(self, pid: int, own: int) -> None:
        if pid != own:
            self.hear()
