import asyncio

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import TransferEncodingError
from aiohttp.web_protocol import RequestPayloadError

from bridge.errors import BadParameter, TooLarge, Unavailable
from bridge.server.http.body import read_body, read_small_body


@pytest.fixture
async def content():
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    return StreamReader(protocol, 2**16, loop=loop)


async def read(content: StreamReader, *, max_bytes: int = 100, stall_seconds: float = 30) -> list[bytes]:
    return [piece async for piece in read_body(content, max_bytes=max_bytes, stall_seconds=stall_seconds)]


@pytest.mark.parametrize("size", [0, 1, 100])
async def test_a_body_within_the_limit_is_read_whole(content, size):
    content.feed_data(b"x" * size)
    content.feed_eof()
    assert b"".join(await read(content)) == b"x" * size


async def test_a_body_is_cut_as_soon_as_it_is_over_the_limit(content):
    content.feed_data(b"x" * 101)  # and there is no end of it
    with pytest.raises(TooLarge, match="larger than 100 bytes"):
        await read(content)


async def test_a_note_is_whole_or_too_large_with_its_own_remedy(content):
    content.feed_data(b"12")
    content.feed_data(b"3" * 100)
    content.feed_eof()
    with pytest.raises(TooLarge, match=r"^The body is larger than 100 bytes\. Send less\.$"):
        await read_small_body(content, max_bytes=100, remedy="Send less.")


@pytest.mark.parametrize("fed", [b"", b"x" * 50])
async def test_a_body_that_stalls_is_given_up_and_may_come_again(content, fed):
    content.feed_data(fed)
    with pytest.raises(Unavailable, match="too slowly"):
        await read(content, stall_seconds=0.01)


async def test_a_body_that_drips_is_given_up_though_each_wait_is_short(content):
    async def drip() -> None:
        for _ in range(1000):
            content.feed_data(b"x")
            await asyncio.sleep(0.002)
        content.feed_eof()

    dripping = asyncio.create_task(drip())
    with pytest.raises(Unavailable, match="too slowly"):
        await read(content, max_bytes=10**9, stall_seconds=0.5)
    assert not dripping.done()
    dripping.cancel()


async def test_a_body_that_comes_for_too_long_is_given_up_however_fast_it_is(content):
    async def pour() -> None:
        for _ in range(1000):
            content.feed_data(b"x" * 10_000)
            await asyncio.sleep(0.002)
        content.feed_eof()

    pouring = asyncio.create_task(pour())
    with pytest.raises(Unavailable, match="too slowly"):
        async for _ in read_body(content, max_bytes=10**9, max_seconds=0.1):
            pass
    assert not pouring.done()
    pouring.cancel()


@pytest.mark.parametrize("broken", [TransferEncodingError("x"), RequestPayloadError("x")])
async def test_broken_framing_is_the_callers_fault(content, broken):
    content.set_exception(broken)
    with pytest.raises(BadParameter, match="framing"):
        await read(content)


async def test_a_client_that_went_away_is_told_as_such(content):
    content.set_exception(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await read(content)
