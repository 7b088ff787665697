from functools import partial

import pytest
from sqlalchemy import select, update

from bridge.domain.build import BuildState, DeliveryState
from bridge.domain.changes import AddRun, set_build, set_delivery, set_run
from bridge.domain.lifecycle.replacement import may_be_replaced
from bridge.store.retention import (
    BodyLocation,
    BodyRelease,
    DeletedBuilds,
    DeliveredBodies,
    FinishedBuilds,
    body_location,
    delete_finished,
    release_bodies,
    unlink_corrupt_body,
    unlink_delivered,
)
from bridge.store.schema import builds, deliveries, reports
from tests.support.fake_clock import START
from tests.support.ledger import dead, report

NOW_FREE = BodyRelease(build_id=1, report_id=1, replacements=False)
IF_UNNEEDED = BodyRelease(build_id=1, replacements=True)


async def deliver(ledger):
    """Let every report of the next due build be delivered."""
    visit = await ledger.claimed()
    delivered = [set_delivery(one, state=DeliveryState.DELIVERED) for one in visit.build.deliveries.values()]
    assert await ledger.record(visit.build, *delivered)


async def test_small_reports_are_read_back_from_their_row(ledger, database):
    await ledger.accept(report(body=b"<a>\x00\xff</a>"))
    assert await database.read(body_location, 1) == BodyLocation(body=b"<a>\x00\xff</a>", blob=None)


async def test_bytes_of_a_delivered_report_go_from_its_row(ledger, database):
    await ledger.accept(report())
    await deliver(ledger)
    assert await database.write(release_bodies, NOW_FREE) == []
    assert await database.read(body_location, 1) == BodyLocation(body=None, blob=None)
    assert not (await ledger.build()).reports[1].has_bytes


async def test_the_blob_of_a_delivered_report_is_handed_out_once_to_be_deleted(ledger, database):
    await ledger.accept(report(blob="2026010100/one"))
    await deliver(ledger)
    assert await database.write(release_bodies, NOW_FREE) == ["2026010100/one"]
    assert await database.write(release_bodies, NOW_FREE) == []


@pytest.mark.parametrize("died", [False, True], ids=["pending", "dead"])
async def test_bytes_that_are_owed_or_may_be_sent_again_stay(ledger, database, died):
    await ledger.accept(report(blob="2026010100/one"))
    if died:
        visit = await ledger.claimed()
        assert await ledger.record(visit.build, dead(visit.build.deliveries[1]))
    before = await database.read(body_location, 1)
    assert await database.write(release_bodies, NOW_FREE) == []
    assert await database.read(body_location, 1) == before


async def test_bytes_of_other_reports_stay(ledger, database):
    await ledger.accept(report("a"), build_no=1)
    await deliver(ledger)
    await ledger.accept(report("b", b"<b/>"), build_no=2)
    await database.write(release_bodies, NOW_FREE)
    assert (await database.read(body_location, 2)).body == b"<b/>"


async def test_a_corrupt_blob_is_unlinked_unless_the_report_has_another_one_by_now(ledger, database):
    await ledger.accept(report(blob="2026010100/two"))
    assert await database.write(unlink_corrupt_body, (1, "2026010100/one")) is False
    assert (await database.read(body_location, 1)).blob == "2026010100/two"
    assert await database.write(unlink_corrupt_body, (1, "2026010100/two")) is True
    assert (await database.read(body_location, 1)).blob is None


# -- bytes that a replacement may need -----------------------------------------------------------------------------


async def run_of(ledger, status, **values):
    """Give the delivered build a run and these values."""
    visit = await ledger.claimed()
    delivered = [
        set_delivery(one, state=DeliveryState.DELIVERED, delivered_at=visit.now)
        for one in visit.build.deliveries.values()
    ]
    assert await ledger.record(visit.build, *delivered, AddRun("run-1", "", visit.now))
    run = (await ledger.build()).runs[0]
    assert await ledger.record(visit.build, set_run(run, status=status), set_build(**values))


OPEN, ENDED, FINALIZED = BuildState.OPEN, BuildState.ENDED, BuildState.FINALIZED
NEEDED = [
    (None, {}, True),
    (None, {"state": ENDED}, True),
    ("pending", {"state": FINALIZED, "confirm_until": 9}, True),
    ("processing", {"state": FINALIZED, "confirm_until": 9}, False),
    ("pending", {"state": FINALIZED, "confirm_until": None}, False),
    ("processed", {"state": FINALIZED, "confirm_until": None}, False),
    (None, {"state": BuildState.NO_RUN}, False),
]


@pytest.mark.parametrize(("status", "values", "kept"), NEEDED)
async def test_delivered_bytes_are_kept_until_the_run_has_left_pending(ledger, database, status, values, kept):
    await ledger.accept(report(blob="2026010100/one"))
    await run_of(ledger, status, **values)

    assert may_be_replaced(await ledger.build()) is kept
    assert await database.write(release_bodies, IF_UNNEEDED) == ([] if kept else ["2026010100/one"])


