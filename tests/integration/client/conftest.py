from contextlib import AsyncExitStack

import pytest

from bridge.client.session import GuardedSession, Timeouts
from tests.support.byte_server import ByteServer
from tests.support.ports import held_port


@pytest.fixture
async def raw_server():
    """Start servers that speak whatever bytes a test wants; `serve(reader, writer)` runs for each connection."""
    async with AsyncExitStack() as stack:

        async def start(serve):
            return (await stack.enter_async_context(ByteServer(serve))).port

        yield start


@pytest.fixture
def closed_port():
    """Return a port that refuses connections."""
    with held_port() as port:
        yield port


@pytest.fixture
async def new_session():
    """Make sessions with small limits, closed at the end of the test."""
    sessions = []

    def make(upstream="testnod", *, limits=None, **options):
        session = GuardedSession(upstream, limits=limits or Timeouts(connect_seconds=60, read_seconds=60), **options)
        sessions.append(session)
        return session

    yield make
    for session in sessions:
        await session.close()
