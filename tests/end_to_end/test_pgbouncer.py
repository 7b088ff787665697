"""Gateways behind a real PgBouncer in transaction mode, on few server connections: nothing is lost or delivered twice.

It runs if `pgbouncer` is installed, as by Debian's package of that name.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bridge.demo.postgres import NOBODY, PostgresServer
from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import Ci, draw_builds
from tests.support.corpus import Corpus
from tests.support.outcome import api_builds, assert_nothing_is_lost, settled
from tests.support.ports import held_port
from tests.support.processes import NewGateway, until

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
BUILDS = 12
ENDS = 20
OTHERS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
CANCEL, DROP = text(f"SELECT pg_cancel_backend(pid) {OTHERS}"), text(f"SELECT pg_terminate_backend(pid) {OTHERS}")
SETTLE_SECONDS = 200.0

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")


@asynccontextmanager
async def pgbouncer(server: PostgresServer) -> AsyncIterator[str]:
    """Run PgBouncer with two server connections before a PostgreSQL; yield the URL through it."""
    with held_port() as port:
        path = Path(server.folder) / "pgbouncer.ini"
        path.write_text(
            f"[databases]\npostgres = host={server.folder} user=postgres\n[pgbouncer]\npool_mode = transaction\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            "default_pool_size = 2\nmax_client_conn = 100\n",
            encoding="utf-8",
        )
        as_nobody: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        process = await asyncio.create_subprocess_exec(str(PROGRAM), "-q", str(path), **as_nobody)
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            await process.wait()


@pytest.mark.timeout(600)
async def test_two_gateways_behind_a_pooler_lose_and_double_nothing(
    new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox, corpus: Corpus, seed: int
) -> None:
    builds = draw_builds(Random(seed), corpus, BUILDS)
    async with PostgresServer() as server, pgbouncer(server) as url:
        shared = {**settings, "store": {**settings["store"], "url": url}}
        gateways = [new_gateway(shared), new_gateway(shared)]
        await asyncio.gather(*(gateway.start() for gateway in gateways))  # both migrate

        engine = create_async_engine(
            "postgresql+asyncpg://", connect_args={"host": str(server.folder), "user": "postgres"}
        )
        async with Ci(sandbox.state, lambda: gateways[0].server_url) as ci:
            playing = asyncio.create_task(ci.play_all(builds))
            async with engine.connect() as operator:  # as a database does that is overloaded, or restarts
                for number in range(ENDS):
                    await operator.execute(DROP if number % 2 else CANCEL)
                    await asyncio.sleep(0.05)
            await playing
        await until(
            lambda: settled(gateways[1], sandbox.state, builds),
            "every build has come to its end",
            seconds=SETTLE_SECONDS,
            look_seconds=0.3,
        )
        shown = await api_builds(gateways[1])
        assert [await gateway.terminate() for gateway in gateways] == [0, 0]
        await engine.dispose()
    assert_nothing_is_lost(sandbox.state, builds, shown)
