"""Connections that a server of a test accepts while it ends, and what a test is told of those that it leaves open."""

import asyncio
import gc
import socket
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.support.byte_server import ByteServer
from tests.support.open_connections import take_connections_left

PATIENCE_SECONDS = 60
TURNS = range(6)
"""Of the event loop, from a client's connection to the end of the server."""


async def read(reader, _writer):
    await reader.read(1)


@asynccontextmanager
async def byte_server():
    async with ByteServer(read) as server:
        yield server.port


@asynccontextmanager
async def http_server():
    runner = web.AppRunner(web.Application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("server", [byte_server, http_server])
@pytest.mark.parametrize("turns", TURNS)
async def test_a_connection_that_is_made_while_a_server_ends_is_closed(server, turns):
    with socket.socket() as client:
        gc.disable()  # it would close a socket that is forgotten
        try:
            async with server() as port:
                client.connect(("127.0.0.1", port))
                client.setblocking(False)
                for _ in range(turns):
                    await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await end_of(client) == b""
        finally:
            gc.enable()


async def end_of(client):
    try:
        return await asyncio.get_running_loop().sock_recv(client, 1)
    except ConnectionResetError:
        return b""


async def test_an_error_of_a_server_fails_its_test():
    async def fail(_reader, _writer):
        raise ValueError("of the server")

    server = ByteServer(fail)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(ExceptionGroup) as raised:
        await server.close()
    assert raised.group_contains(ValueError, match="of the server")


def test_a_connection_that_is_left_open_is_told_of_and_closed():
    loop = asyncio.new_event_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as here:
        there, address = listening.accept()
        loop.run_until_complete(loop.connect_accepted_socket(asyncio.Protocol, there))
        loop.close()
        assert here.recv(1) == b""
    [left] = take_connections_left()
    assert f"raddr={address}" in left
