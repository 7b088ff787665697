from sqlalchemy import update

from bridge.domain.build import BuildState, EndReason
from bridge.domain.circuit_breaker import CODEARTS
from bridge.domain.instants import MINUTE, SECOND
from bridge.store.open_builds import (
    FinishedBuild,
    PollGrant,
    count_waiting,
    grant_polls,
    read_durations,
    read_job,
    read_slice,
    record_finished,
)
from bridge.store.schema import builds
from tests.support.fake_clock import START
from tests.support.ledger import report

A, B = "a" * 32, "b" * 32


async def arrive(ledger, *numbers, job_id=A):
    for number in numbers:
        await ledger.accept(report(), job_id=job_id, build_no=number)


async def set_rows(ledger, job_id, **values):
    await ledger.database.transact(
        lambda connection, _now: connection.execute(update(builds).where(builds.c.job_id == job_id).values(values))
    )


async def rows(ledger, job_id=A):
    return await ledger.database.read(read_job, job_id)


async def row(ledger, build_id):
    (found,) = await ledger.rows(builds.select().where(builds.c.id == build_id))
    return found


async def test_open_builds_are_read_in_slices_of_whole_jobs(ledger):
    await arrive(ledger, 1, 2)
    await arrive(ledger, 3, 4, job_id=B)
    first, is_last = await ledger.database.read(read_slice, "", 3)
    assert ([each.build_no for each in first], is_last) == ([1, 2], False)
    second, is_last = await ledger.database.read(read_slice, A, 3)
    assert ([each.build_no for each in second], is_last) == ([3, 4], True)


async def test_a_job_that_is_larger_than_a_slice_does_not_stop_the_others(ledger):
    await arrive(ledger, 1, 2, 3)
    found, is_last = await ledger.database.read(read_slice, "", 2)
    assert ([each.build_no for each in found], is_last) == ([1, 2], False)


async def test_a_granted_poll_makes_the_build_due_once(ledger):
    await arrive(ledger, 1)
    (open_build,) = await rows(ledger)
    await set_rows(ledger, A, due_at=None)
    grant = PollGrant(build_id=open_build.id, seen_at=START)
    assert await ledger.database.write(grant_polls, grant)
    granted = await row(ledger, open_build.id)
    assert (granted.poll_reserved, granted.due_at, granted.poll_due_at) == (True, START, START)
    assert not await ledger.database.write(grant_polls, grant)


async def test_a_build_that_was_polled_since_or_is_leased_is_granted_no_poll(ledger):
    await arrive(ledger, 1)
    (open_build,) = await rows(ledger)
    grant = PollGrant(build_id=open_build.id, seen_at=START)
    await set_rows(ledger, A, polled_at=START + 1)
    assert not await ledger.database.write(grant_polls, grant)
    await set_rows(ledger, A, polled_at=START)
    await ledger.claimed()
    assert not await ledger.database.write(grant_polls, grant)


async def test_what_a_list_shows_makes_the_build_due_and_ends_the_questions_about_it(ledger):
    await arrive(ledger, 1)
    (open_build,) = await rows(ledger)
    await set_rows(ledger, A, due_at=START + MINUTE)
    seen = FinishedBuild(build_id=open_build.id, listed_at=START, running_at=START - SECOND, result="FAILURE")
    assert await ledger.database.write(record_finished, seen)
    found = await row(ledger, open_build.id)
    assert (found.listed_result, found.running_at, found.due_at) == ("FAILURE", START - SECOND, START)
    assert found.state == BuildState.OPEN  # its reconciler ends it
    assert await rows(ledger) == []
    assert not await ledger.database.write(record_finished, seen)


async def test_durations_are_from_the_start_to_between_the_last_sign_of_life_and_the_end_that_was_found(ledger):
    await arrive(ledger, 1, 2, 3)
    ended = {"state": BuildState.FINALIZED, "end_reason": EndReason.BUILD_INFO}
    await set_rows(
        ledger, A, **ended, started_at=START - 4 * MINUTE, running_at=START + MINUTE, ended_at=START + 3 * MINUTE
    )
    assert await ledger.database.read(read_durations, [A, B]) == {A: [6 * MINUTE] * 3, B: []}


async def test_an_inferred_end_shows_no_duration(ledger):
    await arrive(ledger, 1)
    await set_rows(ledger, A, state=BuildState.FINALIZED, end_reason=EndReason.MAX_AGE, ended_at=START + MINUTE)
    assert await ledger.database.read(read_durations, [A]) == {A: []}


async def test_builds_that_wait_for_a_breaker_are_counted_up_to_a_limit(ledger):
    await arrive(ledger, 1, 2, 3)
    assert await ledger.database.read(count_waiting, CODEARTS, 2) == 0
    await set_rows(ledger, A, waiting_on=CODEARTS)
    assert await ledger.database.read(count_waiting, CODEARTS, 2) == 2
