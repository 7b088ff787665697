"""The protocol of one connection, where aiohttp expects what a busy event loop does not keep."""

import asyncio
import gc

from aiohttp import web
from structlog.testing import capture_logs

from bridge.server.http.protocol import MAX_HEAD_BYTES, Connection


class LostAtOnce(Connection):
    """A connection that is reset before its task has begun, as uvloop reports it after a pause of the process."""

    __slots__ = ()

    def connection_made(self, transport):
        super().connection_made(transport)
        self.connection_lost(ConnectionResetError())
        transport.abort()


async def test_a_connection_that_is_lost_at_once_is_no_error():
    loop = asyncio.get_running_loop()
    errors = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    manager = web.Server(lambda _: web.Response())
    server = await loop.create_server(lambda: LostAtOnce(manager, loop=loop), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass
        finally:
            writer.close()
    await manager.shutdown()
    gc.collect()  # an exception that was not retrieved is reported when its task is freed
    assert errors == []


async def test_a_client_that_leaves_is_no_fault_of_the_gateway():
    began, ended = asyncio.Event(), asyncio.Event()

    async def read(request):
        began.set()
        try:
            return web.Response(body=await request.read())
        finally:
            asyncio.get_running_loop().call_soon(ended.set)

    loop = asyncio.get_running_loop()
    manager = web.Server(read)
    server = await loop.create_server(lambda: Connection(manager, loop=loop), "127.0.0.1", 0)
    with capture_logs() as logs:
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
            await began.wait()
            writer.transport.abort()
            await ended.wait()
        await manager.shutdown()
    assert logs == []


async def test_the_rest_of_a_body_is_no_head_once_the_gateway_stops():
    """It was answered 431, before the 503 of the request: aiohttp reads nothing more once it is to close."""

    async def unavailable(_):
        return web.Response(status=503)

    loop = asyncio.get_running_loop()
    manager = web.Server(unavailable)
    protocol = Connection(manager, loop=loop)
    protocol.connection_made(transport := Recorded())
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + bytes(1000))
    protocol.close()
    piece = bytes(MAX_HEAD_BYTES // 2)
    for _ in range(5):
        assert protocol.has_room(piece)
        protocol.data_received(piece)
    assert protocol.has_room()
    while not transport.written:  # noqa: ASYNC110 -- aiohttp's task answers in one of the next turns
        await asyncio.sleep(0)
    assert transport.written.startswith(b"HTTP/1.1 503")
    protocol.connection_lost(None)
    await manager.shutdown(0)


class Recorded(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self):
        super().__init__({"peername": ("127.0.0.1", 0)})
        self.written = b""

    def write(self, data):
        self.written += data

    def is_closing(self):
        return False

    def close(self):
        pass

    def abort(self):
        pass

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass
