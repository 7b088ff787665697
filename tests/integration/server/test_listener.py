"""Where a listener cannot listen, which the person who reads it is told, and how it ends."""

import asyncio
import socket
from contextlib import suppress

import pytest
from aiohttp import web

from bridge.commands.console import print_failure
from bridge.server.http.connections import HEADER_SECONDS, ConnectionLimiter
from bridge.server.http.listener import Listener


@pytest.mark.parametrize("host", ["no host", "a..b", "203.0.113.7"], ids=["unknown", "no name", "not ours"])
async def test_a_host_that_cannot_be_listened_on_is_named(host, capsys):
    listener = Listener(web.Application(), host, 0, limiter=ConnectionLimiter(lambda _: None), shutdown_seconds=1)
    with pytest.raises(OSError) as failed:  # noqa: PT011 -- what it says is looked at
        await listener.start()
    await listener.close()
    print_failure(failed.value)
    assert host in capsys.readouterr().err


async def test_a_connection_that_arrives_while_a_listener_closes_raises_no_error():
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["message"]))
    listener = Listener(
        web.Application(), "127.0.0.1", 0, limiter=ConnectionLimiter(lambda _: None), shutdown_seconds=1
    )
    url = await listener.start()
    await asyncio.sleep(0)  # the task accepts

    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))):
        await asyncio.sleep(0)  # the event loop has seen the connection, and not accepted it
        await listener.close()
        await listener.close()

    assert errors == []


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_without_a_request_does_not_delay_the_end_of_a_listener(turns):
    """Whatever turn of the event loop it was accepted in."""
    listener = Listener(
        web.Application(), "127.0.0.1", 0, limiter=ConnectionLimiter(lambda _: None), shutdown_seconds=3600
    )
    url = await listener.start()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
        client.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(HEADER_SECONDS - 1):  # before its own deadline would close it
            await listener.close()
            with suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
