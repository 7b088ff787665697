"""Reports that the bridge's own spool does not return, through the real ledger and spool, on a clock of the test."""

import asyncio
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import select

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.circuit_breaker import storage_breaker
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.mirror import MirrorUploaded
from bridge.domain.lifecycle.unreadable_body import DAMAGE_TIMEOUT
from bridge.domain.outcomes import OutcomeUnknown, body_differs, read_failure
from bridge.errors import BridgeError, Unavailable
from bridge.store.archive.disk import DiskArchive
from bridge.store.blobs.disk import DiskSpool
from bridge.store.schema import circuit_breakers, deliveries, reports
from bridge.telemetry.metrics import Metrics
from bridge.worker import blob_reader
from bridge.worker.call_executor import UpstreamCallExecutor
from bridge.worker.delivery_slots import DeliverySlots
from bridge.worker.request_rates import RequestRates
from tests.support.builders import HOUR, MINUTE, POLICY
from tests.support.fake_clock import FakeClock
from tests.support.labels import label
from tests.support.ledger import report
from tests.support.worker_play import JOBS, LARGE, ROUTES, Play, StorageThatReads, in_spool

BUILD = {"job_id": next(iter(JOBS)), "build_no": 1}
BYTES = LARGE
AWAY = "The spool (s3://b/p) cannot be read: 403 AccessDenied. Check the key's right to GetObject."

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def play(backend, tmp_path):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        yield Play(database, clock, tmp_path, outside=StorageThatReads(clock))


@pytest.fixture
async def blob(play, tmp_path):
    """Let a build with one report in the spool arrive, and return the path of its blob."""
    writer = await DiskSpool(tmp_path).create()
    await writer.write(BYTES)
    key = await writer.commit(label(BYTES))
    await play.ledger.accept(in_spool(key), complete=True, **BUILD)
    return tmp_path / key


async def delivery(play):
    [row] = await play.ledger.rows(select(deliveries))
    return row


async def opened_breakers(play):
    return [row.name for row in await play.ledger.rows(select(circuit_breakers)) if row.opened_at is not None]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)


def move_away(path: Path) -> None:
    path.rename(path.with_suffix(".away"))


def move_back(path: Path) -> None:
    path.with_suffix(".away").rename(path)


TROUBLE = [(flip, flip), (move_away, move_back)]


@pytest.mark.parametrize(("spoil", "heal"), TROUBLE, ids=["a flipped bit", "a file that is away"])
async def test_a_report_that_reads_right_again_within_hours_is_delivered(play, blob, spoil, heal):
    spoil(blob)
    await play.until(play.clock.now() + DAMAGE_TIMEOUT - HOUR)
    waiting = await delivery(play)
    assert (waiting.state, waiting.first_failure_at) == (DeliveryState.PENDING, None)
    assert waiting.last_error == waiting.unread
    assert len(play.outside.registered) == 1  # TestNod is not asked for uploads that nothing is known for
    assert await opened_breakers(play) == []

    heal(blob)
    await play.hours(3)
    assert await play.states() == [DeliveryState.DELIVERED]
    assert play.outside.stored == 1


@on_sqlite
@pytest.mark.parametrize(("spoil", "left"), [(flip, 1), (move_away, 0)], ids=["a flipped bit", "a file that is away"])
async def test_one_that_stays_damaged_for_hours_is_dead_says_what_was_seen_and_its_blob_is_set_aside(
    play, blob, spoil, left, tmp_path
):
    spoil(blob)
    await play.until(play.clock.now() + DAMAGE_TIMEOUT - HOUR)
    assert list((tmp_path / "aside").glob("*")) == []
    assert [row.blob for row in await play.ledger.rows(select(reports.c.blob))] != [None]
    await play.until(play.clock.now() + 4 * HOUR)
    dead = await delivery(play)
    assert dead.state == DeliveryState.DEAD
    assert dead.last_error.startswith(f"Given up after 12 hours of the same: {dead.unread}")
    assert len(list((tmp_path / "aside").glob("*"))) == left


@on_sqlite
async def test_the_hours_outlast_a_restart(play, blob, tmp_path):
    flip(blob)
    await play.until(play.clock.now() + DAMAGE_TIMEOUT - HOUR)
    again = Play(play.ledger.database, play.clock, tmp_path, outside=StorageThatReads(play.clock))
    await again.until(play.clock.now() + 4 * HOUR)
    assert (await delivery(again)).state == DeliveryState.DEAD


@on_sqlite
@pytest.mark.usefixtures("blob")
async def test_a_spool_that_cannot_be_read_for_days_loses_nothing_and_blames_no_upstream(play, monkeypatch):
    real = DiskSpool.read

    async def fails(_self, _key):
        raise Unavailable(AWAY)
        yield

    monkeypatch.setattr(DiskSpool, "read", fails)
    await play.until(play.clock.now() + POLICY.give_up_after + HOUR)
    waiting = await delivery(play)
    assert (waiting.state, waiting.last_error) == (DeliveryState.PENDING, AWAY)
    assert await opened_breakers(play) == []
    assert len(play.outside.registered) == 1
    monkeypatch.setattr(DiskSpool, "read", real)
    await play.hours(2)
    assert await play.states() == [DeliveryState.DELIVERED]


