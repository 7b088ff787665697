import asyncio
from dataclasses import replace
from typing import get_args

import pytest
from sqlalchemy import select, update

from bridge.domain.attempts import CallKind, new_attempt
from bridge.domain.build import BuildRecord, BuildState, DeliveryState, DeliveryTarget, RegistrationState
from bridge.domain.changes import (
    AddAttempt,
    AddDelivery,
    AddReport,
    AddRun,
    BumpReportSeq,
    Change,
    DropRegistration,
    set_build,
    set_delivery,
    set_registration,
    set_run,
)
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.upload import upload_succeeded
from bridge.domain.outcomes import NotSent
from bridge.store.fenced_writes import FencedChanges, record_stored, write_if_fenced
from bridge.store.leases import (
    FEW_REPORTS,
    SENT_BYTES,
    Claim,
    PollRequest,
    Release,
    Renewal,
    claim,
    due_routes,
    read_claimed,
    read_marks,
    renew,
    request_poll,
    to_leased_build,
)
from bridge.store.retention import BodyRelease
from bridge.store.schema import attempts, builds, deliveries, registrations, reports, runs
from tests.support.fake_clock import START
from tests.support.ledger import COUNTS, LEASE_US, asked, dead, named, record_together, report, run_parameters

MINUTE = 60_000_000
JOB = "a" * 32
REQUEST = PollRequest(job_id=JOB, build_no=1)
SLEEP = update(builds).values(due_at=None)


async def everything(ledger):
    """Return every row a visit may write."""
    tables = (builds, reports, deliveries, registrations, runs, attempts)
    return [await ledger.rows(select(table).order_by(*table.primary_key)) for table in tables]


@pytest.fixture
async def visit(ledger):
    """A visit of a build with one report."""
    await ledger.accept(report())
    return await ledger.claimed()


@pytest.fixture
async def lost_visit(ledger, clock, visit):
    """A visit whose lease ran out, and whose build another one has claimed since."""
    clock.advance(LEASE_US)
    assert (await ledger.claimed(owner="other")).build.id == visit.build.id
    return visit


# -- claim -------------------------------------------------------------------------------------------------------


async def test_a_claim_reads_the_build_with_all_that_belongs_to_it(ledger, visit):
    life = await ledger.register(visit)
    await ledger.record(visit.build, AddRun("run-1", "https://nod.test/run-1", 3))
    build = await ledger.build()
    assert (visit.now, visit.due_at, visit.build.fencing_token) == (START, START, 1)
    assert list(visit.build.reports) == list(visit.build.deliveries) == [1]
    assert build.registrations == {life.id: life}
    assert [run.test_run_id for run in build.runs] == ["run-1"]


CLAIM = Claim(route="", owner="me", lease_us=LEASE_US)
SPOIL = "UPDATE reports SET caller_routes = 'no JSON' WHERE build_id = 1"


async def test_the_claim_of_a_small_build_in_sqlite_has_all_its_rows(ledger, database):
    await ledger.accept(report("a.xml"), report("b.xml"))
    leased = await database.write(claim, CLAIM)
    if database.shared:
        assert leased.others is None
    else:
        assert to_leased_build(leased, leased.others) == await database.read(read_claimed, leased)


async def test_a_row_that_cannot_be_read_keeps_no_other_build_from_being_claimed(ledger, database):
    if database.shared:
        pytest.skip("PostgreSQL has no such row")
    await ledger.accept(report(), build_no=1)
    await ledger.accept(report(), build_no=2)
    await database.transact(lambda connection, _: connection.exec_driver_sql(SPOIL))
    bad, good = await asyncio.gather(*(database.write(claim, CLAIM) for _ in range(2)))
    assert (bad.others, good.row.build_no) == (None, 2)
    with pytest.raises(ValueError, match="Expecting value"):
        await database.read(read_claimed, bad)
    assert (await database.read(read_claimed, good)).build.reports


async def test_the_rows_of_a_large_build_are_left_to_the_reader(ledger, database):
    await ledger.accept(*(report(f"{number}.xml") for number in range(FEW_REPORTS + 1)))
    leased = await database.write(claim, CLAIM)
    assert (leased.others, leased.bodies) == (None, {})
    assert len((await database.read(read_claimed, leased)).build.reports) == FEW_REPORTS + 1


