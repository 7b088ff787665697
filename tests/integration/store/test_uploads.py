import asyncio
import json
from dataclasses import asdict, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select

from bridge.domain.build import BoundMetadata, DeliveryState, DeliveryTarget, UploadMetadata
from bridge.domain.intake import ReportReceipt
from bridge.domain.junit.result import Failure, Highlights
from bridge.store.duplicates import dedupe_key
from bridge.store.retention import body_location
from bridge.store.schema import builds, deliveries, rejections, reports
from tests.support.fake_clock import START
from tests.support.ledger import COUNTS, dead, kept_refusal, refusal, report, upload


async def kill(ledger, *names):
    """Let the deliveries of the named reports of the next due build die, and end that visit."""
    visit = await ledger.claimed()
    ids = {found.id for found in visit.build.reports.values() if found.name in names}
    changes = [dead(delivery) for delivery in visit.build.deliveries.values() if delivery.report_id in ids]
    assert await ledger.record(visit.build, *changes)
    assert await ledger.release(visit, None)


# -- receipts ----------------------------------------------------------------------------------------------------


async def test_a_first_report_is_new_and_owed_to_testnod_at_once(ledger):
    assert await ledger.accept(report()) == (ReportReceipt.NEW,)
    (delivery,) = (await ledger.build()).deliveries.values()
    assert (delivery.target, delivery.state, delivery.pending_since, delivery.due_at, delivery.attempts) == (
        DeliveryTarget.TESTNOD,
        DeliveryState.PENDING,
        START,
        START,
        0,
    )


async def test_what_was_accepted_is_read_back_as_it_came(ledger):
    said = UploadMetadata(branch="main", commit="abc1234")
    await ledger.accept(report("a.xml", b"<a/>", notes=("odd",)), upload_metadata=said, caller_routes=("shop",))
    build = await ledger.build()
    (found,) = build.reports.values()
    assert (build.job_id, build.build_no) == ("a" * 32, 1)
    assert build.bound_metadata == (BoundMetadata(routes=("shop",), stated=said),)
    assert (build.report_seq, build.finalized_seq, build.accepted_at) == (1, 0, START)
    assert (found.name, found.size, found.caller_routes, found.has_bytes) == ("a.xml", 4, ("shop",), True)
    (row,) = await ledger.rows(select(reports))
    assert (row.tests, row.failures, row.time_us, row.notes) == (COUNTS.tests, 1, 1_500, ["odd"])
    assert (row.address, row.request_id, row.caller) == ("192.0.2.1", "r-1", "ci")


async def test_a_report_sent_again_is_known_and_kept_once(ledger):
    await ledger.accept(report())
    assert await ledger.accept(report(), request_id="r-2") == (ReportReceipt.DUPLICATE,)
    assert len(await ledger.rows(select(reports))) == len(await ledger.rows(select(deliveries))) == 1


async def test_receipts_stand_in_the_order_of_the_reports(ledger):
    await ledger.accept(report("b"))
    assert await ledger.accept(report("a"), report("b"), report("c")) == (
        ReportReceipt.NEW,
        ReportReceipt.DUPLICATE,
        ReportReceipt.NEW,
    )


@pytest.mark.parametrize(
    "other",
    [
        report("other.xml"),
        report(node_id="node-2"),
        report(body=b"<testsuites/>"),
        report(" junit.xml"),
        report("JUNIT.XML"),
    ],
    ids=["name", "node", "bytes", "space", "case"],
)
async def test_another_name_node_or_digest_is_another_report(ledger, other):
    await ledger.accept(report())
    assert await ledger.accept(other) == (ReportReceipt.NEW,)


async def test_the_same_report_of_another_build_is_another_report(ledger):
    await ledger.accept(report(), build_no=1)
    assert await ledger.accept(report(), build_no=2) == (ReportReceipt.NEW,)


async def test_of_one_report_twice_in_one_request_only_the_first_is_new(ledger):
    assert await ledger.accept(report(), report()) == (ReportReceipt.NEW, ReportReceipt.DUPLICATE)
    assert (await ledger.build()).report_seq == 1


async def test_of_one_report_twice_in_one_commit_the_new_one_is_that_whose_blob_is_kept(ledger):
    first, second = (report(body=b"x" * 9, blob=name) for name in ("2026010100/one", "2026010100/two"))
    first, second = replace(first, body=None), replace(second, body=None)
    receipts = await asyncio.gather(ledger.accept(first), ledger.accept(second, request_id="r-2"))
    assert sorted(receipts) == [(ReportReceipt.DUPLICATE,), (ReportReceipt.NEW,)]
    kept = await ledger.database.read(body_location, 1)
    assert kept.blob == (first.blob if receipts[0] == (ReportReceipt.NEW,) else second.blob)


