"""The ledger in PostgreSQL: grouped transactions by a few writers of this gateway, beside those of other gateways.

The server is reached by a libpq URL that asyncpg reads, through PgBouncer or directly. Passwords in the URL are never
shown. The database's clock is the ledger's.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, NamedTuple, Self

import asyncpg
import structlog
from asyncpg.connect_utils import SessionAttribute
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bridge.clock import Clock
from bridge.domain.instants import SECOND, Instant
from bridge.domain.retry import delay_us
from bridge.errors import CommitUncertain, LedgerError, LedgerRejectedWrite, Unavailable
from bridge.store.engine.base import (
    Item,
    LedgerFunction,
    Result,
    Transaction,
    needs_transaction,
    other_schema,
    results_of,
    run_each,
)
from bridge.store.engine.postgres_url import shown_url
from bridge.store.engine.write_queue import QueuedWrite, WriteQueue
from bridge.values import dataclass

CONNECT_SECONDS: Final = 3.0
"""Limit for a new connection, for each host in the URL: an upload waits for it, and gets a 503 within seconds."""

WRITERS: Final = 4
"""Transactions of one gateway that write at the same time: most of their duration is the network round trip."""

READERS: Final = 4
"""Transactions of one gateway that read at the same time: API calls and the queries of its loops."""

TRY_SECONDS: Final = 5.0
"""Limit for one transaction, including its connection."""

CLOSE_SECONDS: Final = 3.0
"""Limit for closing all connections in order."""

GIVE_UP_SECONDS: Final = 6.0
"""After this time of waiting and retries a caller gets Unavailable: a retry by CI then has better chances."""

FIRST_DELAY_US: Final = SECOND // 20
"""After a deadlock the other transaction is done by then."""

MAX_DELAY_US: Final = SECOND

PREPARED_STATEMENTS: Final = 300
"""Limit for each connection: the ledger has about half as many statements, the rest are sizes of groups."""

AWAY_CLASSES = ("08", "25", "53", "57", "58")
"""SQLSTATE classes of errors that another connection, or a later try, may not have: connection, state of the
transaction (also read-only: a standby after a failover), resources, operator (restart, cancel), the server's system."""

UNDONE_CLASSES = ("40",)
"""SQLSTATE class of a transaction that the server rolled back: deadlock, serialization failure."""

UNDONE = ("55P03", "0A000")
"""The same for single codes: a lock timeout; a cached plan that a migration made stale."""

LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises on a lost connection; the last one if the server's last message is still being read."""

BEGIN: Final = """
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SELECT set_config('lock_timeout', '3s', true), set_config('idle_in_transaction_session_timeout', '10s', true),
       CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', true) END
""".strip()
"""Begins every writing transaction. If a gateway stalls in the middle of it, its rows are unlocked within seconds.
Commits are durable, whatever the database's default is. The settings hold for the transaction only, so a pooler that
passes the connection on does not pass them on. READ COMMITTED: a transaction that reads and then inserts must see what
others have committed in between."""

REQUIRE_SCHEMA: Final = "; SELECT 1 / count(*) FROM alembic_version WHERE '{}' BETWEEN compatible_from AND version_num"
"""Fails with a division by zero if this program cannot use the ledger, in the round trip of BEGIN."""

READ_BEGUN: Final = """
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
       (SELECT version_num FROM alembic_version WHERE '{}' NOT BETWEEN compatible_from AND version_num)
"""

TIME_KNOWN_US: Final = SECOND
"""The database's time is read at least this often, and added to by the steady clock in between: a transaction then
begins in one round trip."""

log = structlog.get_logger(__name__)


class Begun(NamedTuple):
    """What the ledger was at the beginning of a transaction."""

    now: int  # microseconds UTC by the database's clock
    other_schema: str | None  # of the ledger, if this program cannot use it


Begin = Callable[[], Begun]


# -- connections -------------------------------------------------------------------------------------------------


class LedgerUnreachable(LedgerError):
    """No connection to PostgreSQL. The message of asyncpg may be shown: it never holds a password."""

    def __init__(self, error: Exception, url: str) -> None:
        reason = str(error) or type(error).__name__
        super().__init__(
            f"The ledger at {shown_url(url)} cannot be reached: {reason.rstrip('.')}. Look at it, or correct store.url."
        )


