"""Readiness before a real ledger and a real disk."""

import sqlite3

import pytest
from aiohttp import web
from sqlalchemy import select
from structlog.testing import capture_logs

from bridge.errors import Unavailable
from bridge.server import health as module
from bridge.server.health import RETRY_SECONDS, Readiness
from bridge.store.blobs.disk import DiskSpool
from bridge.store.ledger import check_writable
from bridge.store.schema import builds, deliveries, rejections, reports

SECOND = 1_000_000
NO_DISK = 1 << 62  # more than any has


@pytest.fixture
def make(database, tmp_path, clock):
    (tmp_path / "spool").mkdir()

    def make(min_free=1, spool=tmp_path / "spool"):
        return Readiness(database=database, spool=DiskSpool(spool), min_free=min_free, clock=clock)

    return make


async def test_a_healthy_gateway_is_ready_and_admits(make):
    readiness = make()
    readiness.require_ready()
    assert await readiness.reasons() == []
    assert readiness.spool_free_bytes() > 0


async def test_a_gateway_that_stops_admits_nothing(make):
    readiness = make()
    readiness.drain()
    with pytest.raises(Unavailable, match="is stopping") as refused:
        readiness.require_ready()
    assert refused.value.retry_after_seconds < RETRY_SECONDS
    assert len(await readiness.reasons()) == 1


async def test_below_the_floor_nothing_is_admitted_and_both_places_are_named(make, tmp_path):
    readiness = make(min_free=NO_DISK)
    with pytest.raises(Unavailable, match="short of disk space") as refused:
        readiness.require_ready()
    assert refused.value.retry_after_seconds == RETRY_SECONDS
    reasons = await readiness.reasons()
    assert [reason.split(" has ")[0] for reason in reasons] == ["The spool", "The ledger"]
    assert "store.min_free_space" in reasons[0]
    assert not any(str(tmp_path) in told for told in [*reasons, str(refused.value)])


async def test_a_change_is_logged_once_with_its_reasons(make, monkeypatch, clock):
    readiness = make()
    with capture_logs() as lines:
        for free in (1, 0, 0, 1, 1):
            monkeypatch.setattr(module, "_free_bytes", lambda _, free=free: free)
            clock.advance(2 * SECOND)
            await readiness.reasons()
        monkeypatch.setattr(module, "_free_bytes", lambda _: 0)
        readiness.drain()
        await readiness.reasons()
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("uploads_suspended", "warning"),
        ("uploads_resumed", "info"),
    ]
    assert lines[0]["reasons"][0].startswith("The spool has 0 MiB free")


async def test_a_fault_of_validation_is_a_reason(database, tmp_path, clock):
    async def fault():
        return "No validation process could be started."

    (tmp_path / "spool").mkdir()
    spool = DiskSpool(tmp_path / "spool")
    readiness = Readiness(database=database, spool=spool, min_free=1, clock=clock, validation_fault=fault)
    assert await readiness.reasons() == ["No validation process could be started."]


async def test_a_spool_that_is_gone_is_a_reason_without_its_path(make, tmp_path):
    reasons = await make(spool=tmp_path / "gone").reasons()
    assert [reason.split(". ")[0] for reason in reasons] == [
        "The free space of the spool cannot be read",
        "The spool cannot be written (No such file or directory)",
    ]
    assert not any(str(tmp_path) in reason for reason in reasons)
    with pytest.raises(Unavailable, match="cannot read its free disk space"):
        make(spool=tmp_path / "gone").require_ready()


async def test_a_ledger_that_another_program_locks_is_a_reason_until_it_is_free(make, database, clock, monkeypatch):
    monkeypatch.setattr(module, "LEDGER_SECONDS", 0.01)
    readiness = make()
    other = sqlite3.connect(database.path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        (reason,) = await readiness.reasons()
        assert reason.startswith("The ledger accepted no write for")
        other.execute("ROLLBACK")
    finally:
        other.close()
    monkeypatch.setattr(module, "LEDGER_SECONDS", 60.0)
    clock.advance(SECOND)
    assert await readiness.reasons() == []


async def test_each_look_at_the_ledger_writes_to_its_disk_but_once_a_second(make, database, clock):
    readiness = make()
    wal = database.path.with_name(database.path.name + "-wal")

    async def grown():
        before = wal.stat().st_size
        await readiness.reasons()
        return wal.stat().st_size - before

    await database.transact(check_writable)  # so that there is a log to look at
    assert await grown() > 0
    assert await grown() == 0
    clock.advance(SECOND)
    assert await grown() > 0


async def test_a_ledger_of_a_schema_that_this_program_cannot_use_is_a_reason(make, database):
    with database.writing.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999', compatible_from = '9999'")
    (reason,) = await make().reasons()
    assert "has schema 9999, this program needs" in reason


async def test_a_newer_schema_that_supports_this_program_is_no_reason(make, database):
    with database.writing.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert await make().reasons() == []


@pytest.mark.parametrize("table", ["builds", "reports", "deliveries", "rejections"])
async def test_a_ledger_that_rejects_an_upload_is_a_reason(make, database, table):
    with database.writing.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO elsewhere")
    (reason,) = await make().reasons()
    assert reason.startswith("The ledger cannot be used right now (OperationalError).")


async def test_a_check_leaves_nothing_in_the_ledger(make, database):
    assert await make().reasons() == []
    with database.writing.begin() as connection:
        for table in (builds, reports, deliveries, rejections):
            assert connection.execute(select(table)).all() == []


async def test_a_ledger_that_fails_is_a_reason(make, database):
    with database.writing.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    (reason,) = await make().reasons()
    assert reason.startswith("The ledger cannot be used right now (OperationalError).")


async def test_ci_is_told_the_status_and_no_reasons(make, aiohttp_client):
    readiness = make()
    app = web.Application()
    app.router.add_get("/livez", readiness.livez)
    app.router.add_get("/readyz", readiness.readyz_status)
    client = await aiohttp_client(app)
    answer = await client.get("/readyz")
    assert (answer.status, await answer.text()) == (200, "ready\n")
    readiness.drain()
    answer = await client.get("/readyz")
    assert (answer.status, await answer.text()) == (503, "not ready\n")
    assert (await client.get("/livez")).status == 200
