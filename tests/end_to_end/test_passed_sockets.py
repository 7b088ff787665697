"""A gateway whose listening socket systemd holds: over restarts, no connection is refused and no upload rejected."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.builds import UPLOAD_PATH
from tests.support.processes import GatewayProcess, until
from tests.support.starting import REPOSITORY, Running

RESTARTS = 2
CLIENTS = 4
REPORT = b'<testsuite name="s"><testcase classname="c" name="n"/></testsuite>'
ANSWER_SECONDS = 120.0

AS_SYSTEMD = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[3:]])
"""


class ActivatedGateway(GatewayProcess):
    """`bridge serve`, started as systemd starts a service that has a socket unit."""

    def __init__(self, folder: Path, settings: dict[str, Any], listening: socket.socket, name: str = "server") -> None:
        super().__init__(folder, settings)
        self._listening = listening
        self._name = name
        self._begin = self._activate

    async def _activate(self, program: Sequence[str], stdout: Path, stderr: Path) -> Running:
        descriptor = self._listening.fileno()
        with stdout.open("ab") as out, stderr.open("ab") as err:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", AS_SYSTEMD, str(descriptor), self._name, *program),
                cwd=REPOSITORY,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=(descriptor,),
            )


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        yield listening


@pytest.fixture
async def gateway(settings: dict[str, Any], listening: socket.socket, tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    async with ActivatedGateway(tmp_path / "gateway", settings, listening) as gateway:
        yield gateway


async def test_uploads_wait_in_the_socket_while_the_gateway_restarts(
    gateway: GatewayProcess, listening: socket.socket
) -> None:
    await gateway.start()
    port = listening.getsockname()[1]
    assert gateway.server_url == f"http://127.0.0.1:{port}"
    answers: list[tuple[int, str]] = []
    over = asyncio.Event()

    async def upload_again_and_again(job_id: str) -> None:
        build_no = 0
        while not over.is_set():
            build_no += 1
            form = aiohttp.FormData()
            form.add_field("files", REPORT, filename="report.xml", content_type="application/xml")
            params = {"job_id": job_id, "build_no": str(build_no)}
            timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
            # One connection each, as curl has it; aiohttp itself would try a POST only once.
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.post(f"{gateway.server_url}{UPLOAD_PATH}", params=params, data=form) as answer,
            ):
                answers.append((answer.status, await answer.text()))

    clients = [asyncio.create_task(upload_again_and_again(f"{number:032x}")) for number in range(CLIENTS)]

    async def uploads_go_on() -> None:
        before = len(answers)
        await until(
            lambda: len(answers) > before + CLIENTS or any(client.done() for client in clients), "uploads are answered"
        )

    try:
        for _ in range(RESTARTS):
            await uploads_go_on()
            assert await gateway.terminate() == 0
            assert gateway.events("drain_incomplete") == []
            await gateway.start()
        await uploads_go_on()
    finally:
        over.set()
        ended = await asyncio.gather(*clients, return_exceptions=True)

    assert ended == [None] * CLIENTS
    assert {status for status, _ in answers} == {200}, answers


async def test_a_gateway_does_not_start_on_a_socket_that_others_reach_if_its_settings_say_loopback(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as reachable:
        async with ActivatedGateway(tmp_path / "gateway", settings, reachable) as gateway:
            await gateway.spawn()
            assert await gateway.wait() == 1
            assert "server.host: is 127.0.0.1, but systemd passes a socket on 0.0.0.0." in gateway.stderr()


async def test_a_socket_without_the_name_of_a_listener_is_not_served(
    settings: dict[str, Any], listening: socket.socket, tmp_path: Path
) -> None:
    async with ActivatedGateway(tmp_path / "gateway", settings, listening, name="bridge.socket") as gateway:
        await gateway.spawn()
        assert await gateway.wait() == 1
        assert 'The socket "bridge.socket" that systemd passes cannot be used.' in gateway.stderr()