async def test_requests_with_one_request_id_do_not_share_a_receipt(ledger):
    one = upload(report())
    receipts = await asyncio.gather(*(ledger.accept(*one.reports, request_id="same") for _ in range(8)))
    assert receipts.count((ReportReceipt.NEW,)) == 1
    assert receipts.count((ReportReceipt.DUPLICATE,)) == 7


async def test_many_requests_at_once_for_one_build_all_find_it(ledger):
    receipts = await asyncio.gather(*(ledger.accept(report(f"{n}.xml")) for n in range(100)))
    (row,) = await ledger.rows(select(builds.c.id))  # not always 1: PostgreSQL's sequence counts lost inserts too
    build = await ledger.build(row.id)
    assert set(receipts) == {(ReportReceipt.NEW,)}
    assert len(build.reports) == len(build.pending(DeliveryTarget.TESTNOD)) == 100


# -- owed again --------------------------------------------------------------------------------------------------


async def test_a_report_whose_delivery_is_dead_is_owed_again_with_its_clocks_anew(ledger, clock):
    await ledger.accept(report())
    await kill(ledger, "junit.xml")
    clock.advance(1_000)
    assert await ledger.accept(report()) == (ReportReceipt.REQUEUED,)
    (delivery,) = (await ledger.build()).deliveries.values()
    assert (delivery.state, delivery.pending_since, delivery.due_at) == (
        DeliveryState.PENDING,
        clock.now(),
        clock.now(),
    )
    assert (delivery.attempts, delivery.first_failure_at, delivery.last_error) == (0, None, None)


async def test_owed_again_raises_the_batch_and_wakes_the_build(ledger, clock):
    await ledger.accept(report())
    await kill(ledger, "junit.xml")
    assert (await ledger.row()).due_at is None
    clock.advance(1_000)
    await ledger.accept(report())
    assert ((await ledger.row()).due_at, (await ledger.row()).report_seq) == (clock.now(), 2)


async def test_new_bytes_replace_the_old_ones_of_a_dead_report(ledger):
    await ledger.accept(report())
    await kill(ledger, "junit.xml")
    await ledger.accept(replace(report(), body=None, blob="2026010100/new"))
    kept = await ledger.database.read(body_location, 1)
    assert (kept.body, kept.blob) == (None, "2026010100/new")


async def test_with_new_bytes_come_their_size_and_digest_and_what_was_done_to_them(ledger):
    await ledger.accept(report())
    await kill(ledger, "junit.xml")
    repaired = {"sent_size": 99, "sent_sha256": "f" * 64, "changes": ("It was repaired.",), "notes": ("It is odd.",)}
    assert await ledger.accept(replace(report(), **repaired)) == (ReportReceipt.REQUEUED,)
    kept = (await ledger.build()).reports[1]
    assert (kept.size, kept.sent_size, kept.sent_sha256) == (12, 99, "f" * 64)
    (row,) = await ledger.rows(select(reports.c.notes))
    assert row.notes == ["It was repaired.", "It is odd."]


async def test_with_new_bytes_come_their_counts_and_first_failures(ledger):
    await ledger.accept(report())
    await kill(ledger, "junit.xml")
    counts = replace(COUNTS, tests=9, failures=2, suite_errors=1, disabled=1)
    failure = Failure(name="a", classname="测试", message="m", file="a.py", line=3)
    highlights = Highlights(failures=(failure,), flaky=("b",), red_totals=1)
    assert await ledger.accept(replace(report(), counts=counts, highlights=highlights)) == (ReportReceipt.REQUEUED,)
    (row,) = await ledger.rows(select(reports))
    assert {name: getattr(row, name) for name in asdict(counts)} == asdict(counts)
    assert row.highlights == json.loads(json.dumps(asdict(highlights)))


async def test_bytes_of_a_report_that_is_still_owed_stay_as_they_were(ledger):
    await ledger.accept(report())
    await ledger.accept(replace(report(), body=None, blob="2026010100/new"))
    kept = await ledger.database.read(body_location, 1)
    assert (kept.body, kept.blob) == (b"<testsuite/>", None)


