"""Measure normal uploads beside hundreds of clients that send one byte a second, and how the slow ones end.

Always exits with 0. README.md explains the figures.
"""

import argparse
import asyncio
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from statistics import median, quantiles

from contenders import gateway
from intake import FOLDER, heading, run_client, share_cores
from load import BOUNDARY, Load, Sent, upload_path
from surroundings import surroundings

SLOW_HEADERS = SLOW_BODIES = 250
SECONDS = 60.0
BYTE_SECONDS = 1.0  # between two bytes of a slow client
CASES = 60
BUILDS = 5  # of 20 reports, one at a time, in each round beside the slow ones
PAUSE_SECONDS = 0.02  # between a response and the next report


class SlowClients:
    """Keeps a number of slow connections open: each reconnects if it is closed."""

    def __init__(self, port: int, token: str, builds: Iterator[int]) -> None:
        self.open = 0
        self.ended: Counter[str] = Counter()
        self._port = port
        self._token = token
        self._builds = builds

    async def run(self, *, headers: int, bodies: int) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(headers):
                clients.create_task(self._reconnect(body=False))
            for _ in range(bodies):
                clients.create_task(self._reconnect(body=True))

    async def _reconnect(self, *, body: bool) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self.open += 1
                try:
                    await self._drip(reader, writer, body=body)
                finally:
                    self.open -= 1
                    writer.close()
            except OSError as error:
                self.ended[f"{'body' if body else 'header'}: {type(error).__name__}"] += 1
                await asyncio.sleep(BYTE_SECONDS)

    async def _drip(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, body: bool) -> None:
        request = self._head()
        writer.write(request if body else request[: request.index(b"Content-Length")])
        response = asyncio.create_task(reader.read(64))
        try:
            while not response.done():
                await asyncio.wait((response,), timeout=BYTE_SECONDS)
                writer.write(b"x")
            head = response.result()
        finally:
            response.cancel()
        self.ended[f"{'body' if body else 'header'}: {head[9:12].decode() or 'cut'}"] += 1

    def _head(self) -> bytes:
        return (
            f"POST {upload_path(next(self._builds))} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"X-Auth-Token: {self._token}\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
            "Content-Length: 1000000\r\n\r\n"
        ).encode()


async def _measure(folder: Path, seconds: float) -> None:
    token, builds = secrets.token_hex(16), count(1)
    with gateway(folder / "gateway", token) as server:

        async def normal() -> Sent:
            load = Load(
                port=server.port,
                token=token,
                cases=CASES,
                connections=1,
                builds=BUILDS,
                first_build=next(builds) * BUILDS,
                pause_seconds=PAUSE_SECONDS,
            )
            return Sent(**await asyncio.to_thread(run_client, "load.py", asdict(load)))

        await normal()  # warms up
        heading("one normal connection, alone")
        _print(await normal())
        heading(f"beside {SLOW_HEADERS} slow headers and {SLOW_BODIES} slow bodies, {seconds:.0f} seconds")
        slow = SlowClients(server.port, token, count(1_000_000))
        dripping = asyncio.create_task(slow.run(headers=SLOW_HEADERS, bodies=SLOW_BODIES))
        ends_at = time.monotonic() + seconds
        together = Sent()
        while time.monotonic() < ends_at:
            sent = await normal()
            together.accepted += sent.accepted
            together.response_seconds += sent.response_seconds
            together.rejected = together.rejected or sent.rejected
        _print(together)
        print(f"  slow ones open at the end: {slow.open}; how they ended: {dict(sorted(slow.ended.items()))}")
        print(f"  memory of gateway and validation processes: {server.memory_bytes() >> 20} MiB")
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


def _print(sent: Sent) -> None:
    milliseconds = [seconds * 1000 for seconds in sent.response_seconds]
    print(
        f"  p50 {median(milliseconds):.1f} ms, p99 {quantiles(milliseconds, n=100)[-1]:.1f} ms, "
        f"slowest {max(milliseconds):.1f} ms, of {len(milliseconds)} uploads, {sent.accepted} accepted"
    )
    if sent.rejected:
        print(f"  not every upload was accepted. The first such response:\n{sent.rejected}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"beside slow clients, default {SECONDS:.0f}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"on a disk, not in memory; default {FOLDER}")
    args = parser.parse_args()
    share_cores()
    with tempfile.TemporaryDirectory(prefix="bridge-bench-", dir=args.folder) as folder:
        for line in surroundings(Path(folder)):
            print(line)
        asyncio.run(_measure(Path(folder), args.seconds))


if __name__ == "__main__":
    main()