@on_sqlite
async def test_while_it_cannot_be_read_small_reports_go_and_others_are_not_registered_in_vain(play, blob, monkeypatch):
    monkeypatch.setattr(os, "pread", _no_pread)
    await play.until(play.clock.now() + MINUTE)
    for number in (2, 3, 4):
        await play.ledger.accept(report(), complete=True, job_id=BUILD["job_id"], build_no=number)
        await play.ledger.accept(
            in_spool(f"{blob.parent.name}/{blob.name}"),
            complete=True,
            job_id=BUILD["job_id"],
            build_no=number + 10,
        )
    await play.until(play.clock.now() + MINUTE)
    assert play.outside.stored == 3
    assert len(play.outside.registered) == 4  # the first large one, which nothing was known of, and the small ones


_pread = os.pread


def _no_pread(descriptor, *where):
    """Fail as a spool that may not be read; the ledger's file is another matter."""
    if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".db":
        return _pread(descriptor, *where)
    raise OSError(13, "Permission denied")


@on_sqlite
@pytest.mark.usefixtures("blob")
async def test_a_spool_that_hangs_holds_no_place_and_says_so(play, monkeypatch):
    monkeypatch.setattr(blob_reader, "PIECE_SECONDS", 0.01)
    places = play.config.executor._uploader._slots

    async def hangs(_self, _key):
        if play.outside.registered:
            taken.append(places.free)
        await asyncio.Event().wait()
        yield b""

    taken, free = [], places.free
    monkeypatch.setattr(DiskSpool, "read", hangs)
    await play.until(play.clock.now() + 10 * SECOND)
    assert "did not return a report within" in (await delivery(play)).last_error
    assert set(taken) == {free}
    assert storage_breaker(ROUTES[0]) not in await opened_breakers(play)


class ReportsThatRead:
    """CodeArts' report API, as far as it reads what it is sent."""

    def __init__(self):
        self.there = asyncio.Event()

    async def upload(self, _job_id, _build_no, _node_id, files):
        [file] = files
        await self.there.wait()
        try:
            content = b"".join([piece async for piece in file.read()])
        except (BridgeError, OSError) as error:
            return read_failure(error)
        if content != BYTES:
            return body_differs(
                len(content), sha256(content).hexdigest(), accepted_size=file.size, accepted_sha256=file.sha256
            )
        return MirrorUploaded()

    async def summary(self, _job_id, _build_no):
        return OutcomeUnknown(message="not now")


@pytest.fixture
async def copied(play, tmp_path):
    """Let a build arrive whose report is owed to the archive and the mirror too; return the path of its blob."""
    policy = play.config.policy
    routes = tuple(replace(route, mirror=True) for route in policy.routes)
    archive = tmp_path / "archive"
    archive.mkdir()
    reports_api = ReportsThatRead()
    executor = UpstreamCallExecutor(
        replace(play.config.clients, reports=reports_api),
        DiskSpool(tmp_path),
        DiskArchive(archive, min_free=1),
        Metrics(),
        background=play.background,
        delivery_slots=DeliverySlots(16),
        rates=RequestRates(play.config.database, "", 600),
    )
    play.config = replace(play.config, policy=replace(policy, has_archive=True, routes=routes), executor=executor)
    writer = await DiskSpool(tmp_path).create()
    await writer.write(BYTES)
    key = await writer.commit(label(BYTES))

    async def spoil():
        flip(tmp_path / key)
        reports_api.there.set()

    play.outside.meanwhile.append(spoil)  # TestNod's storage has read it by then, the others have not
    await play.ledger.accept(
        in_spool(key), complete=True, targets=(DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE), **BUILD
    )
    return tmp_path / key


async def pass_hours(play, hours):
    """Let hours pass; calls to the mirror run beside the visits."""
    for _ in range(hours * 2):
        await play.until(play.clock.now() + 30 * MINUTE)
        await play.background.finish()


async def states_by_target(play):
    return {row.target: row.state for row in await play.ledger.rows(select(deliveries))}


@on_sqlite
async def test_a_copy_and_a_mirrored_report_wait_for_hours_too(play, copied):
    await pass_hours(play, 8)
    assert await states_by_target(play) == {"testnod": "delivered", "archive": "pending", "codearts": "pending"}
    assert await opened_breakers(play) == []
    flip(copied)
    await pass_hours(play, 3)
    assert set((await states_by_target(play)).values()) == {"delivered"}


@on_sqlite
async def test_a_copy_and_a_mirrored_report_of_damaged_bytes_end_after_hours(play, copied):
    assert copied.exists()
    await pass_hours(play, 18)
    assert await states_by_target(play) == {"testnod": "delivered", "archive": "dead", "codearts": "dead"}