async def test_a_dead_report_twice_in_one_request_is_owed_again_once(ledger):
    await ledger.accept(report())
    await kill(ledger, "junit.xml")
    assert await ledger.accept(report(), report()) == (ReportReceipt.REQUEUED, ReportReceipt.DUPLICATE)


async def test_only_what_was_sent_is_owed_again(ledger):
    await ledger.accept(report("a"), report("b"))
    await kill(ledger, "a", "b")
    assert await ledger.accept(report("a")) == (ReportReceipt.REQUEUED,)
    states = {found.report_id: found.state for found in (await ledger.build()).deliveries.values()}
    assert sorted(states.values()) == [DeliveryState.DEAD, DeliveryState.PENDING]


async def test_a_dead_report_is_not_owed_again_because_another_build_sent_the_same(ledger):
    await ledger.accept(report("a"), report("b"), build_no=1)
    await kill(ledger, "a")
    await ledger.accept(report("a"), build_no=2)
    together = await ledger.accept_together(upload(report("b"), build_no=1), upload(report("a"), build_no=2))
    assert together == [(ReportReceipt.DUPLICATE,), (ReportReceipt.DUPLICATE,)]
    assert [found.state for found in (await ledger.build(1)).deliveries.values()].count(DeliveryState.DEAD) == 1


# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("报告.xml", "报告.xml"),
        ("a\x00b.xml", "a\\x00b.xml"),
        ("a\udcffb.xml", "a\\udcffb.xml"),
        ("a\nb.xml", "a\\nb.xml"),
        ("n" * 4096, "n" * 512),
        ("\x00" * 4096, "\\x00" * 128),
    ],
    ids=["chinese", "nul", "surrogate", "newline", "4 KB", "4 KB of nul"],
)
async def test_names_are_shown_escaped_and_cut(ledger, raw, shown):
    assert await ledger.accept(report(raw), rejections=(replace(refusal(), name=raw),)) == (ReportReceipt.NEW,)
    (found,) = (await ledger.build()).reports.values()
    (refused,) = await ledger.rows(select(rejections))
    assert found.name == refused.name == shown


@pytest.mark.parametrize(
    ("one", "other"),
    [("n" * 4095 + "1", "n" * 4095 + "2"), ("a\x00", "a\\x00"), ("\udcff", "\\udcff"), ("\udc80", "\udc81")],
    ids=["after the cut", "nul", "surrogate", "surrogates"],
)
async def test_names_that_are_shown_alike_are_still_different_reports(ledger, one, other):
    assert await ledger.accept(report(one), report(other)) == (ReportReceipt.NEW, ReportReceipt.NEW)
    assert await ledger.accept(report(one), report(other)) == (ReportReceipt.DUPLICATE, ReportReceipt.DUPLICATE)


@given(one=st.tuples(st.text(), st.text()), other=st.tuples(st.text(), st.text()))
@example(one=("ab", "c"), other=("a", "bc"))
def test_the_dedupe_key_tells_node_and_name_apart_wherever_they_meet(one, other):
    keys = [dedupe_key(node_id=node, name=name, received_sha256="") for node, name in (one, other)]
    assert (keys[0] == keys[1]) is (one == other)


# -- refusals ----------------------------------------------------------------------------------------------------


async def test_refusals_beside_reports_are_kept_for_their_build(ledger):
    await ledger.accept(report(), rejections=(refusal("x.xml"), refusal("y.xml")))
    first, second = await ledger.rows(select(rejections).order_by(rejections.c.id))
    assert (first.source, first.key, first.name, second.name) == ("codearts", f"{'a' * 32}/1", "x.xml", "y.xml")
    assert (first.rejected_at, first.code, first.caller, first.request_id) == (START, "BRIDGE.REPORT", "ci", "r-1")


async def test_refusals_alone_are_kept_and_open_no_build(ledger):
    assert await ledger.accept(rejections=(refusal(),)) == ()
    assert len(await ledger.rows(select(rejections))) == 1
    assert await ledger.claim() is None


async def test_refusals_alone_wake_no_build(ledger, clock):
    await ledger.accept(report())
    before = await ledger.row()
    clock.advance(1_000)
    await ledger.accept(rejections=(refusal(),))
    assert await ledger.row() == before


# -- complete ----------------------------------------------------------------------------------------------------


async def test_complete_is_noted_once(ledger, clock):
    await ledger.accept(report(), complete=True)
    before = await ledger.row()
    clock.advance(1_000)
    assert await ledger.accept(report(), complete=True) == (ReportReceipt.DUPLICATE,)
    assert before.complete_at == START
    assert await ledger.row() == before


