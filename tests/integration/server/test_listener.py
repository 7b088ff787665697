"""Where a listener cannot listen: the person who reads it is told where that was."""

import asyncio
import socket

import pytest
from aiohttp import web

from bridge.commands.console import print_failure
from bridge.server.http.connections import ConnectionLimiter
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
