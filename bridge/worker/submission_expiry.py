"""Report uploads failed that were registered through TestNod's API and whose files never came."""

import asyncio
from collections.abc import Callable

import structlog

from bridge.clock import Clock
from bridge.domain.clock_trust import ClockState, Verdict, trusting
from bridge.domain.instants import SECOND, Duration
from bridge.errors import BridgeError
from bridge.store.engine.base import Database
from bridge.store.submissions import EXPIRED_LIMIT, fail_expired, next_expiry
from bridge.values import dataclass

INTERVAL_US = Duration(5 * SECOND)  # URLs are valid for minutes
UNSUSPECTED = frozenset({ClockState.TRUSTED, ClockState.UNPROVEN})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmissionExpiry:
    """One loop that gives registered uploads up; `wake` wakes the dispatchers, which then report them to TestNod.

    A clock against which a sign speaks gives nothing up: the client may still have time.
    """

    database: Database
    clock: Clock
    stopping: asyncio.Event
    wake: Callable[[], None]
    clock_verdict: Callable[[], Verdict] = trusting

    async def run(self, beat: Callable[[], None]) -> None:
        """Look for expired uploads every few seconds until the worker stops."""
        while not self.stopping.is_set():
            beat()
            try:
                await self.expire()
            except BridgeError as error:
                log.warning("submission_expiry_postponed", error=str(error))
            await self.clock.wait(self.stopping, self.clock.now() + INTERVAL_US)

    async def expire(self) -> None:
        """Give up every registered upload whose time is over."""
        while self.clock_verdict().state in UNSUSPECTED:
            at = await self.database.read(next_expiry)
            if at is None or at > self.database.now():
                return
            count = await self.database.transact(fail_expired)
            if count:
                self.wake()
                log.warning("submissions_expired", count=count)
            if count < EXPIRED_LIMIT:
                return