async def test_complete_may_come_with_a_repeat_and_wakes_the_build(ledger, clock):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.release(visit, clock.now() + 60_000_000)
    clock.advance(1_000)
    assert await ledger.accept(report(), complete=True) == (ReportReceipt.DUPLICATE,)
    row = await ledger.row()
    assert row.complete_at == clock.now()
    assert row.due_at <= clock.now()
    assert row.report_seq == 1


async def test_complete_may_come_alone_and_first(ledger):
    assert await ledger.accept(complete=True) == ()
    row = await ledger.row()
    assert (row.complete_at, row.report_seq, row.due_at <= START) == (START, 0, True)


async def test_complete_does_not_push_back_a_turn(ledger, clock):
    await ledger.accept(report())
    clock.advance(1_000)
    await ledger.accept(complete=True)
    assert (await ledger.row()).due_at <= START


@pytest.mark.parametrize("later_us", [0, 1, 1_000], ids=["at the same time", "just after", "later"])
async def test_complete_during_a_visit_is_looked_at_after_it(ledger, clock, later_us):
    await ledger.accept(report())
    visit = await ledger.claimed()
    clock.advance(later_us)
    await ledger.accept(complete=True)
    assert await ledger.release(visit, None)
    assert (await ledger.claimed()).build.complete_at == clock.now()


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [(("b",), ("a",), ["a", "b"]), (("b",), None, None), (None, ("a",), None), (("a", "b"), ("a",), ["a", "b"])],
)
async def test_complete_counts_for_the_routes_of_all_its_callers(ledger, clock, first, second, together):
    await ledger.accept(complete=True, caller_routes=first)
    clock.advance(1_000)
    await ledger.accept(complete=True, caller_routes=second)
    row = await ledger.row()
    assert row.complete_routes == together
    assert (row.complete_at == clock.now()) == (together != (None if first is None else sorted(first)))


async def test_complete_of_two_callers_in_one_commit_counts_for_both(ledger):
    await ledger.accept_together(
        upload(complete=True, caller_routes=("b",)), upload(complete=True, caller_routes=("a",))
    )
    assert (await ledger.build()).complete_routes == ("a", "b")


async def test_a_build_takes_nothing_from_a_caller_that_may_not_use_its_route(ledger):
    await ledger.accept(report("ours.xml"))
    visit = await ledger.claimed()
    await ledger.run_parameters(visit, "shop")
    assert await ledger.release(visit, None)
    before = await ledger.row()
    theirs = {"caller": "theirs", "caller_routes": ("other",), "forbidden_routes": frozenset({"shop"})}
    bad = (kept_refusal(),)
    both = await ledger.accept_together(
        upload(report("theirs.xml"), complete=True, rejections=bad, **theirs),
        upload(report("ours.xml"), caller_routes=("shop",), forbidden_routes=frozenset({"other"})),
    )
    assert both == [(), (ReportReceipt.DUPLICATE,)]
    assert (await ledger.row(), len((await ledger.build()).reports)) == (before, 1)
    assert not await ledger.rows(select(rejections))


# -- metadata of uploads -----------------------------------------------------------------------------------------


async def test_what_uploads_say_is_added_up_and_the_first_word_stands(ledger):
    await ledger.accept(report("a"), upload_metadata=UploadMetadata(branch="main"))
    await ledger.accept(report("b"), upload_metadata=UploadMetadata(branch="other", commit="abc1234"))
    await ledger.accept(report("c"))
    assert (await ledger.build()).upload_metadata == UploadMetadata(branch="main", commit="abc1234")


async def test_what_two_uploads_of_one_commit_say_is_added_up(ledger):
    one, other = UploadMetadata(branch="main"), UploadMetadata(project_id="p")
    both = await ledger.accept_together(
        upload(report("a"), upload_metadata=one), upload(report("b"), upload_metadata=other)
    )
    assert both == [(ReportReceipt.NEW,), (ReportReceipt.NEW,)]
    assert (await ledger.build()).upload_metadata == UploadMetadata(branch="main", project_id="p")


