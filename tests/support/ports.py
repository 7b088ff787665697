"""Ports of 127.0.0.1 that belong to one test, and an address that refuses connections.

Servers of tests listen on port 0 if they can. If an address must be known before its server runs, use `held_port`.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """Yield a port on which only the caller's servers listen; connections are refused while none does.

    A socket is bound to it and never listens. With SO_REUSEADDR, Linux lets another socket with SO_REUSEADDR bind the
    same port and listen, as asyncio's, `socket.create_server`'s and Go's do. It gives the port to no connection, and to
    no program that asks for any free port.
    """
    with _bound() as holder:
        yield int(holder.getsockname()[1])


def _bound() -> socket.socket:
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


_REFUSING = _bound()

REFUSED_URL = f"http://127.0.0.1:{_REFUSING.getsockname()[1]}"
"""Nothing listens here as long as this process lives. It differs between processes: no parameter of a test may hold it,
because pytest-xdist compares the names of tests."""
