"""What stands beside uploads and TestNod, in every ledger: reports of our own, the mirror, sums."""

from dataclasses import replace

import pytest

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.changes import AddReport, set_build, set_delivery
from bridge.domain.lifecycle.mirror import TestTotals
from bridge.store.mirror import MirrorChanges, mirrored_totals, record_mirrored
from bridge.store.queries import report_summary
from bridge.store.retention import body_location
from tests.support.fake_clock import START
from tests.support.ledger import COUNTS, report, upload

MADE = b"<testsuite name='check'/>"
BOTH = (DeliveryTarget.TESTNOD, DeliveryTarget.CODEARTS)
JOB = "a" * 32
ONE = TestTotals(total=3, failures=1)
TWO = TestTotals(total=6, failures=2)


@pytest.fixture
async def visit(ledger):
    """A visit of a build with a report from each of two nodes, owed to TestNod and to CodeArts."""
    await ledger.accept_together(upload(report("a.xml", node_id="n1"), report("b.xml", node_id="n2"), targets=BOTH))
    return await ledger.claimed()


def made(build):
    """Return the change that adds a report of the bridge's own, owed to TestNod."""
    first = build.reports[min(build.reports)]
    delivery = next(each for each in build.deliveries.values() if each.target is DeliveryTarget.TESTNOD)
    counted = {"tests": COUNTS.tests, "failures": COUNTS.failures, "errors": COUNTS.errors, "skipped": COUNTS.skipped}
    sizes = {"size": len(MADE), "sent_size": len(MADE)}
    own = replace(first, id=0, name="check.xml", generated=True, **sizes, **counted)
    return AddReport(own, (replace(delivery, id=0, report_id=0),), MADE, COUNTS)


async def delivered_to_codearts(ledger, visit, *reports):
    changes = tuple(
        set_delivery(each, state=DeliveryState.DELIVERED, delivered_at=START)
        for each in visit.build.deliveries.values()
        if each.target is DeliveryTarget.CODEARTS and each.report_id in reports
    )
    await ledger.database.write(record_mirrored, MirrorChanges(build_id=visit.build.id, changes=changes))


# -- reports that the bridge makes -------------------------------------------------------------------------------


async def test_a_report_that_the_bridge_made_is_kept_and_owed(ledger, database, visit):
    (written,) = await ledger.record(visit.build, made(visit.build))
    build = await ledger.build()
    assert build.reports[written.report.id] == written.report
    assert [build.deliveries[each.id] for each in written.deliveries] == list(written.deliveries)
    assert (await database.read(body_location, written.report.id)).body == MADE


async def test_a_report_that_the_bridge_made_is_there_once(ledger, visit):
    await ledger.record(visit.build, made(visit.build))
    before = await ledger.build()
    (again,) = await ledger.record(visit.build, made(visit.build))
    assert again.report.id == 0
    assert await ledger.build() == before


# -- the mirror --------------------------------------------------------------------------------------------------


async def test_what_the_mirror_took_is_counted(ledger, database, visit):
    first, second = visit.build.reports
    assert await database.read(mirrored_totals, visit.build.id) == TestTotals()
    await delivered_to_codearts(ledger, visit, first)
    assert await database.read(mirrored_totals, visit.build.id) == ONE
    await delivered_to_codearts(ledger, visit, second)
    assert await database.read(mirrored_totals, visit.build.id) == TWO


async def test_what_came_of_the_mirror_lets_the_build_be_looked_at_and_needs_no_fence(ledger, database, clock, visit):
    await ledger.release(visit, START + 60_000_000)
    mirrored = MirrorChanges(build_id=visit.build.id, changes=(set_build(mirror="agrees"),))
    await database.write(record_mirrored, mirrored)
    found = await ledger.claimed()
    assert (found.build.mirror, found.due_at) == ("agrees", clock.now())


# -- sums --------------------------------------------------------------------------------------------------------


async def test_a_builds_reports_are_summed_up_together_and_node_by_node(database, visit):
    summary = await database.read(report_summary, JOB, visit.build.build_no)
    assert (summary.route, summary.mirrored, summary.all.totals) == ("", True, TWO)
    assert {node: (each.totals, each.time_us, each.last_at) for node, each in summary.by_node.items()} == dict.fromkeys(
        ("n1", "n2"), (ONE, COUNTS.time_us, START)
    )


async def test_a_build_without_uploads_has_no_sum(ledger, database):
    assert await database.read(report_summary, JOB, 1) is None
    await ledger.accept(complete=True)
    assert await database.read(report_summary, JOB, 1) is None