async def test_a_claim_has_the_bytes_of_the_reports_that_are_due_up_to_a_limit(ledger, database, clock):
    half = b"x" * (SENT_BYTES // 2)
    await ledger.accept(*(report(name, body=half) for name in ("a.xml", "b.xml", "c.xml")))
    leased = await database.write(claim, CLAIM)
    assert leased.bodies == ({} if database.shared else {1: half, 2: half})
    build = (await database.read(read_claimed, leased)).build
    clock.advance(LEASE_US)
    sent = set_delivery(build.deliveries[1], state=DeliveryState.DELIVERED)
    await ledger.record(build, sent, set_delivery(build.deliveries[2], due_at=clock.now() + 1))
    leased = await database.write(claim, CLAIM)
    assert leased.bodies == ({} if database.shared else {3: half})


async def test_the_build_that_has_been_due_the_longest_is_claimed_first(ledger, clock):
    for build_no in (3, 1, 2):
        await ledger.accept(report(), build_no=build_no)
        clock.advance(1)
    assert [(await ledger.claimed()).build.build_no for _ in range(3)] == [3, 1, 2]


async def test_a_build_is_not_claimed_before_its_turn(ledger, clock, visit):
    await ledger.release(visit, clock.now() + MINUTE)
    clock.advance(MINUTE - 1)
    assert await ledger.claim() is None
    clock.advance(1)
    assert (await ledger.claimed()).due_at == clock.now()


async def test_a_build_has_never_two_owners(ledger):
    for build_no in range(5):
        await ledger.accept(report(), build_no=build_no)
    claims = await asyncio.gather(*(ledger.claim(owner=f"w{n}") for n in range(20)))
    assert sorted(found.build.build_no for found in claims if found) == [0, 1, 2, 3, 4]


async def test_a_lease_can_be_claimed_when_it_has_run_out_and_not_before(ledger, clock, visit):
    clock.advance(LEASE_US - 1)
    assert await ledger.claim(owner="other") is None
    clock.advance(1)
    assert (await ledger.claimed(owner="other")).build.fencing_token == visit.build.fencing_token + 1


async def test_every_claim_raises_the_fence(ledger, clock, visit):
    await ledger.release(visit, clock.now())
    assert (await ledger.claimed()).build.fencing_token == visit.build.fencing_token + 1


async def test_a_claim_ends_the_wait_for_a_breaker(ledger, clock, visit):
    await ledger.release(visit, clock.now(), waiting_on="testnod")
    await ledger.claimed()
    assert (await ledger.row()).waiting_on is None


async def test_a_route_holds_the_builds_pinned_to_it(ledger, clock, visit):
    await ledger.run_parameters(visit, "shop")
    await ledger.release(visit, clock.now())
    assert await ledger.claim("") is None
    assert await ledger.claim("other") is None
    assert (await ledger.claimed("shop")).build.run_parameters == run_parameters("shop")


async def test_a_renewed_lease_lasts_from_now(ledger, database, clock, visit):
    clock.advance(LEASE_US - 1)
    assert await database.write(
        renew, Renewal(build_id=visit.build.id, fencing_token=visit.build.fencing_token, lease_us=LEASE_US)
    )
    clock.advance(LEASE_US - 1)
    assert await ledger.claim() is None
    clock.advance(1)
    assert await ledger.claim() is not None


async def test_a_lost_lease_is_not_renewed(ledger, database, lost_visit):
    before = await ledger.row()
    build = lost_visit.build
    assert not await database.write(
        renew, Renewal(build_id=build.id, fencing_token=build.fencing_token, lease_us=MINUTE)
    )
    assert await ledger.row() == before


async def test_a_renewal_that_lands_after_the_release_leases_nothing(ledger, database, visit):
    build = visit.build
    await ledger.release(visit, until=None)
    await database.write(renew, Renewal(build_id=build.id, fencing_token=build.fencing_token, lease_us=LEASE_US))
    assert (await ledger.row()).lease_until is None


async def test_leases_renewed_together_are_each_judged_by_their_own_fence(ledger, database, clock):
    for number in range(3):
        await ledger.accept(report(), build_no=number)
    visits = [await ledger.claimed() for _ in range(3)]
    asked_for = [
        Renewal(build_id=visit.build.id, fencing_token=visit.build.fencing_token + late, lease_us=2 * LEASE_US)
        for visit, late in zip(visits, (0, 1, 0), strict=True)
    ]
    renewed = await database.write(_renew_together, asked_for)
    assert renewed == [True, False, True]
    clock.advance(LEASE_US)
    assert (await ledger.claimed()).build.id == visits[1].build.id
    assert await ledger.claim() is None


def _renew_together(connection, now, items):
    return [renew(connection, now, item) for item in items]


async def test_what_visits_write_together_is_each_under_its_own_fence(ledger, database):
    for number in range(3):
        await ledger.accept(report(), build_no=number)
    visits = [await ledger.claimed() for _ in range(3)]
    fenced = [
        FencedChanges(
            build_id=visit.build.id,
            fencing_token=visit.build.fencing_token + late,
            changes=(asked(next(iter(visit.build.deliveries.values()))), set_build(last_error=f"of {visit.build.id}")),
        )
        for visit, late in zip(visits, (0, 1, 0), strict=True)
    ]
    one, none, other = await database.write(record_together, fenced)
    assert none is None
    for visit, written in ((visits[0], one), (visits[2], other)):
        build = await ledger.build(visit.build.id)
        assert build.registrations == {written[0].registration.id: written[0].registration}
        assert build.last_error == f"of {build.id}"
    assert await ledger.build(visits[1].build.id) == visits[1].build


async def test_what_one_delivery_gets_twice_it_gets_in_order(ledger, visit):
    delivery = next(iter(visit.build.deliveries.values()))
    await ledger.record(
        visit.build,
        set_delivery(delivery, attempts=1),
        set_delivery(delivery, last_error="one", attempts=2),
        set_delivery(delivery, attempts=3),
    )
    (found,) = (await ledger.build()).deliveries.values()
    assert (found.attempts, found.last_error) == (3, "one")


# -- due routes ---------------------------------------------------------------------------------------------------


async def test_due_routes_say_when_each_route_is_due(ledger, database, clock):
    await ledger.accept(report(), build_no=1)
    visit = await ledger.claimed()
    await ledger.run_parameters(visit, "shop")
    await ledger.release(visit, clock.now() + MINUTE)
    await ledger.accept(report(), build_no=2)
    due = await database.read(due_routes, ("", "shop", "empty"), clock.now())
    assert due == {"": START, "shop": START + MINUTE}


async def test_a_route_whose_due_builds_are_all_leased_is_due_when_its_next_one_is(ledger, database, clock):
    for build_no in (1, 2):
        await ledger.accept(report(), build_no=build_no)
    visit = await ledger.claimed()
    await ledger.claimed()
    assert await database.read(due_routes, ("",), clock.now()) == {}
    await ledger.release(visit, clock.now() + MINUTE)
    assert await database.read(due_routes, ("",), clock.now()) == {"": START + MINUTE}


async def test_a_route_is_due_again_when_a_lease_has_run_out(database, clock, visit):
    clock.advance(LEASE_US)
    assert await database.read(due_routes, ("",), clock.now()) == {"": visit.due_at}


# -- record ------------------------------------------------------------------------------------------------------


async def test_changes_of_the_build_are_read_back(ledger, visit):
    record = BuildRecord(branch="main", commit="abc")
    await ledger.record(
        visit.build, set_build(state=BuildState.ENDED, record=record, described_at=3, blocked_reason="why")
    )
    build = await ledger.build()
    assert (build.state, build.record, build.described_at, build.blocked_reason) == (BuildState.ENDED, record, 3, "why")


async def test_a_raised_batch_counts_from_what_intake_made_of_it(ledger, visit):
    await ledger.accept(report("late.xml"))
    await ledger.record(visit.build, set_build(finalized_seq=visit.build.report_seq), BumpReportSeq())
    build = await ledger.build()
    assert (build.finalized_seq, build.report_seq) == (1, 3)


async def test_an_added_registration_gets_its_id(ledger, visit):
    first = await ledger.register(visit)
    await ledger.record(visit.build, set_registration(first, state=RegistrationState.LOST))
    second = await ledger.register(visit)
    assert list((await ledger.build()).registrations) == [first.id, second.id]
    assert first.id != second.id


async def test_a_dropped_registration_is_gone_while_it_is_asked(ledger, visit):
    life = await ledger.register(visit)
    await ledger.record(visit.build, DropRegistration(life.id))
    assert (await ledger.build()).registrations == {}


async def test_a_registration_that_has_a_name_is_not_dropped(ledger, visit):
    life = await ledger.register(visit)
    await ledger.record(visit.build, named(life))
    await ledger.record(visit.build, DropRegistration(life.id))
    assert list((await ledger.build()).registrations) == [life.id]


async def test_a_run_is_added_once_and_follows_its_changes(ledger, visit):
    await ledger.record(visit.build, AddRun("run-1", "https://nod.test/1", 3))
    await ledger.record(visit.build, AddRun("run-1", "https://nod.test/1", 4), AddRun("run-2", "https://nod.test/2", 5))
    first = (await ledger.build()).runs[0]
    await ledger.record(visit.build, set_run(first, status="processed", finalized_at=9))
    assert [(run.opened_at, run.status) for run in (await ledger.build()).runs] == [(3, "processed"), (5, None)]


async def test_a_delivery_is_changed_only_where_it_is_still_in_the_state_it_leaves(ledger, visit):
    (delivery,) = visit.build.deliveries.values()
    await ledger.record(visit.build, set_delivery(delivery, state=DeliveryState.DELIVERED, delivered_at=5))
    await ledger.record(visit.build, dead(delivery))
    (after,) = (await ledger.build()).deliveries.values()
    assert (after.state, after.attempts) == (DeliveryState.DELIVERED, 0)


async def test_a_registration_is_changed_only_where_it_is_still_in_the_state_it_leaves(ledger, visit):
    life = await ledger.register(visit)
    await ledger.record(visit.build, named(life))
    await ledger.record(visit.build, set_registration(life, state=RegistrationState.LOST))
    (after,) = (await ledger.build()).registrations.values()
    assert after.state is RegistrationState.REGISTERED


def one_of_each(build, life):
    """Return a change of every kind, each of which the build's owner could write."""
    return [
        set_build(state=BuildState.ENDED, run_parameters=run_parameters("shop")),
        BumpReportSeq(),
        AddReport(replace(build.reports[1], name="made.xml"), deliveries=(), body=b"<testsuite/>", counts=COUNTS),
        AddDelivery(replace(build.deliveries[1], target=DeliveryTarget.ARCHIVE)),
        dead(build.deliveries[1]),
        asked(build.deliveries[1]),
        named(life),
        DropRegistration(life.id),
        AddRun("run-2", "https://nod.test/2", 1),
        set_run(build.runs[0], status="processed"),
        AddAttempt(new_attempt(CallKind.FINALIZE, NotSent(message="refused"), at=START, duration=1)),
    ]


async def test_a_visit_that_lost_its_build_writes_nothing_of_any_kind(ledger, clock, visit):
    life = await ledger.register(visit)
    await ledger.record(visit.build, AddRun("run-1", "https://nod.test/1", 1))
    build = await ledger.build()
    clock.advance(LEASE_US)
    await ledger.claimed(owner="other")
    before = await everything(ledger)
    changes = one_of_each(build, life)
    assert {type(change) for change in changes} == set(get_args(Change))
    assert [await ledger.record(build, change) for change in changes] == [None] * len(changes)
    assert await ledger.record(build, *changes) is None
    assert await everything(ledger) == before


# -- release -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [START + MINUTE, START - MINUTE, None], ids=["later", "past", "never"])
async def test_a_release_writes_when_the_next_turn_is(ledger, visit, until):
    assert await ledger.release(visit, until, waiting_on="testnod", blocked_reason="no route")
    row = await ledger.row()
    assert (row.due_at, row.waiting_on, row.blocked_reason) == (until, "testnod", "no route")
    assert (row.lease_owner, row.lease_until) == (None, None)


@pytest.mark.parametrize("passed_us", [0, 1, MINUTE])
@pytest.mark.parametrize("until_us", [2 * MINUTE, None], ids=["later", "never"])
async def test_a_report_that_came_during_the_visit_keeps_its_earlier_turn(ledger, clock, visit, passed_us, until_us):
    clock.advance(passed_us)
    await ledger.accept(report("late.xml"))
    assert await ledger.release(visit, until_us and START + until_us)
    assert (await ledger.row()).due_at <= clock.now()


async def test_a_release_may_ask_for_an_earlier_turn_than_what_came_meanwhile(ledger, clock, visit):
    clock.advance(MINUTE)
    await ledger.accept(report("late.xml"))
    await ledger.release(visit, START - 5)
    assert (await ledger.row()).due_at == START - 5


async def test_a_repeat_that_came_during_the_visit_changes_no_turn(ledger, clock, visit):
    clock.advance(1)
    await ledger.accept(report())
    await ledger.release(visit, None)
    assert (await ledger.row()).due_at is None


async def test_a_batch_that_the_visit_raised_itself_is_nothing_new(ledger, visit):
    await ledger.record(visit.build, BumpReportSeq())
    await ledger.release(visit, START + MINUTE, report_seq=visit.build.report_seq + 1)
    assert (await ledger.row()).due_at == START + MINUTE


async def test_a_batch_raised_by_visit_and_intake_is_something_new(ledger, visit):
    await ledger.record(visit.build, BumpReportSeq())
    await ledger.accept(report("late.xml"))
    await ledger.release(visit, None, report_seq=visit.build.report_seq + 1)
    assert (await ledger.row()).due_at == START


async def test_a_late_release_changes_nothing(ledger, lost_visit):
    before = await everything(ledger)
    assert not await ledger.release(lost_visit, None)
    assert await everything(ledger) == before


# -- ids that come late ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [False, True], ids=["requested", "lost"])
async def test_late_ids_make_a_nameless_registration_failed_owed(ledger, clock, visit, lost):
    life = await ledger.register(visit)
    if lost:
        await ledger.record(visit.build, set_registration(life, state=RegistrationState.LOST))
    await ledger.release(visit, None)
    clock.advance(MINUTE)
    assert await ledger.late_ids(visit.build, life)
    build = await ledger.build()
    after = build.registrations[life.id]
    assert after.state is RegistrationState.FAILURE_UNREPORTED
    assert (after.test_run_id, after.upload_id, after.due_at) == ("run-9", "up-9", clock.now())
    assert [run.test_run_id for run in build.runs] == ["run-9"]
    assert (build.report_seq, (await ledger.row()).due_at) == (visit.build.report_seq + 1, clock.now())


@pytest.mark.parametrize(("run", "status"), [("run-1", None), ("run-9", "processing")], ids=["the same run", "another"])
async def test_late_ids_of_another_run_show_that_the_older_ones_have_left_pending(ledger, visit, run, status):
    life = await ledger.register(visit)
    await ledger.record(visit.build, AddRun("run-1", "https://nod.test/1", 1))

    assert await ledger.late_ids(visit.build, life, run)

    assert (await ledger.build()).runs[0].status == status


async def test_late_ids_are_written_if_another_worker_owns_the_build(ledger, clock, visit):
    life = await ledger.register(visit)
    clock.advance(LEASE_US)
    newer = await ledger.claimed(owner="other")
    assert await ledger.late_ids(visit.build, life)
    assert await ledger.release(newer, None)
    assert (await ledger.claimed()).build.registrations[life.id].state is RegistrationState.FAILURE_UNREPORTED


async def test_late_ids_twice_are_written_once(ledger, visit):
    life = await ledger.register(visit)
    assert await ledger.late_ids(visit.build, life)
    before = await everything(ledger)
    assert not await ledger.late_ids(visit.build, life)
    assert await everything(ledger) == before


async def test_late_ids_do_not_bring_back_what_testnod_no_longer_knows(ledger, visit):
    life = await ledger.register(visit)
    await ledger.late_ids(visit.build, life)
    failed = (await ledger.build()).registrations[life.id]
    await ledger.record(visit.build, set_registration(failed, state=RegistrationState.LOST))
    before = await everything(ledger)
    assert not await ledger.late_ids(visit.build, life)
    assert await everything(ledger) == before


async def test_late_ids_of_a_registration_with_a_name_change_nothing(ledger, visit):
    life = await ledger.register(visit)
    await ledger.record(visit.build, named(life))
    before = await everything(ledger)
    assert not await ledger.late_ids(visit.build, life)
    assert await everything(ledger) == before


async def test_late_ids_of_a_registration_that_has_gone_change_nothing(ledger, visit):
    life = await ledger.register(visit)
    await ledger.record(visit.build, DropRegistration(life.id))
    before = await everything(ledger)
    assert not await ledger.late_ids(visit.build, life)
    assert await everything(ledger) == before


async def test_late_ids_in_a_known_run_add_none(ledger, visit):
    life = await ledger.register(visit)
    await ledger.record(visit.build, AddRun("run-9", "https://nod.test/run-9", 1))
    assert await ledger.late_ids(visit.build, life)
    assert [run.opened_at for run in (await ledger.build()).runs] == [1]


async def test_late_ids_do_not_push_back_a_turn(ledger, clock, visit):
    life = await ledger.register(visit)
    await ledger.release(visit, clock.now())
    clock.advance(MINUTE)
    await ledger.late_ids(visit.build, life)
    assert (await ledger.row()).due_at == START


# -- stored, under any lease ------------------------------------------------------------------------------------


async def test_a_stored_report_is_delivered_if_another_worker_owns_the_build(ledger, database, clock, visit):
    life = await ledger.register(visit)
    await ledger.record(visit.build, named(life))
    build = await ledger.build()
    clock.advance(LEASE_US)
    await ledger.claimed(owner="other")
    assert await database.write(record_stored, upload_succeeded(build, build.registrations[life.id], clock.now()))
    after = await ledger.build()
    assert after.registrations[life.id].state is RegistrationState.STORED
    assert after.registrations[life.id].presigned_url is None
    assert after.deliveries[1].state is DeliveryState.DELIVERED
    assert after.deliveries[1].delivered_at == clock.now()


async def test_a_dead_delivery_whose_report_turns_out_stored_is_delivered(ledger, database, clock, visit):
    life = await ledger.register(visit)
    await ledger.record(visit.build, named(life))
    build = await ledger.build()
    await ledger.record(visit.build, dead(build.deliveries[1]))
    assert await database.write(record_stored, upload_succeeded(build, build.registrations[life.id], clock.now()))
    assert (await ledger.build()).deliveries[1].state is DeliveryState.DELIVERED


@pytest.mark.parametrize("state", [RegistrationState.FAILURE_UNREPORTED, RegistrationState.STORED])
async def test_only_what_is_still_named_becomes_stored_without_the_fence(ledger, database, clock, visit, state):
    life = await ledger.register(visit)
    await ledger.record(visit.build, named(life))
    build = await ledger.build()
    await ledger.record(visit.build, set_registration(build.registrations[life.id], state=state))
    before = await everything(ledger)
    known = await database.write(record_stored, upload_succeeded(build, build.registrations[life.id], clock.now()))
    assert known is (state is RegistrationState.STORED)
    assert await everything(ledger) == before


async def test_a_report_with_an_unsettled_registration_that_the_visit_did_not_see_is_not_asked_for_again(ledger, visit):
    delivery = visit.build.deliveries[1]
    assert await ledger.record(visit.build, asked(delivery)) is not None
    before = await everything(ledger)

    assert await ledger.record(visit.build, set_build(build_result="SUCCESS"), asked(delivery)) is None
    assert await everything(ledger) == before


# -- poll requests -----------------------------------------------------------------------------------------------


@pytest.fixture
async def resting(ledger, clock):
    """A build whose next turn is a minute away."""
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.release(visit, clock.now() + MINUTE)
    clock.advance(1)


@pytest.mark.usefixtures("resting")
async def test_a_poll_request_makes_an_open_build_due_now(ledger, database, clock):
    assert await database.write(request_poll, REQUEST)

    build = (await ledger.claimed()).build
    assert build.poll_requested_at == clock.now()
    assert build.state is BuildState.OPEN


@pytest.mark.usefixtures("resting")
async def test_a_poll_request_leaves_an_ended_build_alone(ledger, database):
    await ledger.record(await ledger.build(), set_build(state=BuildState.ENDED))

    assert not await database.write(request_poll, REQUEST)
    assert await ledger.claim() is None


async def test_a_poll_request_for_an_unknown_build_changes_nothing(database):
    assert not await database.write(request_poll, REQUEST)


async def test_a_poll_request_during_a_reconcile_survives_the_release(ledger, database, clock):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await database.write(request_poll, REQUEST)
    await ledger.release(visit, clock.now() + MINUTE)

    assert (await ledger.claimed()).build.poll_requested_at == clock.now()


async def test_a_poll_request_without_a_number_covers_all_open_builds_of_the_job(ledger, database, clock):
    for number in (1, 2, 3):
        await ledger.accept(report(), build_no=number)
        visit = await ledger.claimed()
        await ledger.release(visit, clock.now() + MINUTE)
    await ledger.record(visit.build, set_build(state=BuildState.ENDED))

    assert await database.write(request_poll, PollRequest(job_id=JOB)) == 2
    assert {(await ledger.claimed()).build.build_no for _ in range(2)} == {1, 2}
    assert await ledger.claim() is None
    assert await database.write(request_poll, PollRequest(job_id="b" * 32)) == 0


async def test_a_build_that_was_polled_just_now_is_due_a_second_later(ledger, database, clock):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.record(visit.build, set_build(polled_at=clock.now()))
    await ledger.release(visit, clock.now() + MINUTE)
    clock.advance(1)

    for _ in range(3):
        await database.write(request_poll, REQUEST)

    assert await ledger.claim() is None
    clock.advance(SECOND)
    assert await ledger.claim() is not None


async def test_a_poll_request_never_makes_a_build_due_later(ledger, database, clock):
    await ledger.accept(report())
    due_at = (await ledger.row()).due_at
    clock.advance(MINUTE)

    await database.write(request_poll, REQUEST)

    assert (await ledger.row()).due_at < due_at + 1


async def test_a_poll_request_wakes_a_build_that_is_never_due(ledger, database, clock):
    await ledger.accept(report())
    await database.write(lambda connection, _now, items: [connection.execute(s) for s in items], SLEEP)

    await database.write(request_poll, REQUEST)

    assert (await ledger.row()).due_at == clock.now()


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_builds_that_are_left_to_others_are_neither_claimed_nor_due(ledger, database):
    for number in (1, 2):
        await ledger.accept(report(), build_no=number)
    wanted = Claim(route="", owner="me", lease_us=LEASE_US)
    first = await database.write(claim, wanted)
    assert first.row.build_no == 1
    left = (first.row.id + 1,)
    assert await database.write(claim, replace(wanted, left=left)) is None
    assert await database.read(due_routes, [""], START, left) == {}
    assert set(await database.read(due_routes, [""], START)) == {""}
    second = await database.write(claim, replace(wanted, left=(first.row.id,)))
    assert second.row.build_no == 2


# -- changes, release and bytes in one commit --------------------------------------------------------------------


def last_write(visit, token):
    """Return the last write of a visit: its report is delivered, its bytes are freed, and its lease ends."""
    build = visit.build
    return FencedChanges(
        build_id=build.id,
        fencing_token=token,
        changes=(set_delivery(build.deliveries[1], state=DeliveryState.DELIVERED),),
        release=Release(
            build_id=build.id,
            fencing_token=token,
            report_seq=build.report_seq,
            due_at=visit.due_at,
            until=visit.now + 9,
            waiting_on=None,
            blocked_reason=None,
        ),
        bodies=BodyRelease(build_id=build.id, replacements=False),
    )


async def test_the_last_write_ends_the_lease_and_frees_the_bytes(ledger):
    await ledger.accept(replace(report(), body=None, blob="b-1"))
    visit = await ledger.claimed()
    written = await ledger.database.write(write_if_fenced, last_write(visit, visit.build.fencing_token))
    row = await ledger.row()
    assert written is not None
    assert written.freed == ("b-1",)
    assert written.changes is None  # no new row, so no id
    assert (row.lease_owner, row.lease_until, row.due_at) == (None, None, visit.now + 9)
    assert not (await ledger.build()).reports[1].has_bytes


async def test_a_last_write_of_a_lost_lease_writes_nothing_of_all_that(ledger, lost_visit):
    before = await everything(ledger)
    assert await ledger.database.write(write_if_fenced, last_write(lost_visit, lost_visit.build.fencing_token)) is None
    assert await everything(ledger) == before


async def test_the_marks_of_a_build_change_with_each_upload(ledger, visit):
    before = await ledger.database.read(read_marks, visit.build.id)
    await ledger.accept(report("late"))
    after = await ledger.database.read(read_marks, visit.build.id)
    assert (before.report_seq, after.report_seq) == (1, 2)
    assert await ledger.database.read(read_marks, 99) is None


async def test_equal_claims_of_one_commit_lease_the_builds_in_the_order_in_which_they_are_due(ledger, clock):
    for number in (3, 1, 2):
        await ledger.accept(report(), build_no=number)
        clock.advance(1)
    wanted = Claim(route="", owner="me", lease_us=LEASE_US)
    leased = await ledger.database.transact(lambda connection, now: claim(connection, now, [wanted] * 4))
    assert [row and row.row.build_no for row in leased] == [3, 1, 2, None]
    assert [row.row.fencing_token for row in leased[:3]] == [1, 1, 1]
