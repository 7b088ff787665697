"""The stage of the end-to-end tests: the sandbox in this process, the gateway as a process of its own."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bridge.sandbox.sandbox import Sandbox
from bridge.sandbox.world import Behaviour
from tests.end_to_end.corpus import Corpus, read_corpus
from tests.end_to_end.processes import GatewayProcess, Settings, Table
from tests.end_to_end.reckoning import RUN_URL, TAGS

SEED = 20260301

NewGateway = Callable[..., GatewayProcess]


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return read_corpus()


@pytest.fixture
def seed() -> int:
    """Return what all chance of a test is drawn from; it is shown where the test fails, and by -s."""
    seed = int(os.environ.get("BRIDGE_SEED", SEED))
    print(f"BRIDGE_SEED={seed}")  # noqa: T201 -- to be able to play the same again
    return seed


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    # The stand-ins answer from this loop: its debug mode would be the slowest part of every figure.
    asyncio.get_running_loop().set_debug(False)
    async with Sandbox(behaviour=Behaviour(keep_bytes=False)) as sandbox:
        yield sandbox


@pytest.fixture
def settings(sandbox: Sandbox, tmp_path: Path) -> dict[str, Table | list[Table]]:
    """Return settings for a gateway before this sandbox; everything that waits waits for a part of a second only."""
    return {
        "server": {"host": "127.0.0.1", "port": 0},
        "admin": {"port": 0},
        "store": {"url": f"sqlite:///{tmp_path}/bridge.db", "spool": f"{tmp_path}/spool", "min_free": "16 MiB"},
        "testnod": {
            "base_url": sandbox.testnod_url,
            "storage_hosts": [urlsplit(sandbox.s3_url).hostname],
            "allow_private_storage": True,
        },
        "codearts": {"endpoint": sandbox.codearts_url},
        "polling": {"first": "200ms", "min": "200ms", "max": "1s", "settle": "500ms", "rate": 200},
        "delivery": {"first_delay": "100ms", "max_delay": "1s"},
        "callers": {"auth": "open"},
        "routes": [
            {"name": "all", "project_token": sandbox.project_token, "tags": list(TAGS), "run_url": RUN_URL},
        ],
    }


@pytest.fixture
async def new_gateway(tmp_path: Path) -> AsyncIterator[Callable[[Settings], GatewayProcess]]:
    """Make gateways that are not started yet; whichever still runs at the end of the test is killed."""
    made: list[GatewayProcess] = []

    def make(settings: Settings) -> GatewayProcess:
        made.append(GatewayProcess(tmp_path / f"gateway-{len(made)}", settings))
        return made[-1]

    yield make
    for gateway in made:
        if gateway.running:
            await gateway.kill()


@pytest.fixture
async def gateway(new_gateway: NewGateway, settings: Settings) -> GatewayProcess:
    """Return a gateway that is ready for uploads."""
    gateway = new_gateway(settings)
    await gateway.start()
    return gateway
