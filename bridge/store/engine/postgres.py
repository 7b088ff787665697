"""The ledger in PostgreSQL: transactions, grouped, by a few writers of this gateway beside those of all others.

It knows no table. The database's clock is the ledger's; a write's result is handed out only after its commit.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.domain.instants import Instant
from bridge.domain.retry import delay_us
from bridge.errors import CommitUncertain, LedgerRejectedWrite, Unavailable
from bridge.store.engine.base import QUEUE_LIMIT, Item, LedgerFunction, Result, results_of, too_many_wait
from bridge.store.engine.postgres_connection import borrowed, is_away, open_pool, was_undone
from bridge.store.engine.write_queue import QueuedWrite, WriteQueue

WRITERS = 4  # transactions of one gateway that write side by side: the way there and back is most of their time
READERS = 4  # likewise that read: pages of operators, and the looks of the loops
TRY_SECONDS = 5.0  # for one transaction, connection included
CLOSE_SECONDS = 3.0  # for all connections to be closed in order
GIVE_UP_SECONDS = 6.0  # of waiting and trying again: then CI is told 503, and its retry has better chances
FIRST_DELAY_US = SECOND // 20  # after a deadlock the other one is done by then
MAX_DELAY_US = SECOND

BEGINNING = text(
    """
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
           set_config('lock_timeout', '3s', true),
           set_config('idle_in_transaction_session_timeout', '10s', true),
           CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', true) END
    """
)
"""What every writing transaction begins with. A gateway that stalls in the middle of one lets go of its rows within
seconds; "success" means on disk, whatever the database's default is. Said for the transaction, so that a pooler that
hands the connection on carries none of it over."""

log = structlog.get_logger(__name__)

TimeOf = Callable[[Connection], int]


def begin(connection: Connection) -> int:
    """Set a writing transaction up and return the database's time in microseconds UTC."""
    return int(connection.execute(BEGINNING).scalar_one())


