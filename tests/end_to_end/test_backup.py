"""Back up while the gateway runs, take more, restore: nothing in the spool is lost, the doubtful listed, not sent."""

import asyncio
import shutil
import socket
import sqlite3
import sys
from pathlib import Path

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.end_to_end.builds import UPLOAD_PATH
from tests.end_to_end.conftest import NewGateway
from tests.end_to_end.processes import REPOSITORY, GatewayProcess, Settings, until

JOB = "b" * 32
PADDING = "x" * 200_000  # more than rides in a row


async def bridge(gateway: GatewayProcess, *words: str) -> tuple[int, str, str]:
    """Run a command on the settings of a gateway; return its exit code and what it said."""
    config = gateway.command()[-1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", *words, "--config", config),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def upload(gateway: GatewayProcess, name: str) -> None:
    form = aiohttp.FormData()
    body = f'<testsuite name="{name}"><testcase name="a"/><system-out>{PADDING}</system-out></testsuite>'
    form.add_field("files", body.encode(), filename=name)
    async with aiohttp.ClientSession() as http:
        params = {"job_id": JOB, "build_no": "1", "node_id": "default"}
        async with http.post(f"{gateway.server_url}{UPLOAD_PATH}", params=params, data=form) as answer:
            assert answer.status == 200, await answer.text()


async def admin(gateway: GatewayProcess, path: str) -> dict:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}{path}") as answer:
        return await answer.json()


def states(ledger: Path) -> dict[str, str]:
    with sqlite3.connect(ledger) as connection:
        query = "SELECT name, state FROM deliveries JOIN reports ON reports.id = report_id"
        return dict(connection.execute(query).fetchall())


@pytest.mark.parametrize(
    ("option", "sent"), [("--assume-delivered", {"second.xml"}), ("--send-again", {"first.xml", "second.xml"})]
)
async def test_a_restored_ledger_is_held_until_a_person_resumes_it(
    sandbox: Sandbox, settings: Settings, new_gateway: NewGateway, tmp_path: Path, option: str, sent: set[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        admin_port = free.getsockname()[1]
    settings = {**settings, "admin": {"port": admin_port}, "codearts": {}}  # nobody to wait for
    away = {**settings, "testnod": {**settings["testnod"], "base_url": "http://127.0.0.1:9"}}
    gateway = new_gateway(away)
    await gateway.start()
    await upload(gateway, "first.xml")
    code, said, _ = await bridge(gateway, "backup", str(tmp_path / "copy"))
    assert code == 0, said
    assert len(said.splitlines()) == 2
    assert (await bridge(gateway, "backup", str(tmp_path / "copy")))[0] == 1  # overwrites nothing
    await upload(gateway, "second.xml")
    await gateway.kill()
    for leftover in tmp_path.glob("bridge.db*"):
        leftover.unlink()
    shutil.copy(tmp_path / "copy" / "bridge.db", tmp_path / "bridge.db")

    restored = new_gateway(settings)
    await restored.start()
    assert "bridge resume" in (await admin(restored, "/readyz"))["held"]
    held = await admin(restored, "/api/v1/held")
    assert [report["name"] for report in held["reports"]] == ["first.xml"]
    assert set(states(tmp_path / "bridge.db").values()) == {"owed"}  # the second was taken up from the spool
    assert set(states(tmp_path / "bridge.db")) == {"first.xml", "second.xml"}

    assert not sandbox.world.runs.all()

    code, _, why = await bridge(restored, "resume")
    assert (code, "first.xml" in why) == (1, True)
    assert (await bridge(restored, "resume", option))[0] == 0
    await until(lambda: set(states(tmp_path / "bridge.db").values()) == {"delivered"}, "all are delivered")

    async def registered() -> set[str]:
        with sqlite3.connect(tmp_path / "bridge.db") as connection:
            query = (
                "SELECT name FROM registrations JOIN deliveries ON deliveries.id = delivery_id "
                "JOIN reports ON reports.id = report_id"
            )
            return {name for (name,) in connection.execute(query)}

    assert await registered() == sent
