"""Where a listener cannot listen, which the person who reads it is told, and how it ends."""

import asyncio
import socket
import ssl
from contextlib import ExitStack, asynccontextmanager
from types import SimpleNamespace

import pytest
import trustme
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


@pytest.fixture
def certificate():
    """A certificate that stays as it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return SimpleNamespace(context=context)


@asynccontextmanager
async def listening(certificate=None, **limits):
    """Yield a listener that would wait an hour for what is under way, and its port."""

    async def serve(_request):
        return web.Response(text="served")

    app = web.Application()
    app.router.add_get("/", serve)
    limiter = ConnectionLimiter(lambda _: None, **limits)
    listener = Listener(app, "127.0.0.1", 0, limiter=limiter, shutdown_seconds=3600, certificate=certificate)
    url = await listener.start()
    with ExitStack() as stack:

        def connect():
            client = stack.enter_context(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))))
            client.setblocking(False)
            return client

        yield listener, connect


async def end_within_the_deadline_of_a_connection(listener):
    async with asyncio.timeout(HEADER_SECONDS - 1):
        await listener.close()


async def last_bytes(client):
    try:
        return await asyncio.get_running_loop().sock_recv(client, 1 << 16)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_without_a_request_does_not_delay_the_end_of_a_listener(turns, is_tls, certificate):
    """Whatever turn of the event loop it was accepted in."""
    async with listening(certificate if is_tls else None) as (listener, connect):
        client = connect()
        for _ in range(turns):
            await asyncio.sleep(0)
        await end_within_the_deadline_of_a_connection(listener)
        assert await last_bytes(client) == b""


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_connection_that_makes_way_before_it_is_opened_does_not_delay_the_end_of_a_listener(
    is_tls, certificate
):
    async with listening(certificate if is_tls else None, max_connections=1) as (listener, connect):
        clients = [connect() for _ in range(4)]
        for _ in range(4):
            await asyncio.sleep(0)
        await end_within_the_deadline_of_a_connection(listener)
        assert [await last_bytes(client) for client in clients] == [b""] * 4


@pytest.mark.parametrize("turns", range(2, 7))
async def test_a_request_that_came_with_its_connection_is_answered_although_the_listener_ends(turns):
    async with listening() as (listener, connect):
        client = connect()
        client.send(b"GET / HTTP/1.1\r\nHost: bridge\r\n\r\n")
        for _ in range(turns):
            await asyncio.sleep(0)
        await end_within_the_deadline_of_a_connection(listener)
        assert (await last_bytes(client)).endswith(b"served")
