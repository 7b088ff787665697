"""A build that an operator forgets: all its rows go, and nothing of any other build."""

import pytest
from sqlalchemy import func, select

from bridge.domain.attempts import CallKind, new_attempt
from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.changes import AddAttempt, AddRun, set_delivery
from bridge.domain.instants import Duration, Instant
from bridge.domain.lifecycle.mirror import MirrorUploaded, after_upload
from bridge.domain.notices import GROUP_WAIT, EventKind, NoticeEvent
from bridge.domain.outcomes import NotSent
from bridge.errors import NotFound, Unavailable
from bridge.store import operator_actions
from bridge.store.mirror import MirrorChanges, record_mirrored
from bridge.store.notices import add_events, claim_notice, group_events
from bridge.store.operator_actions import (
    FORGOTTEN,
    Actor,
    AuditQuery,
    Forget,
    ForgetRejections,
    build_contents,
    forget,
    forget_caller,
    forget_rejections,
    list_audit,
)
from bridge.store.schema import builds, metadata, notice_events, notices, rejections, reports
from tests.support.builders import POLICY
from tests.support.fake_clock import START
from tests.support.ledger import LEASE_US, kept_refusal, named, report, upload

ANN = Actor(name="Ann", role="operator", address="127.0.0.1", proof="token")
BOTH = (DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE)
OF_GATEWAY = {"alembic_version", "audit", "circuit_breakers", "request_rates", "asked_questions", "signature_uses"}


async def fill(ledger, build_no):
    """Let a build have rows in every table, and return it."""
    large = report("large.xml", body=b"x", sent_size=1)
    blob = {"body": None, "blob": f"2026010100/{build_no:032x}"}
    reports = (report("a.xml"), large.__class__(**{**_fields(large), **blob}))
    refused = kept_refusal("cut.xml", b"<a", body=None, blob=f"2026010101/{build_no:032x}")
    await ledger.accept_together(upload(*reports, build_no=build_no, targets=BOTH, rejections=(refused,)))
    leased = await ledger.claimed()
    registration = await ledger.register(leased)
    await ledger.record(leased.build, named(registration), AddRun("run-1", "https://nod.test/1", Instant(START)))
    failed = new_attempt(CallKind.PUT, NotSent(message="refused"), at=Instant(START), duration=Duration(1))
    await ledger.record(leased.build, AddAttempt(failed))
    first = next(each for each in leased.build.deliveries.values() if each.target is DeliveryTarget.TESTNOD)
    await ledger.record(leased.build, set_delivery(first, state=DeliveryState.DELIVERED, delivered_at=START))
    return leased


def _fields(value):
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


async def counts(database):
    def read(connection):
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar()
            for table in metadata.sorted_tables
            if table.name not in OF_GATEWAY
        }

    return await database.read(read)


async def test_every_row_of_a_build_goes_and_those_of_others_stay(ledger, database):
    other = await fill(ledger, 1)
    await ledger.release(other, None)
    of_one = await counts(database)
    leased = await fill(ledger, 2)
    await ledger.release(leased, None)
    assert await counts(database) == {name: 2 * count for name, count in of_one.items()}
    done = await database.write(forget, Forget(actor=ANN, build_id=leased.build.id))
    assert await counts(database) == of_one
    tables = ("builds", "reports", "deliveries", "registrations", "runs", "rejections", "attempts")
    assert all(of_one[name] for name in tables)
    assert (done.contents.reports, done.contents.undelivered, done.contents.rejections) == (2, 1, 1)
    assert sorted(done.blobs) == [f"2026010100/{2:032x}", f"2026010101/{2:032x}"]
    (copy,) = done.copies
    assert copy.startswith(f"2023/11/14/{'a' * 32}/2/")
    (entry,) = await database.read(list_audit, AuditQuery())
    assert (entry.action, entry.target, entry.detail) == ("forget", f"build {'a' * 32}/2", "2 reports, 1 not delivered")


async def test_a_build_that_a_gateway_works_on_is_not_forgotten(ledger, database, clock):
    leased = await fill(ledger, 1)
    before = await counts(database)
    with pytest.raises(Unavailable, match="working on build"):
        await database.write(forget, Forget(actor=ANN, build_id=leased.build.id))
    assert await counts(database) == before
    clock.advance(LEASE_US + 1)
    await database.write(forget, Forget(actor=ANN, build_id=leased.build.id))
    with pytest.raises(NotFound):
        await database.read(build_contents, leased.build.id)


async def test_answers_that_come_after_a_build_was_forgotten_write_nothing(ledger, database, clock):
    leased = await fill(ledger, 1)
    (registration,) = (await ledger.build()).registrations.values()
    clock.advance(LEASE_US + 1)
    await database.write(forget, Forget(actor=ANN, build_id=leased.build.id))
    mirrored = after_upload(
        list(leased.build.deliveries.values()), MirrorUploaded(), Instant(START), POLICY, Duration(0)
    )
    failed = AddAttempt(
        new_attempt(CallKind.MIRROR, NotSent(message="x"), at=Instant(START), duration=Duration(1), delivery_id=1)
    )
    await database.write(record_mirrored, MirrorChanges(build_id=leased.build.id, changes=(*mirrored, failed)))
    assert not await ledger.late_ids(leased.build, registration)
    assert await ledger.record(leased.build, AddAttempt(failed.attempt)) is None
    assert set((await counts(database)).values()) == {0}


