"""Small files, judged many at a time: while one batch is with the checking process, the next one gathers.

It knows neither pipes nor what a JUnit report is. In the gateway itself a parse would hold every other upload up.
"""

import asyncio
from collections import deque
from typing import Final, NamedTuple

from bridge.domain.junit.verdict import Verdict
from bridge.errors import Unavailable
from bridge.server.checking.inspection import BodiesQuestion
from bridge.server.checking.process import Place, ask_twice
from bridge.server.checking.treatment import Treated

MAX_FILES: Final = 8  # in one batch: with more, all uploads go from stage to stage together, and each stage waits
MAX_SIZE: Final = 1 << 20  # bytes of one batch: read in some milliseconds
MAX_WAITING: Final = 4096  # files: two seconds' work, 80 MB of ordinary ones


class _Waiting(NamedTuple):
    body: bytes
    verdict: "asyncio.Future[Verdict]"


class Batches:
    """Hands small files to the process at `place`; `close` lets those who wait go with Unavailable."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._gathered: deque[_Waiting] = deque()
        self._out: list[_Waiting] = []  # with the process
        self._work: asyncio.Task[None] | None = None

    async def check(self, body: bytes) -> Verdict:
        """Judge one file of at most MAX_SIZE bytes; raise Unavailable where the fault is the bridge's own."""
        if len(self._gathered) >= MAX_WAITING:
            raise Unavailable("Too many reports wait to be checked. Upload again in a moment.")
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._gathered.append(_Waiting(body, verdict))
        if self._work is None:
            self._work = asyncio.create_task(self._judge_all())
        return await verdict

    async def close(self) -> None:
        """Give up what is under way and let those who wait for it go."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait((self._work,))
        for waiting in (*self._out, *self._gathered):
            if not waiting.verdict.done():
                waiting.verdict.set_exception(Unavailable("The bridge is stopping. Upload again in a moment."))

    async def _judge_all(self) -> None:
        while self._gathered:
            self._out = self._next_batch()
            await self._judge(self._out)
        self._work = None

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._gathered and len(batch) < MAX_FILES and size + len(self._gathered[0].body) <= MAX_SIZE:
            waiting = self._gathered.popleft()
            if not waiting.verdict.done():  # whoever sent it may be gone
                batch.append(waiting)
                size += len(waiting.body)
        return batch

    async def _judge(self, batch: list[_Waiting]) -> None:
        try:
            verdicts = await ask_twice(self._place, BodiesQuestion([waiting.body for waiting in batch]))
        except Exception as error:  # noqa: BLE001 -- whatever it was, those who wait are told
            if len(batch) == 1 or isinstance(error, Unavailable):
                for waiting in batch:
                    if not waiting.verdict.done():
                        waiting.verdict.set_exception(error)
                return
            for waiting in batch:  # one of them is to blame: each on its own tells which
                await self._judge([waiting])
        else:
            for waiting, verdict in zip(batch, verdicts, strict=True):
                if not waiting.verdict.done():
                    waiting.verdict.set_result(verdict.accepted if isinstance(verdict, Treated) else verdict)
