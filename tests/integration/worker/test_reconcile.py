"""A visit through the real ledger: what it decides on, while reports keep coming."""

from dataclasses import replace

import pytest

from bridge.domain.build import BuildState
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.upload import upload_succeeded
from bridge.domain.outcomes import NotSent
from bridge.errors import LeaseLost
from bridge.store.fenced_writes import record_stored
from bridge.store.retention import body_location
from bridge.worker.background_tasks import MIRROR_SLOTS
from bridge.worker.reconcile import BuildReconciler
from tests.support.builders import HOUR, POLICY
from tests.support.fake_clock import FakeClock
from tests.support.ledger import LEASE_US, report
from tests.support.worker_play import JOBS, Play

BUILD = {"job_id": next(iter(JOBS)), "build_no": 1}


@pytest.fixture
async def play(backend, tmp_path):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        yield Play(database, clock, tmp_path)


async def test_a_report_that_came_while_a_put_ran_is_in_the_run_that_ends_after_it(play):
    async def another_comes_and_the_build_settles():
        await play.ledger.accept(report("two.xml"), **BUILD)
        play.clock.advance(POLICY.grace_period + SECOND)

    play.outside.meanwhile.append(another_comes_and_the_build_settles)
    await play.ledger.accept(report("one.xml"), complete=True, **BUILD)
    await play.until(play.clock.now() + HOUR)
    assert await play.states() == ["delivered", "delivered"]
    assert play.outside.stored_at_finalize[0] == 2


async def test_a_reconciler_whose_build_has_a_newer_owner_makes_no_call(play):
    """As one that stood still: its lease ran out, and it does not know."""
    await play.ledger.accept(report(), **BUILD)
    late = await play.ledger.claimed()
    play.clock.advance(LEASE_US)
    assert (await play.ledger.claimed(owner="another")).build.id == late.build.id

    with pytest.raises(ExceptionGroup) as ended:
        await BuildReconciler(play.config, late, play.clock.now()).run(play.config.executor)
    assert ended.group_contains(LeaseLost)
    assert play.outside.registered == []


async def test_a_build_that_is_released_because_the_gateway_stops_stays_due_when_it_was(play):
    """By a clock that is hours ahead, the build would wait for hours after a start with the right clock."""
    await play.ledger.accept(report(), **BUILD)
    due_at = (await play.ledger.row()).due_at
    play.clock.advance(3 * HOUR)
    leased = await play.ledger.claimed()
    play.config.stopping.set()
    await BuildReconciler(play.config, leased, play.clock.now()).run(play.config.executor)
    row = await play.ledger.row()
    assert (row.due_at, row.lease_until) == (due_at, None)


async def test_a_report_whose_arrival_was_written_though_the_ledgers_answer_was_lost_is_not_put_again(play):
    """The answer to that commit was lost, so it is written once more: the ledger says that it knows."""

    async def it_was_written():
        build = await play.ledger.build()
        (life,) = build.registrations.values()
        assert await play.config.database.write(record_stored, upload_succeeded(build, life, play.clock.now())) is True

    play.outside.meanwhile.append(it_was_written)
    await play.ledger.accept(report(), complete=True, **BUILD)
    await play.until(play.clock.now() + HOUR)
    assert play.outside.stored == 1
    assert await play.states() == ["delivered"]


async def test_a_run_is_ended_though_the_mirror_is_busy_at_every_turn(play):
    """Turns come seldom under load: each finds the mirror due again, and no place of its free."""
    mirrored = tuple(replace(route, mirror=True) for route in play.config.policy.routes)
    config = replace(play.config, policy=replace(play.config.policy, routes=mirrored))
    for _ in range(MIRROR_SLOTS):
        await play.background.mirror_slots.acquire()
    await play.ledger.accept(report(), complete=True, **BUILD)
    for turn in range(6):
        visit = await play.ledger.claimed(route=JOBS[BUILD["job_id"]] if turn else "")
        await BuildReconciler(config, visit, play.clock.now()).run(config.executor)
        play.clock.advance(POLICY.grace_period)
    assert len(play.outside.stored_at_finalize) == 1


async def test_reports_of_a_build_share_their_writes(play, monkeypatch):
    """One for all that are requested at once, one for all ids; finalize, freed bytes and the lease's end are one."""
    written = []

    def counted(function, item, size=0):
        written.append(function.__name__)
        return real(function, item, size)

    await play.ledger.accept(*(report(f"{number}.xml") for number in range(8)), complete=True, **BUILD)
    real = play.config.database.write
    monkeypatch.setattr(play.config.database, "write", counted)
    await play.until(play.clock.now() + HOUR)
    assert await play.states() == ["delivered"] * 8
    assert [body async for body in _bodies(play)] == [None] * 8
    assert written.count("write_if_fenced") < 2 * 8
    assert set(written) <= {"claim", "write_if_fenced", "renew", "apply_breaker_signals"}


async def _bodies(play):
    for number in range(1, 9):
        yield (await play.config.database.read(body_location, number)).body


async def test_a_run_is_finalized_in_the_visit_that_stored_its_reports_if_nothing_has_arrived_since(play):
    play.config = replace(play.config, policy=replace(play.config.policy, grace_period=0))
    await play.ledger.accept(report("one.xml"), complete=True, **BUILD)
    await play.turn()
    assert play.visits == 1
    assert play.outside.stored_at_finalize == [1]


async def test_what_became_true_without_a_call_is_in_the_ledger_before_a_report_is_sent(play):
    states = []

    async def note_state():
        states.append((await play.ledger.build()).state)

    await play.ledger.accept(report(), **BUILD)
    play.outside.odd["put", f"codearts-{BUILD['job_id']}-1"] = iter([NotSent(message="no way")])
    await play.turn()
    assert (await play.states(), (await play.ledger.build()).state) == (["pending"], BuildState.OPEN)

    play.outside.meanwhile.append(note_state)
    await play.ledger.accept(complete=True, **BUILD)
    play.clock.advance(POLICY.grace_period)
    await play.turn()
    assert (await play.states(), states) == (["delivered"], [BuildState.ENDED])


async def test_a_clock_that_is_set_back_does_not_prolong_a_lease(play):
    await play.ledger.accept(report(), **BUILD)
    late = BuildReconciler(play.config, await play.ledger.claimed(), play.clock.now())
    play.clock.advance(-48 * HOUR)
    play.clock.advance(LEASE_US)

    with pytest.raises(ExceptionGroup) as ended:
        await late.run(play.config.executor)
    assert ended.group_contains(LeaseLost)
    assert play.outside.registered == []
