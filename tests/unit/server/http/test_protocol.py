"""The protocol of one connection, where aiohttp expects what a busy event loop does not keep."""

import asyncio
import gc

from aiohttp import web

from bridge.server.http.protocol import Connection


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
