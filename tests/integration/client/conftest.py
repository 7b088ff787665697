import asyncio
from contextlib import suppress

import pytest

from bridge.client.session import GuardedSession, Timeouts
from tests.support.ports import held_port


@pytest.fixture
async def raw_server():
    """Start servers that speak whatever bytes a test wants; `serve(reader, writer)` runs for each connection."""
    servers, tasks = [], set()

    async def start(serve):
        async def handle(reader, writer):
            tasks.add(asyncio.current_task())
            try:
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    await serve(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        return server.sockets[0].getsockname()[1]

    yield start
    for server in servers:
        server.close()
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [end for end in ends if isinstance(end, Exception)] == []


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