async def connect(url: str, *, prepared_statements: int = 0) -> "asyncpg.Connection[asyncpg.Record]":
    """Return a connection that may write, to the first host of `url` that offers one; raise LedgerUnreachable.

    It keeps up to `prepared_statements` statements prepared; pass 0 if a pooler may be in between.
    """
    try:
        return await asyncpg.connect(
            url,
            timeout=CONNECT_SECONDS,
            statement_cache_size=prepared_statements,
            target_session_attrs=SessionAttribute.read_write,
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise LedgerUnreachable(error, url) from error


@dataclass(frozen=True, slots=True)
class PostgresPool:
    """The connections of one gateway; `pooled` if a PgBouncer assigns other server connections in between."""

    engine: AsyncEngine
    pooled: bool


async def open_pool(url: str, *, size: int) -> PostgresPool:
    """Return a pool of at most `size` connections; raise LedgerUnreachable if none can be made now."""
    pooled = await _is_pooled(url)
    # A prepared statement belongs to one server connection: with a pooler it lasts for one transaction at most.
    prepared = 0 if pooled else PREPARED_STATEMENTS
    engine = create_async_engine(
        "postgresql+asyncpg://",
        # Not `async_creator`: with it SQLAlchemy passes no other arguments on.
        creator=lambda: dialect.dbapi.connect(
            async_creator_fn=partial(connect, url, prepared_statements=prepared),
            prepared_statement_cache_size=prepared,
        ),
        pool_size=size,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
    )
    dialect: Any = engine.dialect
    return PostgresPool(engine, pooled)


async def _is_pooled(url: str) -> bool:
    """Return whether a pooler is in between: then the greeting names another process id than the server."""
    connection = await connect(url)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return bool(await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid())
    finally:
        connection.terminate()


@asynccontextmanager
async def borrowed(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yield a connection of the pool for one transaction, which the block commits or rolls back.

    It goes back into the pool only if its transaction has ended and the server has confirmed that. Otherwise it is
    closed at once, without waiting for an answer, and the server undoes what was open. That includes any error of the
    database, from any statement, and any cancellation: after those the driver's view of the transaction may differ from
    the server's (a BEGIN or ROLLBACK that fails), and each later use of the connection would fail.
    """
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        ended = False
        try:
            yield connection
            ended = not driver.is_in_transaction()
        except Exception as error:
            if not isinstance(error, (SQLAlchemyError, *LOST)):  # an error of the work itself: the connection is fine
                with suppress(Exception):
                    await connection.rollback()
                    if driver.is_in_transaction():
                        await driver.execute("ROLLBACK")
                    ended = not driver.is_in_transaction()
            raise
        finally:
            if not ended:
                driver.terminate()
                await connection.invalidate()


# -- errors ------------------------------------------------------------------------------------------------------


def sqlstate(error: BaseException) -> str:
    """Return the five characters of an error (PostgreSQL: Appendix A), or an empty string if it has none."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(origin, "sqlstate", None) or "")


def was_undone(error: BaseException) -> bool:
    """Return whether the server itself rolled the transaction back, so that the same may be tried again at once."""
    state = sqlstate(error)
    return state[:2] in UNDONE_CLASSES or state in UNDONE


def is_away(error: BaseException) -> bool:
    """Return whether an error means that the server cannot be reached or used now."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or sqlstate(error)[:2] in AWAY_CLASSES or _is_confused(error)
    if isinstance(error, asyncpg.PostgresError):  # of BEGIN
        return sqlstate(error)[:2] in AWAY_CLASSES
    return isinstance(error, (LedgerUnreachable, SQLAlchemyError, *LOST))


def _is_confused(error: DBAPIError) -> bool:
    """Return whether asyncpg refused to use the connection in its state; a wrong value is a `ValueError` too."""
    cause = error.orig.__cause__ if error.orig else None
    return isinstance(cause, (asyncpg.InterfaceError, asyncpg.InternalClientError)) and not isinstance(
        cause, ValueError
    )


def _name(error: Exception) -> str:
    """Return the driver's name of an error and its SQLSTATE, without its text, which may hold what was written."""
    cause = (error.orig and error.orig.__cause__) if isinstance(error, DBAPIError) else error
    state = sqlstate(error)
    return f"{type(cause or error).__name__}{f', SQLSTATE {state}' if state else ''}"


def _unavailable(error: Exception, kind: type[Unavailable] = Unavailable) -> Unavailable:
    return kind(f"The ledger cannot be used right now ({_name(error)}). Send it again in a moment.")


def _for_caller(error: Exception) -> Exception:
    """Return the error for the caller of a failed transaction: errors of the database come without their statements."""
    is_of_database = isinstance(error, DBAPIError | asyncpg.PostgresError)
    return _unavailable(error, LedgerRejectedWrite) if is_of_database else error


# -- the database ------------------------------------------------------------------------------------------------


class PostgresDatabase:
    """The connections of one gateway to a PostgreSQL ledger; `async with` opens them.

    Tests give the ledger another time with `begin`.
    """

    folder = None
    shared = True

    def __init__(
        self,
        url: str,
        clock: Clock,
        observe_group: Callable[[int], None] = lambda _: None,
        *,
        begin: Begin | None = None,
    ) -> None:
        self.failing: str | None = None
        self._url = url
        self._clock = clock
        self._observe_group = observe_group
        self._begin = begin
        self.schema: str | None = (
            None  # of this program, once the ledger is migrated: nothing is written beside another
        )
        self._last_time: tuple[int, int] | None = None  # the database's time, and the steady clock's at that moment
        self._time_is_known = False  # well enough for a transaction
        self._queue = WriteQueue(mixed=False)
        self._changed = asyncio.Condition()  # of the queue, or the ledger closes
        self._closing = False
        self._readers = asyncio.Semaphore(READERS)  # so that writers never wait for a connection
        self._writers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        pool = await open_pool(self._url, size=WRITERS + READERS)
        self.engine: AsyncEngine = pool.engine
        self.pooled = pool.pooled
        # Neither SQLAlchemy nor asyncpg begins a transaction of its own: BEGIN does, which sets all in one round trip.
        self.writing = pool.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.reading = pool.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._writers = [asyncio.create_task(self._write_groups(), name=f"ledger-writer-{n}") for n in range(WRITERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish the writes that wait, or let them time out, and close the connections."""
        async with self._changed:
            self._closing = True
            self._changed.notify_all()
        await asyncio.gather(*self._writers)
        with suppress(TimeoutError):  # do not wait for a server that does not answer
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.engine.dispose()

    def now(self) -> Instant:
        """Return the database's time in microseconds UTC: that of the last transaction, and what has passed since.

        What has passed is measured by the steady clock, so it does not matter whether this machine's clock is right.
        """
        if self._last_time is None:
            return self._clock.now()
        at, steady = self._last_time
        return Instant(at + self._clock.steady() - steady)

    # -- base.Database -------------------------------------------------------------------------------------------

    async def write(self, function: LedgerFunction[Item, Result], item: Item, size: int = 0) -> Result:
        if self._closing:
            raise Unavailable("The bridge is stopping, so nothing of this was kept. Send it again in a moment.")
        give_up_at = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
        done: asyncio.Future[Result] = self._queue.put(function, item, size, give_up_at=give_up_at)
        async with self._changed:
            self._changed.notify()
        return await done

    async def transact(self, transaction: Transaction[Result]) -> Result:
        return await self.write(run_each, transaction)

    async def read(self, query: Callable[..., Result], *arguments: object) -> Result:
        give_up_at = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
        engine = self.reading if needs_transaction(query) else self.writing
        tries = 0
        while True:
            try:
                async with asyncio.timeout(TRY_SECONDS), self._readers, borrowed(engine) as connection:
                    result = await connection.run_sync(partial(_call, query), *arguments)
                    await connection.rollback()
                    return result
            except Exception as error:
                if not (is_away(error) or was_undone(error)):
                    raise _for_caller(error) from error
                tries += 1
                await _pause_before_retry(give_up_at, tries, error)

    # -- the writers ---------------------------------------------------------------------------------------------

    async def _write_groups(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._queue.has_free() or (self._closing and not self._queue))
            group = self._queue.take()
            if group:
                self._observe_group(len(group))
                try:
                    await self._write(group)
                finally:  # however a writer ends, the others may continue with its builds
                    self._queue.release(group)
                async with self._changed:
                    self._changed.notify_all()
            elif self._closing and not self._queue:
                return

    async def _write(self, group: list[QueuedWrite]) -> None:
        """Write the group, with retries while the database is away. If one write may be the cause, write each alone."""
        tries = 0
        while group:
            try:
                results = await self._commit(group)
            except Exception as error:  # noqa: BLE001 -- the callers raise it
                if is_away(error) or was_undone(error):
                    tries += 1
                    group = await self._pause(group, tries, error)
                    continue
                if len(group) > 1 and not isinstance(error, CommitUncertain):
                    for write in group:
                        await self._write([write])
                else:
                    for write in group:
                        write.fail(_for_caller(error))
                return
            self.failing = None
            for write, result in zip(group, results, strict=True):
                write.finish(result)
            return

    async def _pause(self, group: list[QueuedWrite], tries: int, error: Exception) -> list[QueuedWrite]:
        """Pause before a retry. Return the writes that are in time for it; the others fail."""
        pause = delay_us(tries, first_us=FIRST_DELAY_US, max_us=MAX_DELAY_US, salt=str(id(self))) / SECOND
        self.failing = _name(error)
        if tries == 1:
            log.warning("ledger_transaction_retried", reason=self.failing)
        retry_at = asyncio.get_running_loop().time() + pause
        for write in group:
            if write.give_up_at <= retry_at:
                write.fail(_unavailable(error))
        left = [write for write in group if not write.done.done()]
        if left:
            await asyncio.sleep(pause)
        return left

    async def _commit(self, group: Sequence[QueuedWrite]) -> Sequence[Any]:
        """Return the results of the group, committed; raise CommitUncertain if the outcome is not known."""
        committing = committed = False
        results: Sequence[Any] = ()
        try:
            async with asyncio.timeout(TRY_SECONDS), borrowed(self.writing) as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                now = await self._begin_writing(driver)
                results = await connection.run_sync(self._run, group, now)
                committing = True
                await driver.execute("COMMIT")
                committed = True
        except Exception as error:
            self._time_is_known = False  # the next transaction may reach another server
            if committed:  # an error after the commit is no reason to write again: the retry would find duplicates
                return results
            if committing and not was_undone(error):
                raise CommitUncertain(
                    "The connection to the ledger was lost during a commit, so its outcome is not known. Send it again."
                ) from error
            raise
        return results

    async def _begin_writing(self, driver: "asyncpg.Connection[asyncpg.Record]") -> int:
        """Begin a transaction and return the ledger's time; raise Unavailable if this program cannot use its schema."""
        if self._knows_time():
            try:
                await driver.execute(BEGIN + REQUIRE_SCHEMA.format(self.schema))
            except asyncpg.DivisionByZeroError:  # read and explained below
                await driver.execute("ROLLBACK")
            else:
                return self.now()
        await driver.execute(BEGIN)
        query = READ_BEGUN.format(self.schema)
        begun = self._begin() if self._begin else Begun._make(await driver.fetchrow(query) or (0, None))
        self._last_time = begun.now, self._clock.steady()
        self._time_is_known = self._begin is None
        if self.schema is not None and begun.other_schema is not None:
            raise Unavailable(other_schema(begun.other_schema, self.schema))
        return begun.now

    def _knows_time(self) -> bool:
        """Return whether the ledger's time and schema need not be read."""
        if self._last_time is None or self.schema is None or not self._time_is_known:
            return False
        return self._clock.steady() - self._last_time[1] < TIME_KNOWN_US

    def _run(self, connection: Connection, group: Sequence[QueuedWrite], now: int) -> Sequence[Any]:
        return results_of(group[0].function, connection, now, [write.item for write in group])


def _call(query: Callable[..., Result], connection: Connection, *arguments: object) -> Result:
    return query(connection, *arguments)


async def _pause_before_retry(give_up_at: float, tries: int, error: Exception) -> None:
    """Wait before a retry; raise Unavailable if there is no time left for one."""
    pause = delay_us(tries, first_us=FIRST_DELAY_US, max_us=MAX_DELAY_US, salt="read") / SECOND
    if asyncio.get_running_loop().time() + pause >= give_up_at:
        raise _unavailable(error) from error
    await asyncio.sleep(pause)
