"""SIGTERM ends a gateway whatever its PostgreSQL does: frozen connections, a stopped server, a lock while it starts."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import asyncpg
import pytest

from bridge.demo.postgres import PostgresServer
from bridge.sandbox.sandbox import Sandbox
from bridge.store.ledger import MIGRATION_LOCK
from tests.faults.pg_wire import Spoil, Wire, wire
from tests.support.builds import Ci, draw_builds
from tests.support.children import children_of
from tests.support.corpus import Corpus
from tests.support.processes import NewGateway, Settings, until

BUILDS = 3


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    async with PostgresServer() as server:
        yield server


@pytest.fixture
async def line(server: PostgresServer) -> AsyncIterator[Wire]:
    async with wire(f"{server.folder}/.s.PGSQL.5432") as line:
        yield line


@pytest.fixture
def settings(settings: dict[str, Any], line: Wire) -> Settings:
    url = f"postgresql://postgres@127.0.0.1:{line.port}/postgres"
    return {
        **settings,
        "server": {**settings["server"], "shutdown_timeout": "1s"},
        "store": {**settings["store"], "url": url},
    }


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    """Stop all processes of the server for a block, as a machine does that is out of memory."""
    main = int((server.folder / "data" / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
    processes = [main, *children_of(main)]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(processes):
            os.kill(pid, signal.SIGCONT)


FREEZES: dict[str, Callable[[Wire], None]] = {
    "the open connections": lambda line: line.freeze(),
    "all connections": lambda line: line.freeze(new=True),
}


@pytest.mark.parametrize("which", FREEZES)
async def test_sigterm_ends_a_gateway_whose_connections_are_frozen(
    new_gateway: NewGateway, settings: Settings, sandbox: Sandbox, corpus: Corpus, line: Wire, seed: int, which: str
) -> None:
    gateway = new_gateway(settings)
    await gateway.start()
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        await ci.play_all(draw_builds(Random(seed), corpus, BUILDS))
    FREEZES[which](line)
    assert await gateway.terminate() == 0


async def test_sigterm_ends_a_gateway_whose_database_server_is_stopped(
    new_gateway: NewGateway, settings: Settings, sandbox: Sandbox, corpus: Corpus, server: PostgresServer, seed: int
) -> None:
    gateway = new_gateway(settings)
    await gateway.start()
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        await ci.play_all(draw_builds(Random(seed), corpus, BUILDS))
    with stopped(server):
        assert await gateway.terminate() == 0


async def test_sigterm_ends_a_gateway_that_waits_for_its_database_at_the_start(
    new_gateway: NewGateway, settings: Settings, line: Wire
) -> None:
    gateway = new_gateway(settings)
    line.arm("BEGIN", Spoil.FROZEN, times=1)
    await gateway.spawn()
    await until(lambda: line.spoiled > 0, "the gateway waits for an answer of the server")
    assert await gateway.terminate() == 0


async def test_sigterm_ends_a_gateway_that_waits_for_the_migration_of_another_one(
    new_gateway: NewGateway, settings: Settings, server: PostgresServer
) -> None:
    other = await asyncpg.connect(server.url())
    async with other.transaction():
        await other.execute(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        gateway = new_gateway(settings)
        await gateway.spawn()
        await until(lambda: bool(gateway.events("migration_waits")), "the gateway waits for the migration")
        assert await gateway.terminate() == 0
    await other.close()
    await gateway.start()
    assert await gateway.terminate() == 0
