"""How many calls of one kind may be in progress at once, over all builds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PATIENCE_SECONDS = 0.25
"""A burst of quick calls is over by then; a call that finds no slot for longer meets a slow upstream."""


class CallSlots:
    """`count` slots. A call waits for one only briefly: reconcilers must not all wait for one slow upstream."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[bool]:
        """Hold a slot, or yield False if none came free in `PATIENCE_SECONDS`."""
        if not await self._take():
            yield False
            return
        try:
            yield True
        finally:
            self._free.release()

    async def _take(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if self._free.locked() else None):
                return await self._free.acquire()
        except TimeoutError:
            return False
