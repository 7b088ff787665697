"""Limits calls to TestNod and its storage, and shows how many more could be made now."""

import asyncio
from types import TracebackType


class DeliverySlots:
    """Slots for `concurrency` calls at once, each taken with `async with`; those that wait take turns."""

    def __init__(self, concurrency: int) -> None:
        self._semaphore = asyncio.Semaphore(concurrency)
        self.free = concurrency

    async def __aenter__(self) -> None:
        await self._semaphore.acquire()
        self.free -= 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.free += 1
        self._semaphore.release()
