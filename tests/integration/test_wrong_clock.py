"""A whole gateway whose clock is wrong: nothing that was accepted, refused or kept is lost by it."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest

from bridge.app.gateway import Gateway
from bridge.sandbox.sandbox import Sandbox
from bridge.settings import load
from bridge.store.retention import body_location
from tests.support.fake_clock import SetClock
from tests.support.whole import JOB, OPEN, PATIENCE_SECONDS, SHOP, ask, build_of, ground, until, upload, why

SECOND = 1_000_000
HOUR, DAY = 3600 * SECOND, 24 * 3600 * SECOND
AHEAD, BEHIND = 40 * DAY, -3652 * DAY
QUICK = """
[delivery]
give_up_after = "{longest}"
retry_initial_delay = "50ms"
retry_max_delay = "200ms"
[polling]
max_age = "{longest}"
initial_delay = "0s"
min_interval = "1s"
max_interval = "1s"
requests_per_minute = 60_000
grace_period = "0s"
"""
PROBLEM = {"status": 422, "body": {"error_message": "There was a problem."}}
FATAL = {"status": 413}  # of storage: the report is too large
DELIVERED, REFUSED, OWED, DEAD = 1, 2, 3, 4  # numbers of builds

pytestmark = pytest.mark.early  # the watch of the clock turns every five seconds


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def start(tmp_path, sandbox, clock):
    """Start a gateway on the same ledger, spool and archive, by the clock that the test sets."""

    @asynccontextmanager
    async def started(longest="1d"):
        where = ground(tmp_path, sandbox).replace("[testnod]", f'archive = "{tmp_path}/archive"\n[testnod]')
        codearts = f'[codearts]\nendpoint = "{sandbox.codearts_url}"\n'
        path = tmp_path / "bridge.toml"
        path.write_text(f"{where}{QUICK.format(longest=longest)}{codearts}{OPEN}{SHOP}")
        async with Gateway(load(path, {}), clock=clock) as running, asyncio.timeout(PATIENCE_SECONDS):
            yield running

    return started


@pytest.fixture
def copies(tmp_path):
    return lambda: len(list((tmp_path / "archive").rglob("*.xml")))


async def refused(running, build_no):
    """Upload a file that is refused and kept."""
    form = aiohttp.FormData()
    form.add_field("files", b"<html></html>", filename="a.xml", content_type="application/xml")
    url = f"{running.server_url}/v1/report/junit/report/upload?job_id={JOB}&build_no={build_no}&node_id=n"
    async with aiohttp.ClientSession() as http, http.post(url, data=form) as answer:
        assert answer.status == 400


async def state_of(running, build_no):
    (report,) = (await build_of(running, build_no))["reports"]
    return {delivery["target"]: delivery["state"] for delivery in report["deliveries"]}["testnod"]


async def is_(running, build_no, state):
    return await state_of(running, build_no) == state


async def file_of(running, path):
    async with aiohttp.ClientSession() as http, http.get(f"{running.admin_url}/api/v1/{path}") as answer:
        return answer.status


async def health(running):
    async with aiohttp.ClientSession() as http, http.get(f"{running.admin_url}/readyz") as answer:
        return answer.status, await answer.json()


async def work(running, sandbox):
    """Have something of each kind that a clock could end; builds run at CodeArts, and TestNod is in trouble."""
    for build_no in (DELIVERED, OWED, DEAD):
        sandbox.state.builds.start(JOB, build_no, at=sandbox.state.micros())
    await upload(running, DELIVERED)
    await until(lambda: is_(running, DELIVERED, "delivered"))
    await refused(running, REFUSED)
    sandbox.state.faults.script("s3.put", FATAL)
    await upload(running, DEAD)
    await until(lambda: is_(running, DEAD, "dead"))
    sandbox.state.faults.at_random("testnod.register", rate=1, answer=PROBLEM, seed=0)
    await upload(running, OWED)
    await tried(sandbox)


async def tried(sandbox, times=3):
    """Wait until TestNod has been asked some more times for what is owed."""
    before = len(sandbox.state.calls.at("testnod.register"))
    await until(lambda: len(sandbox.state.calls.at("testnod.register")) >= before + times)


async def looked(running):
    """Wait until the watch of the clock has turned once more."""
    (watch,) = [task for task in running.supervisor.tasks if task.name == "clock_skew"]
    before = watch.beat_at
    await until(lambda: watch.beat_at != before)


async def cleaned(running):
    """Let the janitor take its turn now."""
    (cleanup,) = [task for task in running.supervisor.tasks if task.name == "cleanup"]
    await cleanup.run.__self__.clean()


async def all_is_there(running, sandbox, copies):
    """Check that nothing of `work` is lost, and that what is owed is delivered once TestNod is well."""
    await until(lambda: copies() >= 1)
    await cleaned(running)
    sandbox.state.faults.clear()
    await until(lambda: is_(running, OWED, "delivered"))
    assert {(await build_of(running, build_no))["state"] for build_no in (DELIVERED, OWED, DEAD)} == {"open"}
    await until(lambda: copies() == 2)
    await cleaned(running)
    (refusal,) = (await ask(running, f"rejections?job_id={JOB}&build_no={REFUSED}"))["rejections"]
    assert await file_of(running, f"rejections/{refusal['id']}/file") == 200
    for build_no, found in ((DELIVERED, 200), (OWED, 200), (DEAD, 404)):
        (report,) = (await build_of(running, build_no))["reports"]
        assert await file_of(running, f"reports/{report['id']}/file") == found
    kept = await running.database.read(body_location, report["id"])
    assert kept.body is not None


async def test_a_start_forty_days_ahead_that_is_corrected_soon_undoes_nothing(start, sandbox, clock, copies):
    async with start() as running:
        await work(running, sandbox)
        await until(lambda: copies() == 1)
    clock.ahead_us = AHEAD
    async with start() as running:
        await tried(sandbox)
        await cleaned(running)
        status, body = await health(running)
        assert status == 200
        assert "The clock is 40 days ahead of that of" in body["clock_doubt"]
        assert "the bridge distrusts its clock" in await why(running, OWED)
        clock.ahead_us = 0
        await all_is_there(running, sandbox, copies)
        assert "clock_doubt" not in (await health(running))[1]


async def test_what_was_done_by_a_clock_that_was_ahead_is_as_if_it_had_been_right(start, sandbox, clock, copies):
    clock.ahead_us = AHEAD
    async with start() as running:
        await work(running, sandbox)
    clock.ahead_us = 0
    async with start() as running:
        await all_is_there(running, sandbox, copies)


@pytest.mark.parametrize("restarted", [False, True], ids=["set", "restarted"])
@pytest.mark.parametrize("known", [False, True], ids=["first start", "old ledger"])
async def test_a_start_ten_years_behind_ends_nothing_once_the_time_is_right(
    start, sandbox, clock, copies, restarted, known
):
    if known:
        async with start() as running:
            sandbox.state.builds.start(JOB, 9, at=sandbox.state.micros())
            await upload(running, 9)
            await until(lambda: is_(running, 9, "delivered"))
            await until(lambda: copies() == 1)
    clock.ahead_us = BEHIND
    async with start() as running:
        await work(running, sandbox)
        assert "The clock is 3652 days behind that of" in (await health(running))[1]["clock_doubt"]
        if not restarted:
            clock.ahead_us = 0
            await tried(sandbox)
            await all_is_there(running, sandbox, lambda: copies() - known)
            return
    clock.ahead_us = 0
    async with start() as running:
        await tried(sandbox)
        await all_is_there(running, sandbox, lambda: copies() - known)


@pytest.mark.parametrize("leap", [HOUR, -HOUR, AHEAD], ids=["an hour on", "an hour back", "forty days on"])
async def test_a_leap_of_the_clock_and_back_loses_nothing(start, sandbox, clock, copies, leap):
    async with start(longest="45m") as running:
        await work(running, sandbox)
        clock.ahead_us = leap
        await looked(running)
        await cleaned(running)
        assert (await health(running))[1]["clock_doubt"]
        clock.ahead_us = 0
        await all_is_there(running, sandbox, copies)
