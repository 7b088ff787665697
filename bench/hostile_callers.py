"""Measure an honest caller alone, and beside callers that try to keep others out, one attack after the other.

Always exits with 0. README.md explains the figures.
"""

import argparse
import asyncio
import json
import multiprocessing
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from contenders import gateway
from intake import FOLDER, heading, reached, share_cores
from load import BOUNDARY, PART_END, part_head, upload_path
from processes import ServerProcess, free_port
from reports import small_reports
from surroundings import surroundings

SECONDS: Final = 20.0
TARGET: Final = 5.0  # times as long as alone, at p99
IAM_SECONDS: Final = 0.1
PAUSE_SECONDS: Final = 0.02
HONEST: Final = "127.0.0.1"
HOSTILE: Final = [f"127.0.0.{number}" for number in range(2, 6)]
CASES: Final = 60
FIELD: Final = b"X-Field: " + b"x" * 126_000 + b"\r\n"
TABLES: Final = """
[codearts]
endpoint = "http://127.0.0.1:{port}"
iam_endpoint = "http://127.0.0.1:{port}"
domain = "firm"
[[callers.keys]]
name = "sdk"
access_key = "AKBENCH"
secret_key = "{token}"
"""


# -- IAM and Build, and the honest caller ---------------------------------------------------------------------------


async def _upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as IAM does: tokens that begin with "good" are valid."""
    with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            await asyncio.sleep(IAM_SECONDS)
            is_good = b"x-subject-token: good" in head.lower() or head.startswith(b"POST")
            user = {"name": "ann", "domain": {"name": "firm"}}
            token = {"expires_at": "2099-01-01T00:00:00.000000Z", "user": user, "project": {"id": "p" * 32}}
            body = json.dumps({"token": token}).encode()
            status = b"200 OK" if is_good else b"404 Not Found"
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
    writer.close()


async def _ask(port: int, request: bytes) -> int:
    """Send a request over a connection of its own; return the status of its answer, 0 if there is none."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(HONEST, 0))
    except OSError:
        return 0
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        return int(head[9:12])
    except (OSError, asyncio.IncompleteReadError):
        return 0
    finally:
        writer.close()