class PostgresDatabase:
    """One gateway's place at a PostgreSQL ledger; `async with` opens it. `time_of` begins a transaction."""

    folder = None
    shared = True

    def __init__(
        self,
        url: str,
        clock: Clock,
        observe_group: Callable[[int], None] = lambda _: None,
        *,
        time_of: TimeOf = begin,
    ) -> None:
        self._url = url
        self._clock = clock
        self._observe_group = observe_group
        self._time_of = time_of
        self._known: tuple[int, int] | None = None  # the database's time, and the steady clock's at that moment
        self._waiting = WriteQueue()
        self._arrived = asyncio.Condition()
        self._closing = False
        self._readers = asyncio.Semaphore(READERS)  # so that writers never wait for a connection
        self._writers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        pool = await open_pool(self._url, size=WRITERS + READERS)
        self.engine: AsyncEngine = pool.engine
        self.pooled = pool.pooled
        # What reads and then inserts must see what others have committed in between, whatever the database's default.
        self.writing = pool.engine.execution_options(isolation_level="READ COMMITTED")
        self.reading = pool.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._writers = [asyncio.create_task(self._write_for_ever(), name=f"ledger-writer-{n}") for n in range(WRITERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish the writes that are waiting, for as long as they are tried, and let go of the connections."""
        async with self._arrived:
            self._closing = True
            self._arrived.notify_all()
        await asyncio.gather(*self._writers)
        with suppress(TimeoutError):  # a server that does not answer is not waited for
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.engine.dispose()

    def now(self) -> Instant:
        """Return the database's time in microseconds UTC: that of the last transaction, and what has passed since.

        What has passed is measured by the steady clock, so it does not matter whether this machine's clock is right.
        """
        if self._known is None:
            return self._clock.now()
        at, steady = self._known
        return Instant(at + self._clock.steady() - steady)

    # -- the doors -----------------------------------------------------------------------------------------------

    async def write(self, batch: LedgerFunction[Item, Result], item: Item, size: int = 0) -> Result:
        """Write `item` (with `size` bytes of bodies) and return its result once it is on disk.

        Raise Unavailable where the ledger cannot take it within seconds, and nothing of it is kept then; MaybeKept
        where the answer to its commit was lost.
        """
        if self._closing:
            raise Unavailable("The bridge is stopping, so nothing of this was kept. Send it again in a moment.")
        if len(self._waiting) >= QUEUE_LIMIT:
            raise too_many_wait()
        loop = asyncio.get_running_loop()
        job = QueuedWrite(batch, item, size, loop.create_future(), loop.time() + GIVE_UP_SECONDS)
        self._waiting.put(job)
        async with self._arrived:
            self._arrived.notify()
        result: Result = await job.done
        return result

    async def read(self, query: Callable[..., Result], *arguments: object) -> Result:
        """Return `query(connection, *arguments)`, read from one consistent state of the ledger; raise Unavailable."""
        give_up_at = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
        tries = 0
        while True:
            try:
                async with asyncio.timeout(TRY_SECONDS), self._readers, borrowed(self.reading) as connection:
                    result = await connection.run_sync(partial(_called, query), *arguments)
                    await connection.rollback()
                    return result
            except Exception as error:
                if not (is_away(error) or was_undone(error)):
                    raise _told(error) from error
                tries += 1
                await _pause_before(give_up_at, tries, error)

    # -- the writers ---------------------------------------------------------------------------------------------

    async def _write_for_ever(self) -> None:
        while True:
            async with self._arrived:
                await self._arrived.wait_for(lambda: self._waiting.has_free() or (self._closing and not self._waiting))
            jobs = self._waiting.take()
            if jobs:
                self._observe_group(len(jobs))
                try:
                    await self._settle(jobs)
                finally:  # however a writer ends, the others may go on with its builds
                    self._waiting.let_go(jobs)
                async with self._arrived:
                    self._arrived.notify_all()
            elif self._closing and not self._waiting:
                return

    async def _settle(self, jobs: list[QueuedWrite]) -> None:
        """Write `jobs` together, again and again while the database is away; where one is to blame, each alone."""
        tries = 0
        while jobs:
            try:
                results = await self._transact(jobs)
            except Exception as error:  # noqa: BLE001 -- whoever waits is told
                if is_away(error) or was_undone(error):
                    tries += 1
                    jobs = await self._still_waiting(jobs, tries, error)
                    continue
                if len(jobs) > 1 and not isinstance(error, CommitUncertain):
                    for job in jobs:
                        await self._settle([job])
                else:
                    _tell_all(jobs, _told(error))
                return
            for job, result in zip(jobs, results, strict=True):
                if not job.done.done():
                    job.done.set_result(result)
            return

    async def _still_waiting(self, jobs: list[QueuedWrite], tries: int, error: Exception) -> list[QueuedWrite]:
        """Pause, and return the jobs that may be tried again after it; the others are told."""
        pause = delay_us(tries, first_us=FIRST_DELAY_US, max_us=MAX_DELAY_US, salt=str(id(self))) / SECOND
        if tries == 1:
            log.warning("the ledger did not take a transaction, trying again", reason=type(error).__name__)
        then = asyncio.get_running_loop().time() + pause
        _tell_all([job for job in jobs if job.give_up_at <= then], _away(error))
        left = [job for job in jobs if not job.done.done()]
        if left:
            await asyncio.sleep(pause)
        return left

    async def _transact(self, jobs: Sequence[QueuedWrite]) -> Sequence[Any]:
        """Return the results of `jobs`, committed; raise MaybeKept where nobody knows whether they were."""
        committing = committed = False
        results: Sequence[Any] = ()
        try:
            async with asyncio.timeout(TRY_SECONDS), borrowed(self.writing) as connection:
                results = await connection.run_sync(self._run, jobs)
                committing = True
                await connection.commit()
                committed = True
        except Exception as error:
            if committed:  # what came after it is no reason to write the same twice: the second would find the first
                return results
            if committing and not was_undone(error):
                raise CommitUncertain(
                    "The ledger was lost while it wrote, so nobody knows whether this was kept. Send it again."
                ) from error
            raise
        return results

    def _run(self, connection: Connection, jobs: Sequence[QueuedWrite]) -> Sequence[Any]:
        now = self._time_of(connection)
        self._known = now, self._clock.steady()
        return results_of(jobs[0].batch, connection, now, [job.item for job in jobs])


def _called(work: Callable[..., Result], connection: Connection, *arguments: object) -> Result:
    return work(connection, *arguments)


def _tell_all(jobs: Sequence[QueuedWrite], error: Exception) -> None:
    for job in jobs:
        if not job.done.done():
            job.done.set_exception(error)


async def _pause_before(give_up_at: float, tries: int, error: Exception) -> None:
    """Wait before another try; raise Unavailable where there is no time for one."""
    pause = delay_us(tries, first_us=FIRST_DELAY_US, max_us=MAX_DELAY_US, salt="read") / SECOND
    if asyncio.get_running_loop().time() + pause >= give_up_at:
        raise _away(error) from error
    await asyncio.sleep(pause)


def _told(error: Exception) -> Exception:
    """Return what a caller is told whose transaction the database refused: its errors come without their statements."""
    return _away(error, LedgerRejectedWrite) if isinstance(error, DBAPIError) else error


def _away(error: Exception, kind: type[Unavailable] = Unavailable) -> Unavailable:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return kind(f"The ledger cannot be used right now ({type(cause).__name__}). Send it again in a moment.")
