"""The gateway's disk fills up, refuses or forgets: every upload is kept or refused, and what was kept arrives."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.faults.gateway import FaultyGateway
from tests.support.builds import UPLOAD_PATH, Build, Upload
from tests.support.processes import until
from tests.support.reckoning import all_processed, stored

LARGE_BYTES = 300_000  # more than rides in a row: such a report goes to the spool
KEPT_IN_ROWS, KEPT_IN_SPOOL = 2_000, LARGE_BYTES

FULL_DISKS = int(os.environ.get("BRIDGE_FULL_DISKS", "1"))
"""How often the disk fills up under load; more by hand."""


@pytest.fixture
async def faulty(tmp_path: Path, settings: dict[str, Any]) -> AsyncIterator[FaultyGateway]:
    """Return a gateway on a bad disk that is not started yet; its ledger and spool lie in `tmp_path / "data"`."""
    data = tmp_path / "data"
    data.mkdir()
    settings["store"] |= {"url": f"sqlite:///{data}/bridge.db", "spool": f"{data}/spool"}
    async with FaultyGateway(tmp_path / "faulty", settings, bad_disk=True) as gateway:
        yield gateway


@pytest.fixture
async def send(faulty: FaultyGateway) -> AsyncIterator[Callable[..., Any]]:
    """Upload one report of a size once, and return what is answered."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:

        async def post(build: Build, report: tuple[str, bytes]) -> tuple[int, dict[str, Any], str | None]:
            form = aiohttp.FormData()
            form.add_field("files", report[1], filename=report[0])
            params = {"job_id": build.job_id, "build_no": str(build.build_no)}
            async with http.post(faulty.server_url + UPLOAD_PATH, params=params, data=form) as answer:
                return answer.status, json.loads(await answer.text()), answer.headers.get("Retry-After")

        yield post


def a_report(name: str, size: int) -> tuple[str, bytes]:
    start, end = f'<testsuite name="{name}"><testcase name="a"><system-out>', "</system-out></testcase></testsuite>"
    return name, f"{start}{'x' * (size - len(start) - len(end))}{end}".encode()


def a_build(build_no: int, *reports: tuple[str, bytes]) -> Build:
    return Build(
        job_id="d" * 32,
        build_no=build_no,
        branch="main",
        commit="c" * 40,
        uploads=(Upload(node_id="default", files=reports),),
        uploads_before_end=1,
        waits_for_finalize=False,
        pause_seconds=0,
    )


def begin(sandbox: Sandbox, build: Build) -> None:
    record = {"branch": build.branch, "commit": build.commit}
    sandbox.state.builds.start(build.job_id, build.build_no, at=sandbox.state.micros(), record=record)


async def goes_to_its_end(sandbox: Sandbox, build: Build) -> None:
    sandbox.state.builds.end(build.job_id, build.build_no, at=sandbox.state.micros())
    await until(lambda: all_processed(sandbox.state, build), f"build {build.build_no} is delivered and finalized")


def files_in(spool: Path) -> list[str]:
    return [path.name for path in spool.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        ("write", KEPT_IN_SPOOL),
        ("fsync", KEPT_IN_SPOOL),
        ("rename", KEPT_IN_SPOOL),
        ("commit", KEPT_IN_SPOOL),
        ("commit", KEPT_IN_ROWS),
        ("space", KEPT_IN_ROWS),
    ],
)
async def test_a_disk_that_fills_refuses_with_503_leaves_nothing_and_recovers_by_itself(
    faulty: FaultyGateway, sandbox: Sandbox, tmp_path: Path, send: Callable[..., Any], operation: str, size: int
) -> None:
    await faulty.start()
    report = a_report("TEST-a.xml", size)
    build = a_build(1, report)
    begin(sandbox, build)
    faulty.disk.fail(operation)
    if operation in ("space", "commit"):
        await until(lambda: _is(faulty, ready=False), "readiness turns red")

    status, answer, retry_after = await send(build, report)
    assert (status, answer["error_code"], answer["status"]) == (503, "BRIDGE.UNAVAILABLE", "fail")
    assert int(retry_after or 0) > 0
    assert str(tmp_path) not in json.dumps(answer)
    assert "bridge.db" not in json.dumps(answer)
    assert files_in(tmp_path / "data" / "spool") == []
    assert await faulty.status_of(f"{faulty.server_url}/livez") == 200

    faulty.disk.fail()
    await until(lambda: _is(faulty, ready=True), "readiness turns green by itself")
    assert (await send(build, report))[0] == 200
    await goes_to_its_end(sandbox, build)


async def _is(gateway: FaultyGateway, *, ready: bool) -> bool:
    return await gateway.ready() is ready


async def test_below_the_floor_uploads_stop_and_what_was_accepted_goes_on(
    faulty: FaultyGateway, sandbox: Sandbox, send: Callable[..., Any]
) -> None:
    await faulty.start()
    first, second = a_report("TEST-a.xml", KEPT_IN_SPOOL), a_report("TEST-b.xml", KEPT_IN_ROWS)
    build = a_build(1, first, second)
    begin(sandbox, build)
    for report in (first, second):
        sandbox.state.faults.script("testnod.register", {"status": 503})
        assert (await send(build, report))[0] == 200
    faulty.disk.fail("space")
    await until(lambda: _is(faulty, ready=False), "readiness turns red")
    assert (await send(build, a_report("TEST-c.xml", KEPT_IN_ROWS)))[0] == 503
    await goes_to_its_end(sandbox, build)


