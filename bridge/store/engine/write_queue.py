"""The writes that wait for one of several writers: kind by kind, and never two at once of the same build.

It knows neither transactions nor what is written.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bridge.store.engine.base import GROUP_BYTES, GROUP_LIMIT, LedgerFunction

NO_BUILD = 0  # in the place of a build's id: what is written is not of one, or nobody knows before


@dataclass(slots=True, eq=False)
class QueuedWrite:
    """One item that waits to be written with `size` bytes of bodies; whoever asked waits for `done`."""

    batch: LedgerFunction[Any, Any]
    item: Any
    size: int
    done: asyncio.Future[Any]
    give_up_at: float  # by the event loop's time

    @property
    def build_id(self) -> int:
        return getattr(self.item, "build_id", NO_BUILD)


class WriteQueue:
    """Hands jobs out in groups; whoever takes one lets go of it when it is written."""

    def __init__(self) -> None:
        self._kinds: dict[LedgerFunction[Any, Any], deque[QueuedWrite]] = {}  # the one that has waited longest first
        self._count = 0
        self._at_work: set[int] = set()  # builds of the groups that are out

    def __len__(self) -> int:
        return self._count

    def put(self, job: QueuedWrite) -> None:
        self._kinds.setdefault(job.batch, deque()).append(job)
        self._count += 1

    def has_free(self) -> bool:
        """Tell whether anything may be taken now."""
        return any(self._is_free(job) for jobs in self._kinds.values() for job in jobs)

    def take(self) -> list[QueuedWrite]:
        """Take what waits of the kind that has waited longest, as much as one commit may hold.

        A commit holds one kind only, in the order of builds: so no two of them wait for each other's rows. What is
        of a build that is out already stays where it is: a whole group would wait for that one's commit.
        """
        for batch, waiting in list(self._kinds.items()):
            jobs = self._taken_from(waiting)
            if jobs or not waiting:
                del self._kinds[batch]
            if jobs and waiting:
                self._kinds[batch] = waiting  # behind the other kinds
            if jobs:
                self._at_work |= _builds_of(jobs)
                return sorted(jobs, key=lambda job: job.build_id)
        return []

    def let_go(self, jobs: Sequence[QueuedWrite]) -> None:
        """Let others take what is of the builds of a group that was taken."""
        self._at_work -= _builds_of(jobs)

    def _taken_from(self, waiting: deque[QueuedWrite]) -> list[QueuedWrite]:
        jobs: list[QueuedWrite] = []
        stay: list[QueuedWrite] = []
        size = 0
        while waiting and len(jobs) < GROUP_LIMIT and size < GROUP_BYTES:
            job = waiting.popleft()
            if job.done.done():  # nobody waits for one that was cancelled
                self._count -= 1
            elif self._is_free(job):
                self._count -= 1
                jobs.append(job)
                size += job.size
            else:
                stay.append(job)
        waiting.extendleft(reversed(stay))
        return jobs

    def _is_free(self, job: QueuedWrite) -> bool:
        return job.build_id not in self._at_work


def _builds_of(jobs: Sequence[QueuedWrite]) -> set[int]:
    return {job.build_id for job in jobs} - {NO_BUILD}
