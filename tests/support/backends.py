"""The backends that the contract suites run over: empty ledgers in SQLite and PostgreSQL, and prefixes in a real S3."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bridge.client.outbound_proxy import DIRECT, OutboundProxy
from bridge.client.presigned_put import PresignedUploader
from bridge.client.s3 import S3Account, S3Bucket
from bridge.client.session import GuardedSession, Timeouts
from bridge.client.ssrf_guard import StorageUrlPolicy
from bridge.demo.postgres import PostgresServer
from bridge.store.engine.base import Database
from bridge.store.engine.postgres import Begun, PostgresDatabase
from bridge.store.engine.sqlite import SqliteDatabase, closing
from bridge.store.engine.sqlite_writer import sqlite_engine
from bridge.store.ledger import migrate, migrate_over
from bridge.store.schema import metadata
from tests.support.fake_clock import FakeClock
from tests.support.weed import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, Weed, new_prefix

TEMPLATE = "migrated"
MEMORY = Path("/dev/shm")  # noqa: S108 -- mkdtemp makes a private folder in it
MIN_MEMORY = 256 << 20  # bytes; a ledger of these tests and its log take a few MiB, and few are open at a time
EMPTY = f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY"


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Yield a folder in memory, or on the disk if the system has no such place with enough room.

    Commits of a ledger in it sync like all others (synchronous=FULL), but wait for no disk.
    """
    parent = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MIN_MEMORY else None
    with tempfile.TemporaryDirectory(prefix="bridge-ledgers-", dir=parent) as folder:
        yield Path(folder)


class Backend(Protocol):
    """A kind of ledger."""

    examples: int  # of a property that makes a ledger for each

    def fresh(
        self, clock: FakeClock, observe_group: Callable[[int], None] | None = None
    ) -> AbstractAsyncContextManager[Database]:
        """Open a new empty ledger for a block."""


class SqliteBackend:
    """Makes SQLite ledgers: each a copy of one that was migrated once."""

    examples = 80

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count()
        self._closed: Path | None = None  # the ledger that was closed last
        self._migrated = folder / "migrated.db"
        engine = sqlite_engine(self._migrated, begin="BEGIN IMMEDIATE")
        migrate(engine)
        engine.dispose()

    @asynccontextmanager
    async def fresh(
        self, clock: FakeClock, observe_group: Callable[[int], None] | None = None
    ) -> AsyncIterator[SqliteDatabase]:
        path = self.folder / f"ledger-{next(self._numbers)}.db"
        shutil.copy(self._migrated, path)
        with closing(SqliteDatabase(path, clock, observe_group or (lambda _: None))) as database:
            yield database
            await database.finish()
        self._remove_closed()
        self._closed = path

    def _remove_closed(self) -> None:
        """Remove the ledger that was closed before: a test may open the last one again."""
        if self._closed is not None:
            for file in self.folder.glob(f"{self._closed.name}*"):
                file.unlink()


class PostgresBackend:
    """Makes PostgreSQL ledgers on one server: from a template that was migrated once, and emptied for the next test."""

    examples = 15  # each takes some tenths of a second

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._numbers = count()
        self._emptied: list[str] = []  # names of databases that are not in use
        asyncio.run(self._migrate_template())

    @asynccontextmanager
    async def fresh(
        self, clock: FakeClock, observe_group: Callable[[int], None] | None = None
    ) -> AsyncIterator[PostgresDatabase]:
        name = self._emptied.pop() if self._emptied else await self._new_database(TEMPLATE)
        async with opened(self.server.url(name), clock, observe_group) as database:
            yield database
        await self.run(EMPTY, name)
        self._emptied.append(name)

    @asynccontextmanager
    async def new_url(self, template: str = TEMPLATE) -> AsyncIterator[str]:
        """Make a database for a block and return its URL."""
        name = await self._new_database(template)
        yield self.server.url(name)
        await self.run(f"DROP DATABASE {name} WITH (FORCE)")

    async def _new_database(self, template: str) -> str:
        name = f"ledger_{next(self._numbers)}"
        await self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    async def run(self, statement: str, database: str = "postgres") -> None:
        """Run a statement that wants no transaction, as the server's master."""
        engine = create_async_engine(sqlalchemy_url(self.server.url(database)), isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(text(statement))
        await engine.dispose()

    async def _migrate_template(self) -> None:
        await self.run(f"CREATE DATABASE {TEMPLATE}")
        engine = create_async_engine(sqlalchemy_url(self.server.url(TEMPLATE)))
        async with engine.begin() as connection:
            await connection.run_sync(migrate_over)
        await engine.dispose()


def opened(url: str, clock: FakeClock, observe_group: Callable[[int], None] | None = None) -> PostgresDatabase:
    """Return a gateway's place at a ledger whose time is `clock`'s, to be entered."""
    return PostgresDatabase(url, clock, observe_group or (lambda _: None), begin=lambda: Begun(clock.now(), None))


def sqlalchemy_url(url: str) -> str:
    """Return what SQLAlchemy calls the database of a `store.url`."""
    return url.replace("postgresql:", "postgresql+asyncpg:")


@asynccontextmanager
async def open_bucket(
    weed: Weed, *, name: str = BUCKET, outbound_proxy: OutboundProxy = DIRECT, **account: str
) -> AsyncIterator[S3Bucket]:
    """Open an empty prefix in a bucket of `weed`, as the gateway would."""
    keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY, "region": REGION}
    limits = Timeouts(connect_seconds=60, read_seconds=60)
    async with GuardedSession("s3", limits=limits, outbound_proxy=outbound_proxy) as session:
        storage = PresignedUploader(session, StorageUrlPolicy(allow_private=True), stall_seconds=60, limits=limits)
        at = S3Account(endpoint_url=weed.url, **(keys | account))
        async with S3Bucket(at, session, storage, bucket=name, prefix=new_prefix()) as bucket:
            yield bucket