@pytest.mark.early
async def test_a_limit_of_the_kernel_under_load_loses_nothing_that_was_accepted(
    faulty: FaultyGateway, sandbox: Sandbox, tmp_path: Path, send: Callable[..., Any]
) -> None:
    await faulty.start()
    build = a_build(1)
    begin(sandbox, build)
    wal = tmp_path / "data" / "bridge.db-wal"
    accepted: list[tuple[str, bytes]] = []
    refused: list[str] = []

    async def upload(lane: int) -> None:
        for number in range(12):
            report = a_report(f"TEST-{lane}-{number}.xml", (KEPT_IN_ROWS, KEPT_IN_SPOOL)[number % 2])
            status, answer, _ = await send(build, report)
            assert status in (200, 503), answer
            (accepted if status == 200 else refused).append(report)
            if (lane, number) == (0, 3):
                faulty.limit_files(min(wal.stat().st_size, LARGE_BYTES // 2))

    async with asyncio.TaskGroup() as lanes:
        for lane in range(4):
            lanes.create_task(upload(lane))
    assert accepted
    assert refused
    faulty.limit_files(None)
    await until(faulty.ready, "readiness is green")
    whole = a_build(1, *accepted)
    await goes_to_its_end(sandbox, whole)
    assert stored(sandbox.state, whole) == whole.digests()


async def test_a_disk_that_is_full_under_load_keeps_or_refuses_and_what_it_kept_arrives_without_a_restart(
    faulty: FaultyGateway, sandbox: Sandbox, settings: dict[str, Any], send: Callable[..., Any]
) -> None:
    """Spool and ledger are full, not only for uploads: what a delivery has done cannot be written down either."""
    settings["delivery"] |= {"lease_duration": "2s"}  # a build whose lease could not be renewed is free after it
    faulty.write(settings)
    await faulty.start()
    pid = faulty.pid
    begin(sandbox, a_build(1))
    answered: dict[int, list[tuple[str, bytes]]] = {200: [], 503: []}

    async def upload(lane: int) -> None:
        number = 0
        while not ended.is_set():
            report = a_report(f"TEST-{lane}-{number}.xml", (KEPT_IN_ROWS, KEPT_IN_SPOOL)[number % 2])
            status, answer, _ = await send(a_build(1), report)
            assert status in answered, answer
            answered[status].append(report)
            number += 1
            await asyncio.sleep(0.05)

    async def more(status: int) -> None:
        enough = len(answered[status]) + 4
        await until(lambda: len(answered[status]) >= enough, f"uploads are answered {status}")

    ended = asyncio.Event()
    async with asyncio.TaskGroup() as lanes:
        for lane in range(3):
            lanes.create_task(upload(lane))
        for _ in range(FULL_DISKS):
            await more(200)
            faulty.disk.fail("write", "fsync", "commit")
            await more(503)
            faulty.disk.fail()
        await more(200)
        ended.set()
    whole = a_build(1, *answered[200])
    await goes_to_its_end(sandbox, whole)
    assert stored(sandbox.state, whole) == whole.digests()
    assert faulty.pid == pid


@pytest.mark.parametrize("size", [KEPT_IN_ROWS, KEPT_IN_SPOOL])
async def test_what_was_answered_success_survives_a_power_cut(
    faulty: FaultyGateway, sandbox: Sandbox, tmp_path: Path, send: Callable[..., Any], size: int
) -> None:
    await faulty.start()
    report = a_report("TEST-a.xml", size)
    build = a_build(1, report)
    begin(sandbox, build)
    sandbox.state.faults.script("testnod.register", {"hang": True})
    assert (await send(build, report))[0] == 200
    await faulty.kill()
    sandbox.state.faults.clear()  # the process may have died before it asked
    faulty.disk.cut_power(tmp_path / "data")
    await faulty.start()
    await goes_to_its_end(sandbox, build)


@pytest.mark.parametrize("damage", ["a byte is another one", "the end is missing", "it is gone"])
async def test_a_damaged_blob_is_shown_and_read_again_and_delivered_once_it_is_right_again(
    faulty: FaultyGateway, sandbox: Sandbox, tmp_path: Path, send: Callable[..., Any], damage: str
) -> None:
    await faulty.start()
    spool = tmp_path / "data" / "spool"
    report = a_report("TEST-a.xml", KEPT_IN_SPOOL)
    build = a_build(1, report)
    begin(sandbox, build)
    sandbox.state.faults.script("testnod.register", *[{"status": 503}] * 3)
    assert (await send(build, report))[0] == 200
    (blob,) = [path for path in spool.rglob("*") if path.is_file()]
    whole = blob.read_bytes()
    if damage == "it is gone":
        blob.unlink()
    else:
        content = bytearray(whole)
        content[1000] ^= 1
        blob.write_bytes(content[: len(content) // 2] if damage == "the end is missing" else content)

    shown = await _shown(faulty, "pool")
    (delivery,) = shown["reports"][0]["deliveries"]
    assert delivery["state"] == "pending"
    assert len(sandbox.state.objects) == 0
    assert not list((spool / "aside").glob("*"))
    assert blob.exists() == (damage != "it is gone")

    blob.write_bytes(whole)
    await goes_to_its_end(sandbox, build)


async def _shown(gateway: FaultyGateway, error: str) -> dict[str, Any]:
    """Return the only build as the admin API shows it once the last error of its first delivery holds `error`."""
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        async with http.get(f"{gateway.admin_url}/api/v1/builds") as answer:
            found[:] = (await answer.json())["builds"]
        return bool(found) and error in (found[0]["reports"][0]["deliveries"][0]["last_error"] or "")

    async with aiohttp.ClientSession() as http:
        await until(there, f"the delivery shows {error!r}")
    return found[0]
