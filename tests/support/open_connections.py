"""Connections that a test leaves open; to import this changes asyncio's event loops.

Sockets that are found as garbage make a later test fail.
"""

import asyncio
from asyncio import selector_events, sslproto

TLS_ENDS = (sslproto.SSLProtocolState.FLUSHING, sslproto.SSLProtocolState.SHUTDOWN)
"""The connection is closed and waits for its peer to close it too, which a client may leave undone."""

_left: list[str] = []
_accept = selector_events.BaseSelectorEventLoop._accept_connection2
_close_loop = selector_events.BaseSelectorEventLoop.close


def take_connections_left() -> list[str]:
    """Return what stood in loops that were closed since the last call."""
    left = _left[:]
    _left.clear()
    return left


def close_loop(loop):
    """Close a loop and its connections, and note those."""
    left = [transport for transport in loop._transports.values() if transport._sock is not None]
    for transport in left:
        protocol = transport.get_protocol()
        if getattr(protocol, "_state", None) not in TLS_ENDS:
            _left.append(f"{transport!r} of {protocol!r}: {transport._sock!r}")
        transport.abort()
    if left:
        loop.run_until_complete(asyncio.sleep(0))  # in which they close their sockets
    _close_loop(loop)


async def accept(loop, protocol_factory, connection, extra, sslcontext=None, server=None, *args, **options):
    """Close a connection whose server was closed just after it was accepted. asyncio (3.11 to 3.13) forgets it open."""
    if server is not None and not server.is_serving():
        connection.close()
    else:
        await _accept(loop, protocol_factory, connection, extra, sslcontext, server, *args, **options)


selector_events.BaseSelectorEventLoop.close = close_loop
selector_events.BaseSelectorEventLoop._accept_connection2 = accept
