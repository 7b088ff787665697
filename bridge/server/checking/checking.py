"""Checks reports in processes of their own, so that a hostile file hurts nobody but itself.

Bytes or a path in, verdict out, and where a route asks for it another file. It knows deadlines and queues; what a
JUnit report is, the gate knows.
"""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bridge.domain.junit.verdict import Refused, Verdict
from bridge.errors import Unavailable
from bridge.server.checking.batch import Batches
from bridge.server.checking.inspection import FileQuestion
from bridge.server.checking.process import Place, ask_twice
from bridge.server.checking.treatment import Treated, Treatment

MAX_WAITING: Final = 256  # files in the queue: at ten a second, more would outlast their callers' patience


class Checker:
    """Checking processes, at most so many: `async with Checker(workers=2) as checker: …`.

    `workers` read files one by one; one more, which is there from the start, takes small ones, many at a time.
    """

    def __init__(self, *, workers: int = 2) -> None:
        self._places = [Place() for _ in range(workers)]
        self._free: asyncio.LifoQueue[Place] = asyncio.LifoQueue()  # last in, first out: what is idle stays swapped out
        self._waiting = 0
        self._small = Place()
        self._batches = Batches(self._small)

    async def __aenter__(self) -> Self:
        await self._small.fill()  # nearly every upload needs it; the others begin with the first file of theirs
        for place in self._places:
            self._free.put_nowait(place)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all processes, whatever they are doing, and wait until they are gone."""
        await self._batches.close()
        async with asyncio.TaskGroup() as ends:
            for place in (*self._places, self._small):
                ends.create_task(place.close())

    async def check(self, body: bytes) -> Verdict:
        """Judge a small file that is at hand; raises Unavailable where the fault is the bridge's own."""
        return await self._batches.check(body)

    async def check_file(self, path: Path) -> Verdict:
        """Judge the file at `path`; raises Unavailable where the fault is the bridge's own and not the file's.

        Cancelled while the file is being read, it kills that process; the next file gets a new one.
        """
        verdict = await self._ask(FileQuestion(path))
        return verdict.accepted if isinstance(verdict, Treated) else verdict

    async def treat_file(self, path: Path, treatment: Treatment, out: Path) -> Treated | Refused:
        """Judge the file at `path` likewise, and write what is to be sent in its place into the file `out`."""
        return await self._ask(FileQuestion(path, treatment, out))

    async def _ask(self, question: FileQuestion) -> Treated | Refused:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("Too many large reports wait to be checked. Upload again in a moment.")
        self._waiting += 1
        try:
            place = await self._free.get()
        finally:
            self._waiting -= 1
        try:
            (verdict,) = await ask_twice(place, question)
            return verdict
        finally:
            self._free.put_nowait(place)
