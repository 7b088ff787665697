"""Clients that hold an access key without its secret: what they send is bounded, and honest signers come in."""

import asyncio
import hashlib
import time
from io import BytesIO
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import pytest

from bridge.protocols import aksk_signing
from tests.support.processes import NewGateway, until
from tests.support.upload_server import FORM, JOB, form, large

MIB = 1 << 20
MAX_REQUEST = 4 * MIB
SENT = 3 * MIB
PIECE = MIB // 4  # of each connection, not yet written
ADDRESSES = [f"127.0.0.{2 + number}" for number in range(6)]
TARGET = f"/v1/report/junit/report/upload?build_no=1&job_id={JOB}"
KEY = aksk_signing.AccessKeyPair(access_key="AKSHOP", secret_key="canary-secret-key")
MADE_UP = aksk_signing.AccessKeyPair(access_key="AKSHOP", secret_key="made-up")


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    key = {"name": "sdk", "access_key": KEY.access_key, "secret_key": KEY.secret_key}
    return settings | {
        "server": settings["server"] | {"max_request_size": "4 MiB", "max_report_size": "4 MiB"},
        "callers": {"auth": ["aksk"]},
        "callers.keys": [key],
    }


def signed(host: str, key: aksk_signing.AccessKeyPair, body: bytes) -> dict[str, str]:
    """Return headers that sign the digest of `body` without announcing it."""
    path, _, query = TARGET.partition("?")
    request = aksk_signing.RawRequest(method="POST", path=path, query=query, headers=(("Host", host),))
    digest = hashlib.sha256(body).hexdigest()
    return FORM | dict(aksk_signing.sign(request, key, at=time.time_ns() // 1000, payload_sha256=digest))


class Crowd:
    """Connections that each send most of a body with a made-up signature, and then stop."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc
        self._writers: list[asyncio.StreamWriter] = []
        self.answers: list[asyncio.Task[bytes]] = []

    async def join(self, address: str) -> None:
        name, _, port = self._host.partition(":")
        reader, writer = await asyncio.open_connection(name, int(port), local_addr=(address, 0))
        self._writers.append(writer)
        lines = [f"{name}: {value}" for name, value in signed(self._host, MADE_UP, b"").items()]
        head = "\r\n".join([f"POST {TARGET} HTTP/1.1", f"Host: {self._host}", *lines, f"Content-Length: {MAX_REQUEST}"])
        body = form(("report.xml", large(MAX_REQUEST)))[:SENT]
        writer.write(f"{head}\r\n\r\n".encode() + body)
        self.answers.append(asyncio.create_task(reader.read(12)))

    @property
    def ended(self) -> list[bytes]:
        return [answer.result() for answer in self.answers if answer.done()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for answer in self.answers:
            answer.cancel()
        for writer in self._writers:
            writer.transport.abort()


def bytes_in(spool: Path) -> int:
    sizes = []
    for path in spool.rglob("*"):
        try:
            sizes.append(path.stat().st_size if path.is_file() else 0)
        except FileNotFoundError:  # just deleted
            continue
    return sum(sizes)


async def test_bodies_that_never_end_are_bounded_and_keep_no_honest_signer_out(
    new_gateway: NewGateway, settings: dict[str, Any], tmp_path: Path
) -> None:
    gateway, spool = new_gateway(settings), tmp_path / "spool"
    await gateway.start()
    most = 0

    with Crowd(gateway.server_url) as crowd:

        async def arrived() -> bool:
            nonlocal most
            there = bytes_in(spool)
            most = max(most, there)
            return there + SENT * len(crowd.ended) >= len(crowd.answers) * (SENT - PIECE)

        for address in [*ADDRESSES, ADDRESSES[-1]]:
            await crowd.join(address)
            await until(arrived, "the body has arrived, or another made way")

        assert most <= 2 * MAX_REQUEST + PIECE
        assert crowd.ended == [b"HTTP/1.1 503"] * (len(ADDRESSES) - 1)

        body = form(("report.xml", large(SENT)))
        headers = signed(urlsplit(gateway.server_url).netloc, KEY, body)
        async with (
            aiohttp.ClientSession() as http,
            http.post(gateway.server_url + TARGET, headers=headers, data=BytesIO(body)) as answer,
        ):
            assert (answer.status, (await answer.json())["status"]) == (200, "success")
