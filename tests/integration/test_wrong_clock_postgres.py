"""Gateways on PostgreSQL whose own clock is wrong: the database's decides, on everything."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from bridge.app.gateway import Gateway
from bridge.sandbox.sandbox import Sandbox
from bridge.settings import load
from bridge.store.archive.base import day_of
from bridge.store.blobs.base import hour_of
from bridge.store.blobs.disk import DiskSpool
from bridge.store.engine.postgres import Begun, PostgresDatabase
from bridge.worker.cleanup import Cleanup
from tests.support.fake_clock import SetClock
from tests.support.labels import label
from tests.support.ledger import Ledger, report
from tests.support.whole import OPEN, PATIENCE_SECONDS, POLLING, SHOP, build_of, ground, until, upload

SECOND = 1_000_000
MINUTE, DAY = 60 * SECOND, 24 * 3600 * SECOND
REPORTS = 4


@pytest.fixture
async def url(postgres):
    async with postgres.new_url() as url:
        yield url


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@asynccontextmanager
async def gateway(folder, sandbox, url, clock):
    path = folder / "bridge.toml"
    where = ground(folder, sandbox).replace(f"sqlite:///{folder}/bridge.db", url)
    path.write_text(f"{where}{POLLING.format(poll_after='0s', poll_every='1s')}{OPEN}{SHOP}")
    async with Gateway(load(path, {}), clock=clock) as running, asyncio.timeout(PATIENCE_SECONDS):
        yield running


@pytest.mark.parametrize("ahead", [-6 * MINUTE, -20 * MINUTE, 20 * MINUTE, 40 * DAY])
async def test_a_gateway_whose_clock_is_off_delivers_as_well_as_others(tmp_path, sandbox, url, ahead):
    async with gateway(tmp_path, sandbox, url, SetClock(ahead)) as running:
        for number in range(REPORTS):
            await upload(running, 1, node_id=f"n{number}")

        async def delivered():
            reports = (await build_of(running))["reports"]
            return len(reports) == REPORTS and all(one["deliveries"][0]["state"] == "delivered" for one in reports)

        await until(delivered)
    assert len(sandbox.state.calls.at("testnod.register")) == REPORTS
    assert not sandbox.state.calls.at("testnod.upload_failed")


async def test_blobs_are_named_by_the_ledgers_clock(tmp_path, sandbox, url):
    async with gateway(tmp_path, sandbox, url, SetClock(-2 * DAY)) as running:
        spool, database = running._resources.spool, running.database
        before = hour_of(database.now())
        blob = await (await spool.create()).commit(label(b"<testsuite/>"))
        assert before <= blob.split("/")[0] <= hour_of(database.now())


class Archive:
    def __init__(self):
        self.asked = []

    async def delete_before(self, day, *, limit):  # noqa: ARG002 -- the janitor's call
        self.asked.append(day)
        return 0


@pytest.mark.parametrize("leap", [40 * DAY, -40 * DAY])
async def test_an_idle_gateway_whose_clock_is_set_cleans_by_the_databases_time(tmp_path, url, leap):
    clock, archive = SetClock(), Archive()
    async with PostgresDatabase(url, clock) as database:
        await Ledger(database).accept(report())
        kept = {"keep_us": 30 * DAY, "keep_rejected_us": 7 * DAY}
        janitor = Cleanup(
            database=database, clock=clock, stopping=asyncio.Event(), spool=DiskSpool(tmp_path), archive=archive, **kept
        )
        right = SetClock().now()
        clock.ahead_us = leap
        assert abs(database.now() - right) < MINUTE

        await janitor.clean()

        assert archive.asked[0] in {day_of(right - 30 * DAY), day_of(right + MINUTE - 30 * DAY)}


async def test_a_gateway_beside_another_whose_clock_is_off_sets_nothing_aside_that_is_coming_in(tmp_path, url):
    """The database's clock is two days ahead of both machines."""
    folder = tmp_path / "spool"
    folder.mkdir()
    ahead = SetClock(2 * DAY)
    opened = PostgresDatabase(url, SetClock(), begin=lambda: Begun(ahead.now(), None))
    async with opened as database:
        await Ledger(database).accept(report())
        spool = DiskSpool(folder, shared=True, now=database.now)
        blob = await (await spool.create()).commit(label(b"<testsuite/>"))
        cleanup = Cleanup(
            database=database,
            clock=SetClock(),
            stopping=asyncio.Event(),
            spool=spool,
            keep_us=30 * DAY,
            keep_rejected_us=DAY,
        )
        await cleanup.clean()
        assert (folder / blob).exists()
        assert await spool.sweep_temporaries() == 0
