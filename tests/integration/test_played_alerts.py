"""Situations played with a real gateway: the alert for each fires on what /metrics shows, and no other does."""

import asyncio
import re
import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
import trustme

from bridge.app.gateway import Gateway
from bridge.commands.serve import reload
from bridge.domain.instants import SECOND
from bridge.errors import SettingsError
from bridge.sandbox.sandbox import Sandbox
from bridge.settings import load
from bridge.worker.cleanup import Cleanup
from tests.support.processes import toml, until
from tests.support.promtool import assert_firing, needs_promtool, series_of
from tests.support.quick_settings import quick_settings
from tests.support.whole import JOB, upload

pytestmark = needs_promtool

GIB = 1 << 30
LATER = 240  # minutes: every rule has been true for long enough by then
THEN = 200  # minutes until the situation begins


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def settings(sandbox, tmp_path):
    return quick_settings(sandbox, tmp_path)


@pytest.fixture(autouse=True)
def free_bytes(monkeypatch):
    """Let the disk of the test have enough space, whatever it really has; a test may change that."""
    free = {"bytes": 64 * GIB}
    monkeypatch.setattr("bridge.server.health._free_bytes", lambda _: free["bytes"])
    return free


@asynccontextmanager
async def running(tmp_path, settings):
    path = tmp_path / "bridge.toml"
    path.write_text(toml(settings), encoding="utf-8")
    async with Gateway(load(path, {})) as gateway:
        yield gateway


COUNTER = re.compile(r"\w+_(?:total|count|sum|bucket)\{")


async def scrape(gateway):
    """Return the page of metrics. Its counters exist from the start: no alert would see an increase in a later one."""
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/metrics") as answer:
        assert answer.status == 200
        page = await answer.text()
    counters = {series for series in series_of(page) if COUNTER.match(series)}
    assert counters == gateway.__dict__.setdefault("first_counters", counters)
    return page


