"""A proxy before a PostgreSQL server on a Unix socket; it counts what a gateway asks of it.

`postgres_counter.py PORT SOCKET` listens on PORT; each connection to PORT + 1 gets the counts so far, as JSON: commits,
statements, and round trips (messages after which a client waits for the server's answer).
"""

import asyncio
import json
import sys
from collections import Counter

QUERY, EXECUTE, SYNC = b"Q", b"E", b"S"  # message types (PostgreSQL: Message Formats)
TRANSACTION = (b"BEGIN", b"COMMIT", b"ROLLBACK", b"START")


class Counting:
    """The counts over all connections."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self.counts: Counter[str] = Counter(commits=0, statements=0, round_trips=0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on until one end closes it."""
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket_path)
        answers = asyncio.ensure_future(_copy(server_reader, writer))
        try:
            head = await reader.readexactly(4)  # the startup message has no type
            server_writer.write(head + await reader.readexactly(int.from_bytes(head) - 4))
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
                self._count(head[:1], body)
                server_writer.write(head + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            server_writer.close()
            await answers

    async def show(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Write the counts and close the connection."""
        writer.write(json.dumps(self.counts).encode())
        writer.close()

    def _count(self, kind: bytes, body: bytes) -> None:
        self.counts["round_trips"] += kind in (QUERY, SYNC)
        self.counts["commits"] += kind == QUERY and body.startswith(b"COMMIT")
        self.counts["statements"] += kind == EXECUTE or (kind == QUERY and not body.startswith(TRANSACTION))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


async def serve(port: int, socket_path: str) -> None:
    """Serve until the process is ended."""
    counting = Counting(socket_path)
    await asyncio.start_server(counting.show, "127.0.0.1", port + 1)
    await asyncio.start_server(counting.serve, "127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
