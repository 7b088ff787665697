"""Back up while the gateway runs, take more, restore: nothing in the spool is lost, the doubtful listed, not sent."""

import shutil
import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import UPLOAD_PATH
from tests.support.ports import REFUSED_URL, held_port
from tests.support.processes import GatewayProcess, NewGateway, Settings, until
from tests.support.starting import run_program

JOB = "b" * 32
PADDING = "x" * 200_000  # more than rides in a row


@pytest.fixture
def settings(settings: dict[str, Any]) -> Iterator[Settings]:
    """Return settings without CodeArts to wait for, whose admin address the commands find in the file."""
    with held_port() as port:
        yield {**settings, "admin": {"port": port}, "codearts": {}}


async def bridge(gateway: GatewayProcess, *words: str) -> tuple[int, str, str]:
    """Run a command on the settings of a gateway; return its exit code and what it said."""
    return await run_program(["bridge", *words, "--config", str(gateway.config)])


def report(name: str) -> bytes:
    return f'<testsuite name="{name}"><testcase name="a"/><system-out>{PADDING}</system-out></testsuite>'.encode()


async def upload(gateway: GatewayProcess, name: str) -> None:
    form = aiohttp.FormData()
    form.add_field("files", report(name), filename=name)
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


async def test_a_ledger_that_is_started_held_takes_uploads_and_sends_nothing_until_it_is_resumed(
    sandbox: Sandbox, settings: Settings, new_gateway: NewGateway, tmp_path: Path
) -> None:
    """As after pg_dump or a snapshot: the copy itself carries no mark."""
    away = new_gateway({**settings, "testnod": {**settings["testnod"], "base_url": REFUSED_URL}})
    await away.start()
    await upload(away, "first.xml")
    await away.kill()

    held = new_gateway(settings, "--paused")
    await held.start()  # and so it is ready for uploads
    await upload(held, "second.xml")
    assert "bridge resume" in (await admin(held, "/readyz"))["paused"]
    assert [report["name"] for report in (await admin(held, "/api/v1/paused"))["reports"]] == ["first.xml"]
    assert await held.terminate() == 0

    again = new_gateway(settings)  # held is the ledger, not the process
    await again.start()
    assert "bridge resume" in (await admin(again, "/readyz"))["paused"]
    assert not sandbox.state.runs.all()
    assert (await bridge(again, "resume", "--redeliver"))[0] == 0
    await until(lambda: set(states(tmp_path / "bridge.db").values()) == {"delivered"}, "all are delivered")
    assert (await bridge(again, "resume"))[0] == 1  # it is not held any more


@pytest.mark.parametrize(
    ("option", "sent"), [("--assume-delivered", {"second.xml"}), ("--redeliver", {"first.xml", "second.xml"})]
)
async def test_a_restored_ledger_is_held_until_a_person_resumes_it(
    sandbox: Sandbox, settings: Settings, new_gateway: NewGateway, tmp_path: Path, option: str, sent: set[str]
) -> None:
    away = {**settings, "testnod": {**settings["testnod"], "base_url": REFUSED_URL}}
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
    assert "bridge resume" in (await admin(restored, "/readyz"))["paused"]
    held = await admin(restored, "/api/v1/paused")
    assert [report["name"] for report in held["reports"]] == ["first.xml"]
    assert set(states(tmp_path / "bridge.db").values()) == {"pending"}  # the second was taken up from the spool
    assert set(states(tmp_path / "bridge.db")) == {"first.xml", "second.xml"}

    assert not sandbox.state.runs.all()

    code, _, why = await bridge(restored, "resume")
    assert (code, "first.xml" in why) == (1, True)
    assert (await bridge(restored, "resume", option))[0] == 0
    await until(lambda: set(states(tmp_path / "bridge.db").values()) == {"delivered"}, "all are delivered")
    arrived = [upload.sha256 for run in sandbox.state.runs.all() for upload in run.uploads]
    assert sorted(arrived) == sorted(sha256(report(name)).hexdigest() for name in sent)
