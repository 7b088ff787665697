"""An idle gateway whose ledger's clock is set back: nothing is given up or deleted, leases end, new work is done."""

from contextlib import asynccontextmanager

import pytest
from sqlalchemy import update

from bridge.app.gateway import Gateway
from bridge.sandbox.sandbox import Sandbox
from bridge.settings import load
from bridge.store.engine import postgres as engine
from bridge.store.schema import builds
from bridge.store.uploads import accept
from tests.integration.test_wrong_clock import cleaned, file_of, is_, looked, refused
from tests.support.fake_clock import SetClock
from tests.support.ledger import report
from tests.support.ledger import upload as one_upload
from tests.support.whole import JOB, OPEN, POLLING, SHOP, ask, build_of, ground, until, upload

SECOND = 1_000_000
HOUR, DAY = 3600 * SECOND, 24 * 3600 * SECOND
LEASE = 15 * SECOND
DONE, REFUSED, LEASED, LATER, LAST = range(1, 6)  # numbers of builds

pytestmark = pytest.mark.early  # the watch of the clock turns every five seconds


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(params=["sqlite", "postgres"])
async def stage(request, tmp_path, sandbox, postgres, monkeypatch):
    """Run a gateway; yield it, and a function that sets the clock of its ledger to an offset from the right time."""
    async with _url(request.param, tmp_path, postgres) as url:
        clock = SetClock()
        began = engine.READ_BEGUN

        def set_clock(ahead_us):
            clock.ahead_us = ahead_us  # on PostgreSQL this is the gateway's own clock, which must not matter
            if request.param == "postgres":
                of_database = f"clock_timestamp() + interval '{ahead_us} microseconds'"
                monkeypatch.setattr(engine, "READ_BEGUN", began.replace("clock_timestamp()", of_database))

        where = ground(tmp_path, sandbox).replace(f"sqlite:///{tmp_path}/bridge.db", url)
        where = where.replace("[testnod]", f'archive = "{tmp_path}/archive"\n[testnod]')
        path = tmp_path / "bridge.toml"
        path.write_text(f"{where}{POLLING.format(poll_after='0s', poll_every='1s')}{OPEN}{SHOP}")
        async with Gateway(load(path, {}), clock=clock) as running:
            yield running, set_clock


@asynccontextmanager
async def _url(backend, folder, postgres):
    if backend == "sqlite":
        yield f"sqlite:///{folder}/bridge.db"
    else:
        async with postgres.new_url() as url:
            yield url


def leased_by_a_gateway_that_died(connection, now):
    """Write an upload, and lease its build."""
    accept(connection, now, [one_upload(report(), job_id=JOB, build_no=LEASED)])
    connection.execute(
        update(builds).where(builds.c.key == f"{JOB}/{LEASED}").values(lease_owner="dead", lease_until=now + LEASE)
    )


@pytest.mark.parametrize("back", [HOUR, 40 * DAY], ids=["an hour", "forty days"])
async def test_an_idle_gateway_whose_ledgers_clock_is_set_back_keeps_all_and_goes_on(stage, tmp_path, back):
    running, set_clock = stage

    def copies():
        return len(list((tmp_path / "archive").rglob("*.xml")))

    async def is_finalized(build_no):
        return (await build_of(running, build_no))["state"] == "finalized"

    await upload(running, DONE, complete=True)
    await refused(running, REFUSED)
    await until(lambda: is_finalized(DONE))
    await until(lambda: copies() == 1)
    await running.database.transact(leased_by_a_gateway_that_died)

    set_clock(-back)
    await upload(running, LATER)  # perhaps before the gateway has seen the step
    for build_no in (LATER, LEASED):
        await until(lambda build_no=build_no: is_(running, build_no, "delivered"))
    await looked(running)
    await cleaned(running)

    set_clock(0)
    await upload(running, LAST)
    await until(lambda: is_(running, LAST, "delivered"))
    await looked(running)
    await cleaned(running)

    await until(lambda: copies() == 3)  # of all uploads to the gateway itself
    (rejection,) = (await ask(running, f"rejections?job_id={JOB}&build_no={REFUSED}"))["rejections"]
    assert await file_of(running, f"rejections/{rejection['id']}/file") == 200
    assert {(await build_of(running, build_no))["state"] for build_no in (LEASED, LATER, LAST)} == {"open"}
    assert await is_finalized(DONE)
