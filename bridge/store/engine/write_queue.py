"""The queue of writes before an engine's writers: it forms the groups that share a commit."""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from bridge.errors import Unavailable
from bridge.store.engine.base import LedgerFunction
from bridge.values import dataclass

GROUP_LIMIT: Final = 64
"""Writes in one commit: more do not raise the throughput, and the first one waits longer."""

GROUP_BYTES: Final = 4 * 1024 * 1024
"""Report bodies in one commit, so that it stays short."""

QUEUE_LIMIT: Final = 2_000
"""Waiting writes: beyond this number the disk cannot keep up, and callers get an error at once."""

NO_BUILD: Final = 0
"""Stands for the build id of a write that is not about one build."""


@dataclass(slots=True, eq=False)
class QueuedWrite:
    """One item that waits to be written; the caller awaits `done`."""

    function: LedgerFunction[Any, Any]
    item: Any
    size: int  # bytes of report bodies
    done: asyncio.Future[Any]
    give_up_at: float  # by the event loop's time

    @property
    def build_id(self) -> int:
        return getattr(self.item, "build_id", NO_BUILD)

    def finish(self, result: Any) -> None:
        """Give the caller its result, if it still waits."""
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: Exception) -> None:
        """Give the caller an error, if it still waits."""
        if not self.done.done():
            self.done.set_exception(error)


class WriteQueue:
    """Writes in the order of arrival, handed out in groups of at most GROUP_LIMIT writes and GROUP_BYTES bytes.

    A group is formed function by function, beginning with the one that has waited longest; the writes of one function
    are in the order of their builds. If several writers take groups, `mixed` must be False: a group then holds the
    writes of one function only, and no write of a build that is in another writer's group. So transactions of one
    gateway do not wait for each other's rows (docs/decisions/0026).

    `put` is called in the event loop. All other methods belong to the side of the writers, which may be one thread.
    """

    def __init__(self, *, mixed: bool) -> None:
        self._mixed = mixed
        self._arrived: deque[QueuedWrite] = deque()  # appended by one thread and popped by another
        self._waiting: dict[LedgerFunction[Any, Any], deque[QueuedWrite]] = {}  # the longest waiting function first
        self._count = 0  # of _waiting
        self._busy_builds: set[int] = set()  # in groups that writers have

    def __len__(self) -> int:
        return len(self._arrived) + self._count

    def put(
        self, function: LedgerFunction[Any, Any], item: Any, size: int, *, give_up_at: float = math.inf
    ) -> asyncio.Future[Any]:
        """Add a write and return the future of its result; raise Unavailable if QUEUE_LIMIT writes wait."""
        if len(self) >= QUEUE_LIMIT:
            raise Unavailable("The ledger cannot keep up with what arrives. Send it again in a moment.")
        done = asyncio.get_running_loop().create_future()
        self._arrived.append(QueuedWrite(function, item, size, done, give_up_at))
        return done

    def has_free(self) -> bool:
        """Return whether `take` would return any write now."""
        self._sort_arrived()
        return any(self._is_free(write) for writes in self._waiting.values() for write in writes)

    def take(self) -> list[QueuedWrite]:
        """Remove the next group from the queue and return it; pass it to `release` after its commit."""
        self._sort_arrived()
        group: list[QueuedWrite] = []
        size = 0
        for function, writes in list(self._waiting.items()):
            taken = self._take_from(writes, GROUP_LIMIT - len(group), GROUP_BYTES - size)
            if taken or not writes:
                del self._waiting[function]
            if taken and writes:
                self._waiting[function] = writes  # behind the other functions
            group += sorted(taken, key=lambda write: write.build_id)
            size += sum(write.size for write in taken)
            if group and not self._mixed:
                break
        if not self._mixed:
            self._busy_builds |= _builds_of(group)
        return group

    def release(self, group: Sequence[QueuedWrite]) -> None:
        """Let writers take writes of the builds of `group`."""
        self._busy_builds -= _builds_of(group)

    def _sort_arrived(self) -> None:
        while self._arrived:
            write = self._arrived[0]
            self._waiting.setdefault(write.function, deque()).append(write)
            self._count += 1
            self._arrived.popleft()  # last: the queue never seems shorter than it is

    def _take_from(self, writes: deque[QueuedWrite], limit: int, size_limit: int) -> list[QueuedWrite]:
        taken: list[QueuedWrite] = []
        skipped: list[QueuedWrite] = []
        size = 0
        while writes and len(taken) < limit and size < size_limit:
            write = writes.popleft()
            if write.done.done():  # canceled
                self._count -= 1
            elif self._is_free(write):
                self._count -= 1
                taken.append(write)
                size += write.size
            else:  # its build is busy: the whole group would wait for that commit
                skipped.append(write)
        writes.extendleft(reversed(skipped))
        return taken

    def _is_free(self, write: QueuedWrite) -> bool:
        return write.build_id not in self._busy_builds


def _builds_of(group: Sequence[QueuedWrite]) -> set[int]:
    return {write.build_id for write in group} - {NO_BUILD}
