"""The contract suite of the ledger: every test here takes `database` and so runs over every backend."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bridge.client.bucket import Bucket
from bridge.client.presigned_put import PresignedUploader
from bridge.client.session import GuardedSession, Timeouts
from bridge.client.signer import S3Account, Signer
from bridge.client.ssrf_guard import StorageUrlPolicy
from bridge.demo.postgres import PostgresServer
from bridge.server import health
from bridge.store.blobs import s3 as s3_spool
from bridge.store.engine import postgres as postgres_engine
from bridge.store.engine.base import Database
from bridge.store.engine.postgres import PostgresDatabase
from bridge.store.engine.sqlite import SqliteDatabase, closing
from bridge.store.engine.sqlite_writer import sqlite_engine
from bridge.store.ledger import migrate, migrate_over
from bridge.store.schema import metadata
from tests.fake_clock import FakeClock
from tests.integration.store.ledger import PATIENCE_SECONDS, Ledger
from tests.weed import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, Weed, new_prefix

TEMPLATE = "migrated"
EMPTY = f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY"


class Backend(Protocol):
    """Whatever a ledger can live in."""

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


class PostgresBackend:
    """Makes PostgreSQL ledgers on one server: from a template that was migrated once, and emptied for the next test."""

    examples = 15  # each takes some tenths of a second

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._numbers = count()
        self._emptied: list[str] = []  # names of databases that nobody uses
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
    return PostgresDatabase(url, clock, observe_group or (lambda _: None), begin=lambda _: clock.now())


def sqlalchemy_url(url: str) -> str:
    """Return what SQLAlchemy calls the database of a `store.url`."""
    return url.replace("postgresql:", "postgresql+asyncpg:")


@pytest.fixture(scope="session", autouse=True)
def patience():
    """Let no busy machine seem like a server or a disk that is away; tests of the latter set their own limits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_engine, "TRY_SECONDS", PATIENCE_SECONDS)
        patch.setattr(postgres_engine, "GIVE_UP_SECONDS", PATIENCE_SECONDS)
        patch.setattr(postgres_engine, "CONNECT_SECONDS", PATIENCE_SECONDS)
        patch.setattr(health, "LEDGER_SECONDS", PATIENCE_SECONDS)
        patch.setattr(s3_spool, "PROBE_SECONDS", PATIENCE_SECONDS)
        yield


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server of this test process alone."""
    server = PostgresServer(autovacuum="off")  # statistics, and so plans, change only if a test asks for it
    asyncio.run(server.__aenter__())
    yield server
    asyncio.run(server.__aexit__())


@pytest.fixture(scope="session")
def postgres(postgres_server):
    """PostgreSQL ledgers."""
    return PostgresBackend(postgres_server)


@pytest.fixture(scope="session")
def sqlite(tmp_path_factory):
    """SQLite ledgers."""
    return SqliteBackend(tmp_path_factory.mktemp("ledgers"))


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def backend(request):
    """Whatever a ledger can live in."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def database(backend, clock):
    """An empty ledger, open for one test."""
    async with backend.fresh(clock) as database:
        yield database


@pytest.fixture
def ledger(database):
    """The same ledger with the words that these tests use."""
    return Ledger(database)


@asynccontextmanager
async def open_bucket(weed: Weed, *, name: str = BUCKET, **account: str) -> AsyncIterator[Bucket]:
    """Open a place in a bucket of `weed` as the gateway would, where nothing lies yet."""
    keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY, "region": REGION}
    limits = Timeouts(connect_seconds=60, read_seconds=60)
    async with (
        Signer(S3Account(endpoint_url=weed.url, **(keys | account))) as signer,
        GuardedSession("s3", limits=limits) as session,
    ):
        storage = PresignedUploader(session, StorageUrlPolicy(allow_private=True), stall_seconds=60, limits=limits)
        yield Bucket(signer, storage, session, bucket=name, prefix=new_prefix())


@pytest.fixture
async def bucket(weed: Weed) -> AsyncIterator[Bucket]:
    """Open a place of its own in a real S3."""
    async with open_bucket(weed) as bucket:
        yield bucket