async def test_late_ids_do_not_reach_a_new_registration_of_the_same_id(ledger, database, clock):
    await ledger.accept(report())
    leased = await ledger.claimed()
    late = await ledger.register(leased)
    clock.advance(LEASE_US + 1)
    await database.write(forget, Forget(actor=ANN, build_id=leased.build.id))
    await ledger.accept(report())
    again = await ledger.claimed()
    new = await ledger.register(again)
    changed = await ledger.late_ids(again.build, late.__class__(**{**_fields(new), "requested_at": Instant(0)}))
    assert not changed


async def test_the_next_build_in_the_queue_is_woken(ledger, database):
    await ledger.accept(report(), build_no=1)
    first = await ledger.claimed()
    await ledger.release(first, None)
    await ledger.accept(report(), build_no=2)
    second = await ledger.claimed()
    await ledger.release(second, START * 2, waiting_on=f"queue:{'a' * 32}")
    await database.write(forget, Forget(actor=ANN, build_id=first.build.id))
    assert (await ledger.row(second.build.id)).waiting_on is None


async def test_many_rejections_of_a_job_go_in_commits_of_a_bounded_size(ledger, database, monkeypatch):
    monkeypatch.setattr(operator_actions, "MAX_DELETED", 2)
    for build_no in (1, 2, 3):
        await ledger.accept_together(upload(build_no=build_no, rejections=(kept_refusal("cut.xml", b"<a"),)))
    item = ForgetRejections(actor=ANN, job_id="a" * 32)
    assert [(await database.write(forget_rejections, item)).count for _ in range(3)] == [2, 1, 0]
    assert (await counts(database))["rejections"] == 0
    assert len(await database.read(list_audit, AuditQuery())) == 2


async def test_the_name_of_a_caller_goes_from_all_uploads_and_other_names_stay(ledger, database):
    told = kept_refusal("cut.xml", b"<a").__class__(
        **{**_fields(kept_refusal("cut.xml", b"<a")), "reason": 'The caller "iam:ann" may not do this.'}
    )
    await ledger.accept_together(
        upload(report("a.xml"), build_no=1, caller="iam:ann", rejections=(told,)),
        upload(report("b.xml"), build_no=2, caller="iam:annabel"),
    )
    assert await database.write(forget_caller, "iam:ann") == 2
    assert await database.write(forget_caller, "iam:ann") == 0
    found = await ledger.rows(select(reports.c.caller, reports.c.address).order_by(reports.c.id))
    assert [tuple(row) for row in found] == [(FORGOTTEN, ""), ("iam:annabel", "192.0.2.1")]
    (rejected,) = await ledger.rows(select(rejections.c.caller, rejections.c.reason))
    assert tuple(rejected) == (FORGOTTEN, f'The caller "{FORGOTTEN}" may not do this.')


def about(build_no, text="A report was given up.", kind=EventKind.DEAD_DELIVERY):
    return NoticeEvent(kind=kind, route="", targets=("t",), text=text, job_id="a" * 32, build_no=build_no, count=2)


async def note(database, *events):
    await database.transact(lambda connection, now: add_events(connection, now, events))


async def notice_rows(ledger):
    events = await ledger.rows(select(notice_events.c.detail))
    groups = await ledger.rows(select(notices.c.sealed, notices.c.collected))
    return [value for row in (*events, *groups) for value in row if value is not None]


async def fill_notices(database, clock, *events):
    """Have events that are being sent, that are grouped, and that are not grouped yet."""
    await note(database, *events)
    await database.transact(group_events)
    clock.advance(GROUP_WAIT)
    claimed = await database.write(claim_notice, "t")
    assert claimed is not None
    await note(database, *events)
    await database.transact(group_events)
    await note(database, *events)


async def test_notices_that_wait_do_not_name_a_forgotten_build_and_count_its_events(ledger, database, clock):
    await ledger.accept_together(upload(report("a.xml"), build_no=1), upload(report("a.xml"), build_no=11))
    await fill_notices(database, clock, about(1, "The gone build."), about(11, "The other build."))
    (first,) = await ledger.rows(select(builds.c.id).where(builds.c.build_no == 1))
    await database.write(forget, Forget(actor=ANN, build_id=first.id))
    found = await notice_rows(ledger)
    assert "gone" not in str(found)
    assert str(found).count("The other build.") == 3
    assert await database.transact(group_events) == 2
    assert (await notice_rows(ledger))[0]["count"] == 4
    assert (await notice_rows(ledger))[1]["count"] == 8
    assert len((await notice_rows(ledger))[1]["details"]) == 2


async def test_notices_that_wait_do_not_name_a_forgotten_caller(ledger, database, clock):
    name = "iam:Änne 100%"
    await fill_notices(database, clock, about(1, f'The caller "{name}" may not do this.'), about(2, 'Not "iam:Änne".'))
    assert await database.write(forget_caller, name) == 2
    assert await database.write(forget_caller, name) == 0
    found = await notice_rows(ledger)
    assert name not in str(found)
    assert str(found).count(f'The caller "{FORGOTTEN}" may not do this.') == 3
    assert str(found).count('Not "iam:Änne".') == 3