async def test_what_uploads_say_is_kept_apart_by_the_routes_of_their_callers(ledger):
    for routes, said in (
        (("b", "a"), UploadMetadata(branch="dev")),
        (("a",), UploadMetadata(branch="main")),
        (None, UploadMetadata(commit="c0ffee1")),
        (("a", "b"), UploadMetadata(branch="other", commit="abc1234")),
        (("a",), UploadMetadata()),
    ):
        await ledger.accept(report("a.xml"), upload_metadata=said, caller_routes=routes)
    build = await ledger.build()
    assert build.upload_metadata == UploadMetadata(commit="c0ffee1")
    assert build.bound_metadata == (
        BoundMetadata(routes=("a", "b"), stated=UploadMetadata(branch="dev", commit="abc1234")),
        BoundMetadata(routes=("a",), stated=UploadMetadata(branch="main")),
    )


async def test_what_bound_callers_say_in_one_commit_is_added_up(ledger):
    await ledger.accept_together(
        upload(report("a"), upload_metadata=UploadMetadata(branch="main"), caller_routes=("a",)),
        upload(report("b"), upload_metadata=UploadMetadata(branch="dev"), caller_routes=("b",)),
        upload(report("c"), upload_metadata=UploadMetadata(project_id="p"), caller_routes=("a",)),
    )
    assert (await ledger.build()).bound_metadata == (
        BoundMetadata(routes=("a",), stated=UploadMetadata(branch="main", project_id="p")),
        BoundMetadata(routes=("b",), stated=UploadMetadata(branch="dev")),
    )


# -- whose turn it is --------------------------------------------------------------------------------------------


async def test_a_new_report_raises_the_batch_by_one_a_commit(ledger):
    await ledger.accept(report("a"), report("b"))
    await ledger.accept(report("c"))
    assert (await ledger.build()).report_seq == 2


async def test_a_repeat_that_changes_nothing_raises_nothing(ledger, clock):
    await ledger.accept(report())
    before = await ledger.row()
    clock.advance(1_000)
    await ledger.accept(report())
    assert await ledger.row() == before


async def test_a_new_report_does_not_push_back_a_turn(ledger, clock):
    await ledger.accept(report("a"))
    clock.advance(1_000)
    await ledger.accept(report("b"))
    assert (await ledger.row()).due_at == START


@pytest.mark.parametrize("until_us", [60_000_000, None], ids=["later", "never"])
async def test_a_new_report_pulls_a_turn_forward(ledger, clock, until_us):
    await ledger.accept(report("a"))
    visit = await ledger.claimed()
    await ledger.release(visit, until_us and clock.now() + until_us)
    clock.advance(1_000)
    await ledger.accept(report("b"))
    assert (await ledger.row()).due_at == clock.now()


@pytest.mark.parametrize("passed_us", [1_000, 0, -1_000], ids=["later", "at once", "clock set back"])
async def test_the_time_of_the_last_report_always_moves(ledger, clock, passed_us):
    await ledger.accept(report("a"))
    before = (await ledger.build()).last_report_at
    clock.advance(passed_us)
    await ledger.accept(report("b"))
    assert (await ledger.build()).last_report_at > before


async def test_a_dead_report_that_another_caller_sends_again_goes_where_that_caller_may_send(ledger):
    await ledger.accept(report(), caller="shop-ci", caller_routes=("shop",))
    visit = await ledger.claimed()
    await ledger.record(visit.build, dead(visit.build.deliveries[1]))

    assert await ledger.accept(report(), caller="any-ci") == (ReportReceipt.REQUEUED,)

    sent = (await ledger.build()).reports[1]
    assert (sent.caller, sent.caller_routes) == ("any-ci", None)


@pytest.mark.parametrize(("second", "together"), [(None, None), (("pay",), ("pay", "shop")), (("shop",), ("shop",))])
async def test_a_known_report_goes_wherever_one_of_its_senders_may_send(ledger, second, together):
    await ledger.accept(report(), caller_routes=("shop",))
    assert await ledger.accept(report(), caller_routes=second) == (ReportReceipt.DUPLICATE,)
    assert (await ledger.build()).reports[1].caller_routes == together


@pytest.mark.parametrize(("second", "together"), [(None, None), (("pay",), ("pay", "shop")), (("shop",), ("shop",))])
async def test_a_report_that_two_send_at_once_goes_wherever_one_of_them_may_send(ledger, second, together):
    both = await ledger.accept_together(*(upload(report(), caller_routes=routes) for routes in (("shop",), second)))
    assert both == [(ReportReceipt.NEW,), (ReportReceipt.DUPLICATE,)]
    (sent,) = (await ledger.build()).reports.values()
    assert sent.caller_routes == together
