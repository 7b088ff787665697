"""Two gateways on one PostgreSQL whose settings differ for a while, as in a rolling restart: nothing waits, or dies."""

from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import aiohttp
import pytest

from bridge.demo.postgres import PostgresServer
from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import Build, Ci, draw_builds
from tests.support.corpus import Corpus
from tests.support.outcome import api_builds, settled
from tests.support.processes import GatewayProcess, NewGateway, Settings, until
from tests.support.reckoning import wrong_bytes, wrong_order
from tests.support.weed import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, Weed, new_prefix

BUILDS = 8
SETTLE_SECONDS = 200.0
STALE_TOKEN = "a-token-of-a-project-that-is-gone"


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    async with PostgresServer() as server:
        yield server


@pytest.fixture
def settings(settings: dict[str, Any], server: PostgresServer, weed: Weed) -> dict[str, Any]:
    """Return the new settings. What waits for another attempt waits for longer than the test."""
    prefix = new_prefix()
    keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
    return {
        **settings,
        "store": settings["store"]
        | {
            "url": server.url(),
            "spool": f"s3://{BUCKET}/{prefix}spool",
            "archive": f"s3://{BUCKET}/{prefix}archive",
        },
        "s3": {"endpoint_url": weed.url, "region": REGION, **keys},
        "delivery": {**settings["delivery"], "retry_initial_delay": "30m", "retry_max_delay": "1h"},
    }


def former(settings: dict[str, Any]) -> Settings:
    """Return the settings that the other gateway still has: a stale token, another key of S3, and no archive."""
    return {
        **settings,
        "store": {**settings["store"], "archive": ""},
        "s3": {**settings["s3"], "secret_access_key": "rotated"},
        "routes": [{**settings["routes"][0], "project_token": STALE_TOKEN}],
    }


@pytest.mark.timeout(600)
async def test_a_replica_with_stale_settings_delays_and_loses_nothing(
    new_gateway: NewGateway,
    settings: dict[str, Any],
    sandbox: Sandbox,
    corpus: Corpus,
    seed: int,
) -> None:
    world = sandbox.state
    builds = draw_builds(Random(seed), corpus, 3 * BUILDS)
    new, old = new_gateway(settings), new_gateway(former(settings))
    await new.start()
    await old.spawn()
    await until(old.listens, "the old gateway listens")  # it takes no uploads, because it cannot write its spool

    await _play(builds[:BUILDS], new, sandbox)
    assert await _own_faults(new) == []
    [fault] = await _own_faults(old)
    assert 'this replica\'s project_token of route "all"' in fault
    assert STALE_TOKEN not in old.stderr() + fault

    old.write(settings)
    assert await old.terminate() == 0
    await old.start()
    await _play(builds[BUILDS : 2 * BUILDS], old, sandbox)
    assert await new.terminate() == 0
    await _play(builds[2 * BUILDS :], old, sandbox)

    shown = await api_builds(old)
    assert await old.terminate() == 0
    states = Counter(
        (delivery["target"], delivery["state"])
        for build in shown.values()
        for report in build["reports"]
        for delivery in report["deliveries"]
    )
    reports = sum(build.count() for build in builds)
    assert states == {("testnod", "delivered"): reports, ("archive", "delivered"): reports}
    wrong = [sentence for build in builds for rule in (wrong_bytes, wrong_order) for sentence in rule(world, build)]
    assert not wrong, "\n".join(wrong)
    events = [event["upstream"] for gateway in (new, old) for event in gateway.events("breaker_opened")]
    assert [name for name in events if name.startswith("storage:")] == []


async def _play(builds: list[Build], gateway: GatewayProcess, sandbox: Sandbox) -> None:
    """Upload builds to a gateway, and return when all have come to their end."""
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        await ci.play_all(builds)
    await until(
        lambda: settled(gateway, sandbox.state, builds),
        "every build has come to its end",
        seconds=SETTLE_SECONDS,
        look_seconds=0.3,
    )


async def _own_faults(gateway: GatewayProcess) -> list[str]:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/readyz") as answer:
        health = await answer.json()
    return [upstream["reason"] for upstream in health["upstreams"] if upstream["breaker"] == "open"]
