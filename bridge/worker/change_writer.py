"""Write what the calls of one reconciler change: changes that come at the same time share a write."""

import asyncio
from collections.abc import Sequence
from typing import Final

from bridge.domain.build import Build
from bridge.domain.changes import Change, apply, with_uploads
from bridge.domain.notice_events import events_of_changes
from bridge.domain.notices import NO_SUBSCRIPTIONS, NoticeEvent, Subscriptions
from bridge.errors import LeaseLost, LedgerRejectedWrite, Unavailable
from bridge.store.engine.base import Database
from bridge.store.fenced_writes import FencedChanges, write_if_fenced
from bridge.store.leases import Release
from bridge.store.retention import BodyRelease
from bridge.values import dataclass
from bridge.worker.notice_faults import events_or_none

LINGER_SECONDS: Final = 0.005
"""A write waits this long for calls of the same step to end: about as long as its commit takes."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """Changes that wait for the next write. `done` becomes what was written of them, None if nothing was."""

    changes: tuple[Change, ...]
    done: asyncio.Future[tuple[Change, ...] | None]


class ChangeWriter:
    """A build under a lease, in memory and in the ledger.

    `build` is ahead of the ledger by the changes that were deferred. `calls` is the number of calls that run, which the
    reconciler keeps up to date with `begin_calls` and `end_call`: while some of them may still end, a write waits
    LINGER_SECONDS for them.
    """

    def __init__(self, database: Database, build: Build, subscriptions: Subscriptions = NO_SUBSCRIPTIONS) -> None:
        self.build = build
        self._database = database
        self._subscriptions = subscriptions  # which events notices tell
        self._deferred: tuple[Change, ...] = ()
        self._deferred_notices: tuple[NoticeEvent, ...] = ()
        self._waiting: list[_Waiting] = []
        self._calls = 0
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_ahead(self) -> bool:
        """Return whether changes are deferred."""
        return bool(self._deferred)

    def begin_calls(self, number: int) -> None:
        """Count calls that have begun."""
        self._calls += number

    def end_call(self) -> None:
        """Count a call that has ended, so that writes do not wait for it."""
        self._calls -= 1
        if self._waiting:
            self._schedule()

    def defer(self, changes: Sequence[Change]) -> None:
        """Apply changes in memory; the next write contains them.

        For what is done again without harm if the process ends before that write.
        """
        self._deferred_notices += self._events_of(changes)
        self.apply(changes)
        self._deferred += tuple(changes)

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply changes in memory that the ledger has."""
        self.build = apply(self.build, changes)

    def take_uploads(self, newer: Build) -> None:
        """Add what uploads have brought since the build was read; nothing may be deferred."""
        self.build = with_uploads(self.build, newer)

    async def write(self, changes: tuple[Change, ...]) -> tuple[Change, ...] | None:
        """Write changes and apply them; return them with the ids of new rows, None if another worker has the build.

        None too if a delivery that is to be registered has an unsettled registration.
        """
        waiting = _Waiting(changes, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._schedule()
        return await waiting.done

    async def finish(self, released: Release, bodies: BodyRelease | None) -> tuple[str, ...]:
        """End the lease and write what is deferred and free `bodies` in the same commit.

        Return the blobs that no row refers to any more. Raise LeaseLost if another worker has claimed the build.
        """
        fenced = self._fenced(self._deferred, self._deferred_notices, released, bodies)
        written = await self._database.write(write_if_fenced, fenced)
        if written is None and self._deferred:
            raise LeaseLost(f"Build {self.build.job_id}/{self.build.build_no} has a newer owner. Nothing was written.")
        return () if written is None else written.freed

    # -- the write -----------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Start a write at once if no call can add to it, else a moment later; one at a time."""
        if self._writing is not None:
            return
        if len(self._waiting) >= self._calls:
            self._start()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._start)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_waiting())  # goes on if one of its callers is canceled

    async def _write_waiting(self) -> None:
        try:
            while batch := [waiting for waiting in self._waiting if not waiting.done.done()]:
                self._waiting = []
                await self._write_batch(batch)
        finally:
            self._writing = None
            self._waiting = []

    async def _write_batch(self, batch: list[_Waiting]) -> None:
        """Write changes together. If that is rejected and one of them may be the cause, write each alone."""
        try:
            if await self._commit(batch) or len(batch) == 1:
                return
        except Exception as error:  # noqa: BLE001 -- the callers raise it
            away = isinstance(error, Unavailable) and not isinstance(error, LedgerRejectedWrite)
            if away or len(batch) == 1:
                _fail(batch, error)
                return
        for waiting in batch:
            await self._write_batch([waiting])

    async def _commit(self, batch: list[_Waiting]) -> bool:
        """Write and apply changes, and return them to their callers; return whether the ledger took them."""
        deferred, notices = self._deferred, self._deferred_notices
        together = tuple(change for waiting in batch for change in waiting.changes)
        fenced = self._fenced((*deferred, *together), (*notices, *self._events_of(together)))
        written = await self._database.write(write_if_fenced, fenced)
        if written is None:
            if len(batch) == 1:
                _finish(batch[0], None)
            return False
        self._deferred = self._deferred[len(deferred) :]
        self._deferred_notices = self._deferred_notices[len(notices) :]
        changes = together if written.changes is None else written.changes[len(deferred) :]
        try:
            self.apply(changes)
        except ValueError as error:  # the ledger has them, so they are not written again
            _fail(batch, error)
            return True
        at = 0
        for waiting in batch:
            _finish(waiting, changes[at : at + len(waiting.changes)])
            at += len(waiting.changes)
        return True

    def _events_of(self, changes: Sequence[Change]) -> tuple[NoticeEvent, ...]:
        if not self._subscriptions:
            return ()
        now = self._database.now()
        return events_or_none(lambda: events_of_changes(self.build, changes, now, self._subscriptions))

    def _fenced(
        self,
        changes: tuple[Change, ...],
        notices: tuple[NoticeEvent, ...],
        released: Release | None = None,
        bodies: BodyRelease | None = None,
    ) -> FencedChanges:
        return FencedChanges(
            build_id=self.build.id,
            fencing_token=self.build.fencing_token,
            changes=changes,
            release=released,
            bodies=bodies,
            notices=notices,
        )


def _finish(waiting: _Waiting, written: tuple[Change, ...] | None) -> None:
    if not waiting.done.done():  # else its caller was canceled
        waiting.done.set_result(written)


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(error)
