"""The lines of jobs in the ledger: after an outage the first of a job goes, the others wait for it within bounds."""

from functools import partial

import pytest

from bridge.domain.circuit_breaker import TESTNOD, HealthSignal
from bridge.domain.job_order import queue_of
from bridge.store import circuit_breakers
from bridge.store.circuit_breakers import BreakerSignal, apply_breaker_signals, wake_waiting_builds
from bridge.store.job_order import ReconcileEnd, wake_first_waiting
from bridge.store.queries import find_why
from tests.support.ledger import report

JOB, OTHER_JOB = "a" * 32, "b" * 32
MINUTE = 60_000_000
HOLD_RUN = 30 * MINUTE
LATER = 10 * MINUTE  # when a build that waits for a breaker is due by itself


@pytest.fixture
async def waiting(ledger, database):
    """Three builds of one job and one of another, the later numbers first, all waiting for TestNod."""
    for _ in range(3):
        await _told(database, HealthSignal.TRIP)
    for job_id, build_no in ((JOB, 3), (JOB, 2), (OTHER_JOB, 9), (JOB, 1)):
        await ledger.accept(report(), job_id=job_id, build_no=build_no)
        visit = await ledger.claimed()
        await ledger.release(visit, visit.now + LATER, waiting_on=TESTNOD)
    return ledger


async def _told(database, signal):
    told = BreakerSignal(
        breaker=TESTNOD, signal=signal, reason="HTTP 503", probe_delay_us=MINUTE, max_finalize_delay_us=HOLD_RUN
    )
    await database.write(apply_breaker_signals, told)


async def turns(ledger, now):
    """Return by build number what each waits for and for how long it may."""
    rows = [await ledger.row(build_id) for build_id in (1, 2, 3, 4)]
    return {row.build_no: (row.waiting_on, row.due_at - now) for row in rows}


async def test_the_first_of_each_job_goes_and_the_others_wait_no_longer_than_a_run_is_held(waiting, database, clock):
    await _told(database, HealthSignal.SUCCESS)
    behind = (queue_of(JOB), HOLD_RUN)
    assert await turns(waiting, clock.now()) == {1: (None, 0), 2: behind, 3: behind, 9: (None, 0)}


async def test_of_more_than_a_commit_can_hold_the_oldest_go_and_the_others_look_by_themselves(
    waiting, database, clock, monkeypatch
):
    monkeypatch.setattr(circuit_breakers, "WAKE_LIMIT", 2)
    await _told(database, HealthSignal.SUCCESS)
    by_itself = (TESTNOD, LATER)
    assert await turns(waiting, clock.now()) == {
        1: by_itself,
        2: (None, 0),
        3: (queue_of(JOB), HOLD_RUN),
        9: by_itself,
    }


async def test_new_settings_wake_no_more_than_a_commit_can_hold(waiting, database, clock, monkeypatch):
    monkeypatch.setattr(circuit_breakers, "WAKE_LIMIT", 2)
    await database.transact(wake_waiting_builds)
    woken = {build_no for build_no, (_, due) in (await turns(waiting, clock.now())).items() if due == 0}
    assert woken == {2, 3}


@pytest.mark.usefixtures("waiting")
async def test_why_is_told_of_the_line(database, clock):
    await _told(database, HealthSignal.SUCCESS)
    first, second = [(await database.read(find_why, JOB, build_no)).build.queue_until for build_no in (1, 2)]
    assert (first, second) == (None, clock.now() + HOLD_RUN)


async def test_each_build_that_leaves_the_queue_wakes_the_next_one(waiting, database, clock):
    await _told(database, HealthSignal.SUCCESS)
    clock.advance(MINUTE)
    first = await waiting.claimed()
    while first.build.build_no != 1:
        await waiting.release(first, first.now + LATER)
        first = await waiting.claimed()
    await waiting.release(first, first.now + LATER, wakes_next=True)
    found = await turns(waiting, clock.now())
    assert (found[2], found[3]) == ((None, 0), (queue_of(JOB), HOLD_RUN - MINUTE))


async def test_a_build_that_is_the_first_in_the_queue_goes_at_once(waiting, database, clock):
    await _told(database, HealthSignal.SUCCESS)
    for _ in range(2):
        visit = await waiting.claimed()
        await waiting.release(visit, visit.now + HOLD_RUN, waiting_on=queue_of(visit.build.job_id))
    found = await turns(waiting, clock.now())
    assert (found[1], found[9]) == ((None, 0), (None, 0))


async def test_two_ends_in_one_commit_wake_two_builds(waiting, database, clock):
    await _told(database, HealthSignal.SUCCESS)
    end = ReconcileEnd(4, waits=False, wakes_next=True)  # the first of the job
    await database.transact(partial(wake_first_waiting, ends=[end, end]))
    found = await turns(waiting, clock.now())
    assert (found[2], found[3]) == ((None, 0), (None, 0))