async def test_all_delivered_reports_of_a_build_are_released_together_and_those_of_others_stay(ledger, database):
    await ledger.accept(report("a", blob="2026010100/a"), report("b"), build_no=1)
    await run_of(ledger, "processed", state=FINALIZED)
    await ledger.accept(report("c", b"<c/>"), build_no=2)

    assert await database.write(release_bodies, IF_UNNEEDED) == ["2026010100/a"]

    assert [each.has_bytes for each in (await ledger.build()).reports.values()] == [False, False]
    assert (await database.read(body_location, 3)).body == b"<c/>"


async def test_each_build_of_a_commit_gets_its_own_blobs_and_each_blob_once(ledger, database):
    for build_no, name in ((1, "a"), (2, "b"), (3, "c")):
        await ledger.accept(report(name, blob=f"2026010100/{name}"), build_no=build_no)
    for _ in range(2):
        await deliver(ledger)
    releases = [BodyRelease(build_id=build_id, replacements=False) for build_id in (2, 1, 3, 1)]
    alone = BodyRelease(build_id=2, report_id=2, replacements=False)

    freed = await database.transact(partial(release_bodies, items=[*releases, alone]))

    assert freed == [["2026010100/b"], ["2026010100/a"], [], [], []]
    assert [(await ledger.build(build_id)).reports[build_id].has_bytes for build_id in (1, 2, 3)] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("before", "replacements", "freed"), [(0, True, 0), (1, True, 1), (0, False, 1)], ids=["young", "old", "off"]
)
async def test_the_cleanup_frees_bytes_of_unfinalized_builds_only_after_retention(
    ledger, database, before, replacements, freed
):
    await ledger.accept(report())
    await run_of(ledger, None)
    delivered_at = (await ledger.build()).deliveries[1].delivered_at

    old = DeliveredBodies(before=delivered_at + before, replacements=replacements)

    assert len(await database.write(unlink_delivered, old)) == freed


# -- rows of finished builds -------------------------------------------------------------------------------------------

LONG_AGO = 1_000


async def finish(ledger, build_no=1, **values):
    """Let a build be delivered and finalized at LONG_AGO, and its bytes be freed; return its id."""
    await ledger.accept(report(f"{build_no}.xml"), build_no=build_no)
    leased = await ledger.claimed()
    delivered = [set_delivery(one, state=DeliveryState.DELIVERED) for one in leased.build.deliveries.values()]
    done = {"state": BuildState.FINALIZED, "finalized_at": LONG_AGO, "ended_at": LONG_AGO}
    assert await ledger.record(leased.build, *delivered)
    await ledger.release(leased, None)
    build_id = leased.build.id

    def write(connection, _now, _items):
        connection.execute(update(builds).where(builds.c.id == build_id).values({**done, **values}))
        connection.execute(update(reports).where(reports.c.build_id == build_id).values(body=None, accepted_at=1))
        return [None]

    await ledger.database.write(write, None)
    return build_id


async def ids(ledger):
    return [row.id for row in await ledger.rows(select(builds.c.id).order_by(builds.c.id))]


async def test_rows_of_finished_builds_go_and_those_of_others_stay(ledger, database):
    old = await finish(ledger, 1)
    recent = await finish(ledger, 2, finalized_at=START)
    await ledger.accept(report(), build_no=3)
    done = await database.write(delete_finished, FinishedBuilds(after=0, before=START))
    assert done == DeletedBuilds(deleted=1, last=recent + 1)
    assert await ids(ledger) == [recent, recent + 1]
    assert await ledger.rows(select(deliveries.c.id).where(deliveries.c.build_id == old)) == []
    assert await database.write(delete_finished, FinishedBuilds(after=done.last, before=START)) == DeletedBuilds(
        deleted=0, last=0
    )


@pytest.mark.parametrize(
    "values",
    [
        {"state": BuildState.ENDED},
        {"due_at": START},
        {"stuck_reason": "The run stays pending."},
        {"blocked_reason": "The token is wrong."},
    ],
    ids=lambda values: next(iter(values)),
)
async def test_a_build_with_work_left_keeps_its_rows(ledger, database, values):
    build_id = await finish(ledger, 1, **values)
    assert (await database.write(delete_finished, FinishedBuilds(after=0, before=START))).deleted == 0
    assert await ids(ledger) == [build_id]


async def test_a_build_whose_bytes_are_kept_keeps_its_rows(ledger, database):
    await finish(ledger, 1)

    def write(connection, _now, _items):
        connection.execute(update(reports).values(body=b"<a/>"))
        return [None]

    await database.write(write, None)
    assert (await database.write(delete_finished, FinishedBuilds(after=0, before=START))).deleted == 0


async def test_a_build_is_looked_at_in_portions(ledger, database, monkeypatch):
    monkeypatch.setattr("bridge.store.retention.BUILDS_LIMIT", 2)
    for number in (1, 2, 3):
        await finish(ledger, number)
    first = await database.write(delete_finished, FinishedBuilds(after=0, before=START))
    assert first.deleted == 2
    assert (await database.write(delete_finished, FinishedBuilds(after=first.last, before=START))).deleted == 1
    assert await ids(ledger) == []


async def test_a_late_upload_to_a_deleted_build_begins_a_build(ledger, database):
    await finish(ledger, 1)
    await database.write(delete_finished, FinishedBuilds(after=0, before=START))
    await ledger.accept(report("late.xml"), build_no=1)
    assert len(await ids(ledger)) == 1
