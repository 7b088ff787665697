"""Notifies the other gateways of a PostgreSQL ledger of new work, and receives their notifications (LISTEN, NOTIFY).

A lost notification costs a second or two: every gateway also polls for due builds, as it does behind a PgBouncer, which
does not support LISTEN.
"""

import asyncio
from collections.abc import Callable
from dataclasses import field
from typing import Final

import structlog

from bridge.clock import Clock
from bridge.domain.instants import SECOND
from bridge.domain.retry import delay_us
from bridge.store.engine.postgres import LOST, LedgerUnreachable, connect
from bridge.values import dataclass

CHANNEL: Final = "bridge"
NOTIFY_INTERVAL_US: Final = SECOND // 4
"""At most one notification in this time: PostgreSQL serializes the commits of notifications."""

KEEPALIVE_US: Final = 15 * SECOND
"""How often the connection is checked, and the loop reports that it is alive."""

FIRST_DELAY_US: Final = SECOND
MAX_DELAY_US: Final = 60 * SECOND
QUERY_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


@dataclass(kw_only=True, slots=True)
class Notifier:
    """One loop over one connection; `notified` is called for every notification of another gateway."""

    url: str
    clock: Clock
    notified: Callable[[], None]
    stopping: asyncio.Event
    _requested: asyncio.Event = field(default_factory=asyncio.Event)
    _failures: int = 0  # since the last working connection

    def notify(self) -> None:
        """Have the other gateways look for due builds soon."""
        self._requested.set()

    async def run(self, beat: Callable[[], None]) -> None:
        """Send and receive until `stopping` is set; reconnect with a back-off when the connection is lost."""
        while not self.stopping.is_set():
            beat()
            try:
                await self._run_connected(beat)
            except (LedgerUnreachable, *LOST) as error:
                self._failures += 1
                if self._failures == 1:
                    log.warning("notifications_lost", reason=type(error).__name__)
                pause = delay_us(self._failures, first_us=FIRST_DELAY_US, max_us=MAX_DELAY_US, salt=CHANNEL)
                await self.clock.wait(self.stopping, self.clock.now() + pause)

    async def _run_connected(self, beat: Callable[[], None]) -> None:
        connection = await connect(self.url)
        try:
            own = connection.get_server_pid()
            async with asyncio.timeout(QUERY_SECONDS):
                await connection.add_listener(CHANNEL, lambda _c, pid, _channel, _payload: self._receive(pid, own))
            self._failures = 0
            while not self.stopping.is_set():
                beat()
                await self.clock.wait(self._requested, self.clock.now() + KEEPALIVE_US)
                async with asyncio.timeout(QUERY_SECONDS):
                    if self._requested.is_set():
                        self._requested.clear()
                        await connection.execute(f"NOTIFY {CHANNEL}")
                    else:
                        await connection.execute("SELECT 1")
                await self.clock.wait(self.stopping, self.clock.now() + NOTIFY_INTERVAL_US)
        finally:
            connection.terminate()

    def _receive(self, pid: int, own: int) -> None:
        if pid != own:
            self.notified()
