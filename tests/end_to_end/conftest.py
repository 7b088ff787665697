"""The stage of the end-to-end tests: the sandbox in this process, the gateway as a process of its own."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.sandbox.sandbox import Sandbox
from bridge.sandbox.state import Behavior
from tests.support.corpus import Corpus, read_corpus
from tests.support.processes import GatewayProcess, NewGateway, Settings
from tests.support.quick_settings import quick_settings

SEED = 20260301


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
    async with Sandbox(behavior=Behavior(keep_bytes=False)) as sandbox:
        yield sandbox


@pytest.fixture
def settings(sandbox: Sandbox, tmp_path: Path) -> dict[str, Any]:
    """Return settings for a gateway before this sandbox that a test may change."""
    return quick_settings(sandbox, tmp_path)


@pytest.fixture
async def new_gateway(tmp_path: Path) -> AsyncIterator[NewGateway]:
    """Make gateways that are not started yet; those that still run at the end of the test are killed."""
    made: list[GatewayProcess] = []

    def make(settings: Settings, *options: str, forked: bool = True) -> GatewayProcess:
        made.append(GatewayProcess(tmp_path / f"gateway-{len(made)}", settings, *options, forked=forked))
        return made[-1]

    yield make
    for gateway in made:
        await gateway.close()


@pytest.fixture
async def gateway(new_gateway: NewGateway, settings: Settings) -> GatewayProcess:
    """Return a gateway that is ready for uploads."""
    gateway = new_gateway(settings)
    await gateway.start()
    return gateway