async def shown(gateway, name, **labels):
    """Return the sum of a metric's series with these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    page = series_of(await scrape(gateway))
    return sum(
        value for series, value in page.items() if series.startswith(f"{name}{{") and all(w in series for w in wanted)
    )


async def until_shown(gateway, name, is_enough, **labels):
    async def holds():
        return is_enough(await shown(gateway, name, **labels))

    await until(holds, f"{name}{labels} is shown")


def positive(value):
    return value > 0


async def deliver(gateway, sandbox, build_no):
    """Play a build from its upload to its finalized run."""
    before = await shown(gateway, "bridge_finalize_lag_seconds_count")
    sandbox.state.builds.start(JOB, build_no, at=sandbox.state.micros())
    await upload(gateway, build_no, f'<testsuite name="{build_no}"><testcase name="a"/></testsuite>'.encode())
    sandbox.state.builds.end(JOB, build_no, at=sandbox.state.micros())
    await until_shown(gateway, "bridge_finalize_lag_seconds_count", lambda count: count > before)


async def age(tmp_path, table, column, seconds):
    """Let rows look as if their state had begun earlier, which saves the test the wait."""

    def write():
        with closing(sqlite3.connect(tmp_path / "bridge.db", timeout=60)) as ledger, ledger:
            ledger.execute(f"UPDATE {table} SET {column} = {column} - {seconds * SECOND}")  # noqa: S608

    await asyncio.to_thread(write)


async def test_nothing_fires_while_builds_are_delivered(tmp_path, settings, sandbox):
    async with running(tmp_path, settings) as gateway:
        first = await scrape(gateway)
        pages = [(0, first)]
        for number in range(1, 4):
            await deliver(gateway, sandbox, number)
            pages.append((number * 60, await scrape(gateway)))
    assert_firing(tmp_path, [(0, first)], (), at=LATER)  # an idle gateway is healthy too
    for minute in (30, 61, 130, 185, 235):
        assert_firing(tmp_path, [page for page in pages if page[0] <= minute], (), at=minute)


async def test_storage_that_is_away_shows_as_an_upstream_and_as_late_deliveries(tmp_path, settings, sandbox):
    async with running(tmp_path, settings) as gateway:
        await deliver(gateway, sandbox, 1)
        before = await scrape(gateway)
        sandbox.state.faults.at_random("s3.put", rate=1, answer={"status": 503, "body": ""}, seed=1)
        for number in (2, 3):
            sandbox.state.builds.start(JOB, number, at=sandbox.state.micros())
            await upload(gateway, number, f'<testsuite name="{number}"/>'.encode())
        await until_shown(gateway, "bridge_circuit_open_seconds", positive, upstream="storage:all")
        await age(tmp_path, "circuit_breakers", "opened_at", 3 * 3600)
        await age(tmp_path, "deliveries", "pending_since", 3 * 3600)
        away = await scrape(gateway)
        sandbox.state.faults.clear()
        await until_shown(gateway, "bridge_deliveries_pending", lambda pending: pending == 0, target="testnod")
        await until_shown(gateway, "bridge_circuit_open_seconds", lambda seconds: seconds == 0)
        after = await scrape(gateway)
    assert_firing(
        tmp_path,
        [(0, before), (THEN, away)],
        ("BridgeUpstreamAway", "BridgeDeliversLate"),
        at=THEN + 15,
    )
    fires = ("BridgeUpstreamAway", "BridgeDeliversLate", "BridgeDeliversNothing")
    assert_firing(tmp_path, [(0, before), (THEN, away)], fires, at=THEN + 90)
    assert_firing(tmp_path, [(0, before), (THEN, away), (THEN + 90, after)], (), at=THEN + 92)


async def test_a_gateway_that_has_delivered_nothing_since_its_start(tmp_path, settings, sandbox):
    sandbox.state.faults.at_random("testnod.*", rate=1, answer={"status": 500, "body": ""}, seed=1)
    async with running(tmp_path, settings) as gateway:
        await upload(gateway)
        await until_shown(gateway, "bridge_deliveries_pending", positive, target="testnod")
        page = await scrape(gateway)
    assert_firing(tmp_path, [(0, page)], (), at=20)
    assert_firing(tmp_path, [(0, page)], ("BridgeDeliversNothing",), at=62)


async def test_a_run_that_stays_pending(tmp_path, settings, sandbox):
    settings["polling"] |= {"confirm_timeout": "1s"}
    settings["delivery"] |= {"replace_stuck_runs": False}
    sandbox.state.faults.script("testnod.register", {"cut": True, "after": True})
    async with running(tmp_path, settings) as gateway:
        before = await scrape(gateway)
        sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
        await upload(gateway)
        sandbox.state.builds.end(JOB, 1, at=sandbox.state.micros())
        await until_shown(gateway, "bridge_builds_stuck", positive)
        stuck = await scrape(gateway)
    assert_firing(tmp_path, [(0, before), (THEN, stuck)], ("BridgeBuildStuck",), at=THEN + 5)
    assert_firing(tmp_path, [(0, before), (60, stuck)], (), at=LATER)  # it is news for an hour


async def test_a_report_that_was_given_up(tmp_path, settings, sandbox):
    settings["delivery"] |= {"give_up_after": "1s"}
    answer = {"status": 422, "body": {"error": "no"}}
    sandbox.state.faults.at_random("testnod.register", rate=1, answer=answer, seed=1)
    async with running(tmp_path, settings) as gateway:
        before = await scrape(gateway)
        sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
        await upload(gateway)
        await until_shown(gateway, "bridge_deliveries_dead", positive)
        dead = await scrape(gateway)
    assert_firing(tmp_path, [(0, before), (THEN, dead)], ("BridgeReportsGivenUp",), at=THEN + 5)
    assert_firing(tmp_path, [(0, before), (60, dead)], (), at=LATER)


async def test_a_project_that_testnod_does_not_find(tmp_path, settings, sandbox):
    settings["routes"][0]["project_token"] = "t-another-project"
    async with running(tmp_path, settings) as gateway:
        before = await scrape(gateway)
        sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
        await upload(gateway)
        await until_shown(gateway, "bridge_builds_blocked", positive)
        blocked = await scrape(gateway)
    assert_firing(tmp_path, [(0, before), (THEN, blocked)], ("BridgeNeedsOperator",), at=THEN + 12)


async def test_a_certificate_that_ends_soon_until_it_is_renewed(tmp_path, settings, sandbox):  # noqa: ARG001
    authority, cert, key = trustme.CA(), tmp_path / "tls.crt", tmp_path / "tls.key"

    def put(days):
        issued = authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) + timedelta(days=days))
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())

    put(3)
    settings["server"] |= {"tls_cert_file": str(cert), "tls_key_file": str(key)}
    async with running(tmp_path, settings) as gateway:
        ends = await scrape(gateway)
        put(60)
        await gateway.apply_settings(gateway.settings)  # reads the files now
        renewed = await scrape(gateway)
        key.write_text("no key")
        await gateway.apply_settings(gateway.settings)
        invalid = await scrape(gateway)
    assert_firing(tmp_path, [(0, ends)], ("BridgeCertificateEnds",), at=5)
    assert_firing(tmp_path, [(0, ends), (30, renewed)], (), at=LATER)
    assert_firing(tmp_path, [(0, renewed), (30, invalid)], ("BridgeCertificateInvalid",), at=60)


async def test_calls_that_codearts_throttles(tmp_path, settings, sandbox):
    sandbox.state.behavior = replace(sandbox.state.behavior, calls_per_minute={"codearts.*": 3})
    async with running(tmp_path, settings) as gateway:
        before = await scrape(gateway)
        for number in range(1, 9):
            sandbox.state.builds.start(JOB, number, at=sandbox.state.micros())
            await upload(gateway, number, f'<testsuite name="{number}"/>'.encode())
        await until_shown(gateway, "bridge_codearts_throttled_total", positive)
        throttled = await scrape(gateway)
    # The counters of a busy minute, and then so much more each minute.
    pages = [(0, before), *((10 + minute, times(throttled, before, minute + 1, OF_CODEARTS)) for minute in range(50))]
    # Before half an hour is over, in which perhaps nothing was delivered.
    assert_firing(tmp_path, [page for page in pages if page[0] <= 36], ("BridgeCodeArtsThrottles",), at=36)


OF_CODEARTS = ("bridge_codearts_throttled_total", "bridge_upstream_requests_total")


def times(page, before, factor, names):
    """Return a page whose counters of these names have grown `factor` times as much as from `before` to `page`."""
    start = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in before.splitlines() if line[:1] != "#"}
    lines = []
    for line in page.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith(names):
            value = float(start[name]) + factor * (float(value) - float(start[name]))
        lines.append(f"{name} {value}" if name[:1] != "#" else line)
    return "\n".join(lines)


async def test_credentials_that_codearts_rejects(tmp_path, settings, sandbox):
    sandbox.state.behavior = replace(sandbox.state.behavior, codearts_tokens=("another",))
    async with running(tmp_path, settings) as gateway:
        before = await scrape(gateway)
        sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
        await upload(gateway)
        await until_shown(gateway, "bridge_upstream_requests_total", positive, outcome="CredentialsRejected")
        rejected = await scrape(gateway)
    pages = [(0, before), (THEN, rejected)]
    assert_firing(tmp_path, pages, ("BridgeCodeArtsRejectsCredentials",), at=THEN + 5)


async def test_a_disk_that_fills_up_and_a_gateway_that_accepts_no_uploads(tmp_path, settings, free_bytes):
    settings["store"] |= {"min_free_space": "1 GiB"}
    async with running(tmp_path, settings) as gateway:
        before = await scrape(gateway)
        free_bytes["bytes"] = 3 * GIB // 2
        await until_shown(gateway, "bridge_spool_free_bytes", lambda free: free < 2 * GIB)
        low = await scrape(gateway)
        free_bytes["bytes"] = GIB // 2
        await until_shown(gateway, "bridge_ready", lambda ready: ready == 0)
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{gateway.server_url}/v1/report/junit/report/upload?job_id={JOB}&build_no=1") as answer,
        ):
            assert answer.status == 503
        full = await scrape(gateway)
        free_bytes["bytes"] = 64 * GIB
        await until_shown(gateway, "bridge_ready", lambda ready: ready == 1)
        after = await scrape(gateway)
    assert_firing(tmp_path, [(0, before), (THEN, low)], ("BridgeDiskFillsUp",), at=THEN + 10)
    fires = ("BridgeDiskFillsUp", "BridgeNotReady")
    assert_firing(tmp_path, [(0, before), (THEN, low), (THEN + 10, full)], fires, at=THEN + 20)
    pages = [(0, before), (THEN, low), (THEN + 10, full), (THEN + 20, after)]
    assert_firing(tmp_path, pages, (), at=THEN + 25)


async def test_a_reload_that_is_rejected(tmp_path, settings):
    def wrong():
        raise SettingsError(["routes: there is none."])

    async with running(tmp_path, settings) as gateway:
        before = await scrape(gateway)
        await reload(gateway, wrong)
        rejected = await scrape(gateway)
    assert_firing(tmp_path, [(0, before), (THEN, rejected)], ("BridgeSettingsRejected",), at=THEN + 5)


async def test_a_build_without_reports_that_codearts_calls_failed(tmp_path, settings, sandbox):
    async with running(tmp_path, settings) as gateway:
        before = await scrape(gateway)
        sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
        await upload(gateway)
        sandbox.state.builds.end(JOB, 1, at=sandbox.state.micros(), build_result="FAILURE")
        await until_shown(gateway, "bridge_builds_result_mismatch", positive, kind="no_failed_test", route="all")
        differs = await scrape(gateway)
    assert_firing(tmp_path, [(0, before), (THEN, differs)], ("BridgeResultMismatch",), at=THEN + 12)


async def test_a_gateway_that_has_ended_until_it_runs_again(tmp_path, settings):
    async with running(tmp_path, settings) as gateway:
        before = await scrape(gateway)
        url = f"{gateway.admin_url}/metrics"
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.get(url)
    async with running(tmp_path, settings) as gateway:
        again = await scrape(gateway)
    pages = [(0, before), (THEN, None)]
    assert_firing(tmp_path, pages, (), at=THEN + 1)  # a restart takes less than two minutes
    assert_firing(tmp_path, pages, ("BridgeAway",), at=THEN + 3)
    assert_firing(tmp_path, [*pages, (THEN + 10, again)], (), at=THEN + 11)


async def test_uploads_that_are_answered_with_503_until_there_is_space(tmp_path, settings, free_bytes):
    settings["store"] |= {"min_free_space": "1 GiB"}
    path = f"/v1/report/junit/report/upload?job_id={JOB}&build_no=1"
    async with running(tmp_path, settings) as gateway, aiohttp.ClientSession() as http:
        pages = [(0, await scrape(gateway))]
        free_bytes["bytes"] = GIB // 2
        await until_shown(gateway, "bridge_ready", lambda ready: ready == 0)
        for minute in range(9):
            async with http.post(f"{gateway.server_url}{path}") as answer:
                assert answer.status == 503
            pages.append((THEN + minute, await scrape(gateway)))
        free_bytes["bytes"] = 64 * GIB
        await until_shown(gateway, "bridge_ready", lambda ready: ready == 1)
        after = await scrape(gateway)
    assert_firing(tmp_path, pages, ("BridgeNotReady",), at=THEN + 3)
    fires = ("BridgeDiskFillsUp", "BridgeNotReady", "BridgeRejectsUploads")
    assert_firing(tmp_path, pages, fires, at=THEN + 8)
    assert_firing(tmp_path, [*pages, (THEN + 9, after)], (), at=THEN + 15)


async def test_a_task_that_hangs_until_it_goes_on(tmp_path, settings, monkeypatch):
    run, begun, goes_on = Cleanup.run, asyncio.Event(), asyncio.Event()

    async def hang(self, beat):
        begun.set()
        await goes_on.wait()
        await run(self, beat)

    monkeypatch.setattr(Cleanup, "run", hang)
    async with running(tmp_path, settings) as gateway:
        before = await scrape(gateway)
        await begun.wait()
        (task,) = [task for task in gateway.supervisor.tasks if task.name == "cleanup"]
        task.beat_at -= 400 * SECOND  # saves the test the wait
        hangs = await scrape(gateway)
        goes_on.set()
        await until_shown(gateway, "bridge_task_heartbeat_age_seconds", lambda age: age < 300, task="cleanup")
        after = await scrape(gateway)
    pages = [(0, before), (THEN, hangs)]
    assert_firing(tmp_path, pages, (), at=THEN + 4)
    assert_firing(tmp_path, pages, ("BridgeTaskHangs",), at=THEN + 6)
    assert_firing(tmp_path, [*pages, (THEN + 10, after)], (), at=THEN + 11)


async def test_runs_that_are_finalized_late(tmp_path, settings, sandbox):
    answer = {"status": 503, "body": ""}
    sandbox.state.faults.at_random("testnod.finalize", rate=1, answer=answer, seed=1)
    async with running(tmp_path, settings) as gateway:
        before = await scrape(gateway)
        sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
        await upload(gateway)
        sandbox.state.builds.end(JOB, 1, at=sandbox.state.micros())
        await until_shown(gateway, "bridge_circuit_open_seconds", positive, upstream="testnod")
    await age(tmp_path, "builds", "ended_at", 400)
    sandbox.state.faults.clear()
    async with running(tmp_path, settings) as gateway:
        await until_shown(gateway, "bridge_finalize_lag_seconds_count", positive)
        late = await scrape(gateway)
    # One late run, and then another one every ten minutes.
    pages = [(0, before)]
    pages += [(THEN + 10 * n, times(late, before, n + 1, "bridge_finalize_lag_seconds")) for n in range(10)]
    assert_firing(tmp_path, pages[:6], (), at=THEN + 58)
    assert_firing(tmp_path, pages, ("BridgeFinalizesLate",), at=THEN + 90)
    assert_firing(tmp_path, [(0, before), (60, late)], (), at=LATER)  # a single one fires nothing
