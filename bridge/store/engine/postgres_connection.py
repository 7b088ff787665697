"""How PostgreSQL is reached: by a libpq URL that asyncpg reads, through PgBouncer or without.

It knows no statement of the ledger's. Passwords in the URL are never shown.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bridge.errors import LedgerError

SCHEMES = ("postgresql", "postgres")

CONNECT_SECONDS: Final = 3.0
"""For a new connection, of each host in the URL: an upload waits for it, and is told 503 within seconds."""

AWAY_CLASSES = ("08", "25", "53", "57", "58")
"""SQLSTATE classes of errors that another connection, or the same later, may not have: connection, state of the
transaction (also read-only: a standby after a failover), resources, operator (restart, cancel), the server's system."""

STATEMENTS_KEPT: Final = 300
"""Prepared on each connection: what the ledger says is about half of that, the rest are sizes of groups."""

UNDONE_CLASSES = ("40",)
"""SQLSTATE class of a transaction that the server undid: deadlock, serialization failure."""

UNDONE = ("55P03", "0A000")
"""Likewise: a lock that did not come in time; a cached plan that a migration made stale."""

LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises on a connection that leads nowhere; the last where the server's farewell is still being read."""


def is_postgres(url: str) -> bool:
    """Tell whether a `store.url` names a PostgreSQL ledger."""
    return url.partition(":")[0] in SCHEMES


def shown_url(url: str) -> str:
    """Return the URL as people may see it: hosts and database, neither password nor query but its host."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    host = dict(parse_qsl(parts.query)).get("host", "")
    return f"postgresql://{user.partition(':')[0]}{at}{hosts}{parts.path}" + (f"?host={host}" if host else "")


async def connect(url: str, *, statements_kept: int = 0) -> "asyncpg.Connection[asyncpg.Record]":
    """Return a connection that may write, to the first host of `url` that offers one.

    It keeps so many statements prepared; 0 where a pooler may be in between.
    """
    try:
        return await asyncpg.connect(
            url,
            timeout=CONNECT_SECONDS,
            statement_cache_size=statements_kept,
            target_session_attrs=SessionAttribute.read_write,
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise LedgerUnreachable(error, url) from error


class LedgerUnreachable(LedgerError):
    """No connection to PostgreSQL; what asyncpg says of it may be shown, it never holds a password."""

    def __init__(self, error: Exception, url: str) -> None:
        said = str(error) or type(error).__name__
        super().__init__(
            f"The ledger at {shown_url(url)} cannot be reached: {said.rstrip('.')}. Look at it, or correct store.url."
        )


@dataclass(frozen=True, slots=True)
class PostgresPool:
    """Connections of one gateway; `pooled` where a PgBouncer hands other server connections out in between."""

    engine: AsyncEngine
    pooled: bool


async def open_pool(url: str, *, size: int) -> PostgresPool:
    """Return a pool of at most `size` connections; raise LedgerAway where none can be made now."""
    pooled = await _is_pooled(url)
    # A prepared statement lives on one server connection: with a pooler in between, no longer than a transaction.
    kept = 0 if pooled else STATEMENTS_KEPT
    engine = create_async_engine(
        "postgresql+asyncpg://",
        # Not `async_creator`, beside which SQLAlchemy hands no arguments on.
        creator=lambda: dialect.dbapi.connect(
            async_creator_fn=partial(connect, url, statements_kept=kept), prepared_statement_cache_size=kept
        ),
        pool_size=size,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
    )
    dialect: Any = engine.dialect
    return PostgresPool(engine, pooled)


@asynccontextmanager
async def borrowed(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yield a connection of the pool for one transaction, which the block commits or rolls back.

    It goes back into the pool only if its transaction has ended and the server has confirmed that. Otherwise it is
    closed at once, without waiting for an answer, and the server undoes what was open. That includes any error of the
    database, whichever statement it came from, and any cancellation: after those the driver's view of the transaction
    may differ from the server's (a BEGIN or ROLLBACK that fails), and each later use of the connection would fail.
    """
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        ended = False
        try:
            yield connection
            ended = not driver.is_in_transaction()
        except Exception as error:
            if not isinstance(
                error, (SQLAlchemyError, *LOST)
            ):  # of the work itself: the connection is as good as before
                with suppress(Exception):
                    await connection.rollback()
                    ended = not driver.is_in_transaction()
            raise
        finally:
            if not ended:
                driver.terminate()
                await connection.invalidate()


async def _is_pooled(url: str) -> bool:
    """Tell whether somebody stands between: what the greeting called the server's process is not what it is."""
    connection = await connect(url)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return bool(await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid())
    finally:
        connection.terminate()


def sqlstate(error: BaseException) -> str:
    """Return PostgreSQL's five letters for an error (PostgreSQL: Appendix A), empty where it said none."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(origin, "sqlstate", None) or "")


def was_undone(error: BaseException) -> bool:
    """Tell whether the server itself undid the transaction, so that the same may be tried again at once."""
    state = sqlstate(error)
    return state[:2] in UNDONE_CLASSES or state in UNDONE


def is_away(error: BaseException) -> bool:
    """Tell whether an error means that the server, or the way to it, is not there now."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or sqlstate(error)[:2] in AWAY_CLASSES or _is_confused(error)
    return isinstance(error, (LedgerUnreachable, SQLAlchemyError, *LOST))


def _is_confused(error: DBAPIError) -> bool:
    """Return whether asyncpg refused to use the connection as it is; that a value is wrong is a `ValueError` too."""
    cause = error.orig.__cause__ if error.orig else None
    return isinstance(cause, (asyncpg.InterfaceError, asyncpg.InternalClientError)) and not isinstance(
        cause, ValueError
    )
