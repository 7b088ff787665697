"""The contract suite of the ledger: every test here takes `database` and so runs over every backend."""

import asyncio
from collections.abc import AsyncIterator
from functools import cache

import pytest
from botocore.loaders import JSONFileLoader

from bridge.client.s3 import S3Bucket
from bridge.demo.postgres import PostgresServer
from bridge.server import health
from bridge.store.blobs import s3 as s3_spool
from bridge.store.engine import postgres as postgres_engine
from tests.support.backends import PostgresBackend, SqliteBackend, folder_in_memory, open_bucket
from tests.support.fake_clock import FakeClock
from tests.support.in_process import create_ledgers_at_once, run_children_in_process
from tests.support.ledger import PATIENCE_SECONDS, Ledger
from tests.support.weed import Weed


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


@pytest.fixture(scope="session", autouse=True)
def service_models():
    """Parse botocore's descriptions of services once. For each client it parses 3 MB, two thirds of what one costs."""
    parsed = cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: parsed(path))
        yield


@pytest.fixture(scope="module", autouse=True)
def children_in_process():
    """Start no child processes for a gateway in this process. A module about them overrides this."""
    with pytest.MonkeyPatch.context() as patch:
        run_children_in_process(patch)
        yield


@pytest.fixture(scope="module", autouse=True)
def ledgers_at_once():
    """Create new SQLite ledgers without migrations. A module about these overrides this."""
    with pytest.MonkeyPatch.context() as patch:
        create_ledgers_at_once(patch)
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
def sqlite():
    """SQLite ledgers."""
    with folder_in_memory() as folder:
        yield SqliteBackend(folder)


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def backend(request):
    """A kind of ledger."""
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


@pytest.fixture
async def bucket(weed: Weed) -> AsyncIterator[S3Bucket]:
    """Open a place of its own in a real S3."""
    async with open_bucket(weed) as bucket:
        yield bucket
