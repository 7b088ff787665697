"""Three gateways behind the balancer of deploy/, restarted one after the other under load: no upload is rejected."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from bridge.demo.postgres import PostgresServer
from tests.support.builds import UPLOAD_PATH
from tests.support.outcome import api_builds
from tests.support.ports import held_port
from tests.support.processes import GatewayProcess, NewGateway, until
from tests.support.starting import REPOSITORY
from tests.support.weed import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, Weed, new_prefix

BALANCER = REPOSITORY / "deploy" / "compose" / "replicas" / "balancer.conf"
REPLICAS = 3
CLIENTS = 3
ANSWER_SECONDS = 240.0
PAUSE_SECONDS = 0.2  # between two uploads of a client, so that the builds of a slow machine end, too
REPORT = b'<testsuite name="s"><testcase classname="c" name="n"/></testsuite>'
LARGE = REPORT.replace(b"/></t", b"><system-out>" + 300_000 * b"x" + b"</system-out></testcase></t")  # goes through S3
LEASED = "SELECT count(*) FROM builds WHERE lease_until IS NOT NULL AND lease_owner LIKE '%/' || $1 || '/%'"


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    async with PostgresServer() as server:
        yield server


@pytest.fixture
def settings(settings: dict[str, Any], server: PostgresServer, weed: Weed) -> dict[str, Any]:
    keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
    store = {"url": server.url(), "spool": f"s3://{BUCKET}/{new_prefix()}spool"}
    return {
        **settings,
        "store": settings["store"] | store,
        "codearts": {},  # builds end with their upload
        "s3": {"endpoint_url": weed.url, "region": REGION, **keys},
        "delivery": {**settings["delivery"], "lease_duration": "1h"},  # a lease that is left would never end
    }


@pytest.fixture
async def gateways(new_gateway: NewGateway, settings: dict[str, Any]) -> list[GatewayProcess]:
    gateways = [new_gateway(settings) for _ in range(REPLICAS)]
    await gateways[0].start()  # creates the tables
    await asyncio.gather(*(gateway.start() for gateway in gateways[1:]))
    return gateways


@pytest.fixture
async def balancer(gateways: list[GatewayProcess], tmp_path: Path) -> AsyncIterator[str]:
    """Run nginx with the configuration of deploy/, without TLS and before these gateways; return its address."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed.")
    with held_port() as port:
        text = BALANCER.read_text(encoding="utf-8")
        for number, gateway in enumerate(gateways, 1):
            text = re.sub(rf"bridge-{number}:\d+", gateway.server_url.removeprefix("http://"), text)
        text = re.sub(r"(?m)^ *(ssl_\w+|listen \[).*$", "", text).replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
        text = text[: text.rindex("server {")]  # the one that redirects to https
        folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/errors; events {{}}\n"
            f"http {{ access_log off; client_body_temp_path {tmp_path}/body; {folders}\n{text}\n}}\n"
        )
        process = await asyncio.create_subprocess_exec(nginx, "-p", tmp_path, "-c", tmp_path / "nginx.conf")
        url = f"http://127.0.0.1:{port}"
        try:
            await until(lambda: is_ready(url), "nginx passes requests on")
            yield url
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def is_ready(url: str) -> bool:
    return await GatewayProcess.status_of(f"{url}/readyz") == 200


@pytest.mark.early
@pytest.mark.timeout(900)
async def test_a_rolling_restart_rejects_no_upload_and_leaves_no_lease(
    balancer: str, gateways: list[GatewayProcess], server: PostgresServer
) -> None:
    answers: list[tuple[int, str]] = []
    over = asyncio.Event()

    async def upload_again_and_again(job_id: str) -> int:
        build_no = 0
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        while not over.is_set():
            build_no += 1
            form = aiohttp.FormData()
            form.add_field("files", LARGE if build_no % 10 == 0 else REPORT, filename="a.xml")
            params = {"job_id": job_id, "build_no": str(build_no), "complete": "true"}
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.post(f"{balancer}{UPLOAD_PATH}", params=params, data=form) as answer,
            ):
                answers.append((answer.status, await answer.text()))
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS):
                    await over.wait()
        return build_no

    clients = [asyncio.create_task(upload_again_and_again(f"{number:032x}")) for number in range(CLIENTS)]

    async def uploads_go_on() -> None:
        before = len(answers)
        await until(
            lambda: len(answers) > before + 2 * CLIENTS or any(client.done() for client in clients),
            "uploads are answered",
            seconds=ANSWER_SECONDS,
        )

    left = []
    try:
        for gateway in gateways:
            await uploads_go_on()
            pid = str(gateway.pid)
            assert await gateway.terminate() == 0
            connection = await asyncpg.connect(server.url())
            left.append(await connection.fetchval(LEASED, pid))
            await connection.close()
            await gateway.start()
        await uploads_go_on()
    finally:
        over.set()
        ended = await asyncio.gather(*clients, return_exceptions=True)

    assert [end for end in ended if not isinstance(end, int)] == []
    assert {status for status, _ in answers} == {200}, answers
    assert left == [0] * REPLICAS
    builds = sum(end for end in ended if isinstance(end, int))

    async def all_are_finalized() -> bool:
        shown = await api_builds(gateways[0])
        return len(shown) == builds and all(build["state"] == "finalized" for build in shown.values())

    await until(all_are_finalized, "every build is finalized", seconds=ANSWER_SECONDS, look_seconds=0.5)
