from dataclasses import replace

import pytest
from sqlalchemy import update

from bridge.domain.build import SECOND, BuildRecord, BuildState, UploadMetadata
from bridge.domain.changes import set_build
from bridge.store.hints import PollRequest, SeenRecord, fill_record, request_poll
from bridge.store.schema import builds
from tests.support.ledger import report, run_parameters

JOB = "a" * 32
LATER = 60_000_000
ENDED = PollRequest(job_id=JOB, build_no=1)
HEARD = BuildRecord(branch="main", commit="c0ffee00", devcloud_project_id="p", build_record_id="r")


async def fill(database, record=HEARD, build_no=1):
    return await database.write(fill_record, SeenRecord(job_id=JOB, build_no=build_no, record=record))


@pytest.fixture
async def resting(ledger, clock):
    """A build whose next turn is a minute away."""
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.release(visit, clock.now() + LATER)
    clock.advance(1)


@pytest.mark.usefixtures("resting")
async def test_an_open_build_is_looked_at_now(ledger, database, clock):
    assert await database.write(request_poll, ENDED)

    build = (await ledger.claimed()).build
    assert build.poll_requested_at == clock.now()
    assert build.state is BuildState.OPEN


@pytest.mark.usefixtures("resting")
async def test_a_build_that_has_ended_is_left_alone(ledger, database):
    await ledger.record(await ledger.build(), set_build(state=BuildState.ENDED))

    assert not await database.write(request_poll, ENDED)
    assert await ledger.claim() is None


async def test_a_build_that_nobody_uploaded_to_is_left_alone(database):
    assert not await database.write(request_poll, ENDED)
    assert not await fill(database)


async def test_a_hint_during_a_visit_is_not_lost_with_its_end(ledger, database, clock):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await database.write(request_poll, ENDED)
    await ledger.release(visit, clock.now() + LATER)

    assert (await ledger.claimed()).build.poll_requested_at == clock.now()


async def test_all_open_builds_of_a_job_are_looked_at_where_no_number_is_named(ledger, database, clock):
    for number in (1, 2, 3):
        await ledger.accept(report(), build_no=number)
        visit = await ledger.claimed()
        await ledger.release(visit, clock.now() + LATER)
    await ledger.record(visit.build, set_build(state=BuildState.ENDED))

    assert await database.write(request_poll, PollRequest(job_id=JOB)) == 2
    assert {(await ledger.claimed()).build.build_no for _ in range(2)} == {1, 2}
    assert await ledger.claim() is None
    assert await database.write(request_poll, PollRequest(job_id="b" * 32)) == 0


async def test_a_build_that_was_looked_at_just_now_is_looked_at_a_second_later(ledger, database, clock):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.record(visit.build, set_build(polled_at=clock.now()))
    await ledger.release(visit, clock.now() + LATER)
    clock.advance(1)

    for _ in range(3):
        await database.write(request_poll, ENDED)

    assert await ledger.claim() is None
    clock.advance(SECOND)
    assert await ledger.claim() is not None


@pytest.mark.usefixtures("resting")
async def test_a_record_fills_what_nobody_knew_and_the_build_goes_on(ledger, database, clock):
    assert await fill(database)

    build = (await ledger.claimed()).build
    assert build.record == HEARD
    assert build.described_at == clock.now()


@pytest.mark.usefixtures("resting")
async def test_what_is_known_is_never_replaced(ledger, database):
    known = BuildRecord(branch="release", tag="v1")
    await ledger.record(await ledger.build(), set_build(record=known, described_at=1))

    assert await fill(database)

    build = await ledger.build()
    assert build.record == replace(HEARD, branch="release", tag="v1")
    assert build.described_at == 1
    assert not await fill(database)


@pytest.mark.usefixtures("resting")
async def test_a_pinned_build_stays_as_it_is(ledger, database):
    await ledger.record(await ledger.build(), set_build(run_parameters=run_parameters("shop")))

    assert not await fill(database)
    assert (await ledger.build()).record is None


async def test_that_upload_and_record_disagree_is_shown(ledger, database):
    await ledger.accept(report(), upload_metadata=UploadMetadata(commit="badc0de00"))

    await fill(database)

    assert "commit badc0de00" in ((await ledger.build()).metadata_mismatch or "")


async def test_a_hint_pulls_a_turn_and_never_pushes_it(ledger, database, clock):
    await ledger.accept(report())
    due_at = (await ledger.row()).due_at
    clock.advance(LATER)

    await database.write(request_poll, ENDED)

    assert (await ledger.row()).due_at < due_at + 1


async def test_a_build_that_sleeps_for_good_wakes_up(ledger, database, clock):
    await ledger.accept(report())
    await database.write(lambda connection, _now, items: [connection.execute(s) for s in items], SLEEP)

    await database.write(request_poll, ENDED)

    assert (await ledger.row()).due_at == clock.now()


SLEEP = update(builds).values(due_at=None)
