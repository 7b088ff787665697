"""Gateways beside each other on one PostgreSQL, killed, stopped for a while, and left without it: nothing is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator
from itertools import count
from random import Random
from typing import Any

import pytest

from bridge.demo.postgres import PostgresServer
from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import Build, Ci, Upload, draw_builds
from tests.support.claims import assert_one_owner_at_a_time, claims, note_claims
from tests.support.corpus import Corpus
from tests.support.outcome import api_builds, assert_nothing_is_lost, settled
from tests.support.processes import GatewayProcess, NewGateway, until

BUILDS = 12
KILLS = 4
RESTARTS = 3
LEASE_SECONDS = 4  # long enough for a machine that is busy with other tests
SETTLE_SECONDS = 200.0


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    async with PostgresServer() as server:
        yield server


@pytest.fixture
def settings(settings: dict[str, Any], server: PostgresServer) -> dict[str, Any]:
    """Return settings that two gateways may share: one ledger, one folder."""
    return {
        **settings,
        "store": {**settings["store"], "url": server.url()},
        "polling": {**settings["polling"], "min_interval": "500ms", "confirm_timeout": "5s"},
        "delivery": {**settings["delivery"], "lease_duration": f"{LEASE_SECONDS}s"},
    }


class PatientCi(Ci):
    """CI that counts how many tries were answered "come again", and how many were not answered while it waited."""

    put_off = 0
    unanswered = 0

    async def _post(self, build: Build, upload: Upload) -> tuple[int, str]:
        try:
            status, body = await super()._post(build, upload)
        except TimeoutError:
            self.unanswered += 1
            raise
        self.put_off += status == 503
        return status, body


async def _answered(ci: Ci, share: float, builds: list[Build]) -> None:
    whole = sum(len(build.uploads) for build in builds)
    await until(lambda: ci.answered >= share * whole, f"{share:.0%} of {whole} uploads are answered", seconds=120)


@pytest.mark.early
@pytest.mark.timeout(600)
async def test_no_build_is_visited_by_two_owners_at_once_and_nothing_is_lost(
    new_gateway: NewGateway,
    settings: dict[str, Any],
    server: PostgresServer,
    sandbox: Sandbox,
    corpus: Corpus,
    seed: int,
) -> None:
    chance, world = Random(seed), sandbox.state
    builds = draw_builds(chance, corpus, BUILDS)
    gateways = [new_gateway(settings) for _ in range(2)]
    await asyncio.gather(*(gateway.start() for gateway in gateways))  # both migrate: one waits for the other
    await note_claims(server.url())
    turn = count()

    def next_url() -> str:
        return gateways[next(turn) % 2].server_url

    async def disturb(ci: Ci) -> None:
        for number in range(KILLS):
            await _answered(ci, (number + 1) / (KILLS + 1), builds)
            gateway = gateways[number % 2]
            if number < 2:
                await gateway.kill()
                await gateway.start()
            else:  # it comes back in the middle of what it did, when others have gone on with it
                gateway.signal(signal.SIGSTOP)
                await asyncio.sleep(LEASE_SECONDS + 1)
                gateway.signal(signal.SIGCONT)

    async with Ci(world, next_url) as ci, asyncio.TaskGroup() as tasks:
        tasks.create_task(disturb(ci))
        tasks.create_task(ci.play_all(builds))
    await until(
        lambda: settled(gateways[0], world, builds),
        "every build has come to its end",
        seconds=SETTLE_SECONDS,
        look_seconds=0.3,
    )
    shown = await api_builds(gateways[1])
    assert [await gateway.terminate() for gateway in gateways] == [0, 0]

    assert_nothing_is_lost(world, builds, shown)
    found = await claims(server.url())
    assert_one_owner_at_a_time(found, builds=len(builds))
    assert len({claim.owner for claim in found}) >= 2


@pytest.mark.early
@pytest.mark.timeout(600)
async def test_a_database_that_goes_and_comes_back_costs_uploads_a_retry_and_nothing_else(
    gateway: GatewayProcess, server: PostgresServer, sandbox: Sandbox, corpus: Corpus, seed: int
) -> None:
    chance, world = Random(seed), sandbox.state
    builds = draw_builds(chance, corpus, BUILDS)

    async def disturb(ci: Ci) -> None:
        for number in range(RESTARTS):
            await _answered(ci, number / RESTARTS, builds)
            await server.stop(signal.SIGINT if number % 2 else signal.SIGQUIT)  # politely, and as a crash
            assert await gateway.status_of(f"{gateway.server_url}/livez") == 200
            await until(lambda: _is_red(gateway), "readiness is red")
            if number == 0:  # the others end while uploads wait, which are then answered "success"
                await until(lambda: ci.put_off > 0, "an upload is told to come again")
            await server.start()
            await until(gateway.ready, "the gateway is ready again")

    async with PatientCi(world, lambda: gateway.server_url) as ci, asyncio.TaskGroup() as tasks:
        tasks.create_task(disturb(ci))
        tasks.create_task(ci.play_all(builds))
    await until(
        lambda: settled(gateway, world, builds),
        "every build has come to its end",
        seconds=SETTLE_SECONDS,
        look_seconds=0.3,
    )
    shown = await api_builds(gateway)
    assert await gateway.terminate() == 0

    assert_nothing_is_lost(world, builds, shown)
    assert ci.unanswered == 0


async def _is_red(gateway: GatewayProcess) -> bool:
    return await gateway.status_of(f"{gateway.server_url}/readyz") == 503
