"""The admin listener has the limits of the server listener."""

import asyncio

import pytest

from tests.integration.server.test_refused_lines import TOKENS
from tests.support.listener import running, say
from tests.support.loop_clock import LoopClock

STEP = 1.0
FIELD = b"X-Field: " + b"x" * 100_000 + b"\r\n"
RESUME = (
    b"POST /api/v1/resume HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n"
)


@pytest.fixture
async def gateway(tmp_path):
    async with running(tmp_path, TOKENS) as gateway:
        yield gateway


async def test_a_body_that_drips_is_ended(gateway):
    clock = LoopClock()
    host, _, port = gateway.admin_url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(RESUME)
    answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))

    def drip():
        writer.write(b"x")
        return answer.done()

    await clock.pass_until(drip, STEP)
    assert (await answer).startswith(b"HTTP/1.1 503 ")
    writer.close()


async def test_a_head_that_is_too_large_is_answered_431(gateway):
    answer = await say(gateway.admin_url, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + 3 * FIELD)
    assert (answer.status, answer.json["error_code"]) == (431, "CB.00060200")