@dataclass
class Honest:
    """An honest caller that uploads by token, uploads with an IAM token never seen before, and logs in."""

    port: int
    token: str
    builds: "count[int]" = field(default_factory=lambda: count(1))

    async def measure(self, seconds: float) -> dict[str, list[float]]:
        """Return the seconds of each call by kind; a call that fails counts as infinitely long."""
        calls = {"upload": self._upload, "upload with a new IAM token": self._new_token, "login": self._login}
        times = await asyncio.gather(*(self._repeat(call, seconds) for call in calls.values()))
        return dict(zip(calls, times, strict=True))

    async def _repeat(self, call: Callable[[], bytes], seconds: float) -> list[float]:
        times: list[float] = []
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            began = time.perf_counter()
            status = await _ask(self.port, call())
            times.append(time.perf_counter() - began if status in (200, 201) else float("inf"))
            await asyncio.sleep(PAUSE_SECONDS)
        return times

    def _upload(self) -> bytes:
        return self._upload_with(self.token)

    def _new_token(self) -> bytes:
        return self._upload_with(f"good-{secrets.token_hex(16)}")

    def _upload_with(self, token: str) -> bytes:
        build_no = next(self.builds)
        (report,) = small_reports(CASES, range(build_no, build_no + 1))
        body = part_head("TEST-a.xml") + report + PART_END
        return (
            f"POST {upload_path(build_no)} HTTP/1.1\r\nHost: bridge\r\nX-Auth-Token: {token}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def _login(self) -> bytes:
        return b"POST /v3/auth/tokens HTTP/1.1\r\nHost: bridge\r\nContent-Length: 2\r\n\r\n{}"


# -- attacks: each connection begins again when it is closed --------------------------------------------------------

Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _stalled_login(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"POST /v3/auth/tokens HTTP/1.1\r\nHost: bridge\r\nContent-Length: 100000\r\n\r\n{")
    await _drip(reader, writer)


async def _half_a_key(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    writer.write(
        b"POST /v1/job/%b/1/build-info HTTP/1.1\r\nHost: bridge\r\nX-Sdk-Date: %b\r\nContent-Length: 100000\r\n"
        b"Authorization: SDK-HMAC-SHA256 Access=AKBENCH, SignedHeaders=host;x-sdk-date, Signature=%b\r\n\r\n{"
        % (b"a" * 32, date.encode(), b"0" * 64)
    )
    await _drip(reader, writer)


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    response = asyncio.create_task(reader.read(64))
    while not response.done():
        await asyncio.wait((response,), timeout=10.0)
        writer.write(b"x")


async def _endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET / HTTP/1.1\r\nHost: bridge\r\n" + FIELD + FIELD)
    await reader.read()


async def _wrong_tokens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask with made-up tokens, which the bridge has IAM verify."""
    token = secrets.token_hex(16).encode()
    writer.write(
        b"GET /v1/job/%b/1/build-info HTTP/1.1\r\nHost: bridge\r\nX-Auth-Token: %b\r\n\r\n" % (b"a" * 32, token)
    )
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(PAUSE_SECONDS)


async def _malformed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET / HTTP/1.1\r\nBroken\r\n\r\n")
    await reader.read()
    await asyncio.sleep(PAUSE_SECONDS)


ATTACKS: Final[dict[str, tuple[Attack, int]]] = {
    "logins whose bodies never end": (_stalled_login, 64),
    "signatures of half a key whose bodies never end": (_half_a_key, 64),
    "heads that never end": (_endless_head, 300),
    "silent connections": (_silent, 1500),
    "made-up IAM tokens": (_wrong_tokens, 80),
    "malformed requests": (_malformed, 4),
}


def attack(name: str, port: int) -> None:
    """Run one attack until the process is ended."""
    run, connections = ATTACKS[name]
    asyncio.run(_attack(run, connections, port))


async def _attack(run: Attack, connections: int, port: int) -> None:
    async def again(number: int) -> None:
        source = HOSTILE[number % len(HOSTILE)]
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
                try:
                    await run(reader, writer)
                finally:
                    writer.close()
            except (OSError, asyncio.IncompleteReadError):
                pass
            await asyncio.sleep(0.5)  # a client that is closed at once would measure its own speed

    async with asyncio.TaskGroup() as clients:
        for number in range(connections):
            clients.create_task(again(number))


# -- the measurement ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _beside(name: str, port: int) -> AsyncIterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=attack, args=(name, port), daemon=True)
    process.start()
    await asyncio.sleep(3.0)  # until all its connections are there
    try:
        yield
    finally:
        process.terminate()
        process.join()


async def _measure(folder: Path, seconds: float, only: str) -> None:
    token, port = secrets.token_hex(16), free_port()
    upstream = await asyncio.start_server(_upstream, "127.0.0.1", port)
    tables = TABLES.format(port=port, token=token)
    with gateway(folder / "gateway", token, auth='["token", "iam", "aksk"]', tables=tables) as server:
        honest = Honest(server.port, token)
        await honest.measure(1.0)  # warms up
        heading("alone")
        alone = await honest.measure(seconds)
        for name, times in alone.items():
            print(f"  {name}: {_figures(times)}")
        for name, (_, connections) in ATTACKS.items():
            if only in name:
                await _attacked(server, honest, alone, name, connections, seconds, folder / "gateway" / "gateway.log")
    upstream.close()


async def _attacked(
    server: ServerProcess,
    honest: Honest,
    alone: dict[str, list[float]],
    name: str,
    connections: int,
    seconds: float,
    log: Path,
) -> None:
    heading(f"beside {connections} x {name}")
    logged = log.stat().st_size
    async with _beside(name, server.port):
        beside = await honest.measure(seconds)
        memory = server.memory_bytes() >> 20
    for call, times in beside.items():
        ratio = _p99(times) / _p99(alone[call])
        print(f"  {call}: {_figures(times)}; p99 {ratio:.1f} times; under {TARGET:.0f} {reached(ratio < TARGET)}")
    print(f"  memory {memory} MiB, log {(log.stat().st_size - logged) >> 10} KiB")


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100, method="inclusive")[-1]


def _figures(times: list[float]) -> str:
    failed = times.count(float("inf"))
    return f"p50 {median(times) * 1000:.1f} ms, p99 {_p99(times) * 1000:.1f} ms, of {len(times)}, {failed} failed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each attack, default {SECONDS:.0f}")
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"on a disk, not in memory; default {FOLDER}")
    args = parser.parse_args()
    share_cores()
    with tempfile.TemporaryDirectory(prefix="bridge-bench-", dir=args.folder) as folder:
        for line in surroundings(Path(folder)):
            print(line)
        asyncio.run(_measure(Path(folder), args.seconds, args.only))


if __name__ == "__main__":
    main()
