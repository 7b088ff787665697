"""Refusals in the ledger: which keep their bytes, for how long, and which make room for others."""

from dataclasses import replace

import pytest
from sqlalchemy import select

from bridge.domain.intake import MAX_REJECTIONS, NewRejection
from bridge.store import rejections
from bridge.store.queries import find_why
from bridge.store.rejections import MAX_UNPROVEN_OF_BUILD, RejectionsQuery, find_quarantined, list_rejections, mark_sent
from bridge.store.schema import rejections as rejections_table
from tests.support.ledger import KEEP_US, kept_refusal, refusal, report

MIB = 1 << 20


async def rows(ledger):
    return await ledger.rows(select(rejections_table).order_by(rejections_table.c.id))


async def test_a_refused_file_keeps_its_bytes_and_what_its_upload_said(ledger, clock):
    await ledger.enter(rejections=(kept_refusal("a\udcff.xml"),), caller="shop", caller_routes=("shop",))
    found = await ledger.database.read(find_quarantined, 1)
    assert (found.raw_name, found.body, found.blob) == ("a\udcff.xml", b"<testsuite>", None)
    assert (found.file.job_id, found.file.build_no, found.file.node_id) == ("a" * 32, 1, "default")
    assert (found.file.rejection.caller, found.caller_routes) == ("shop", ("shop",))
    assert found.file.rejection.kept_until == clock.now() + KEEP_US


async def test_a_refusal_without_a_whole_file_is_none_that_can_be_sent(ledger):
    await ledger.enter(rejections=(refusal(),))
    assert await ledger.database.read(find_quarantined, 1) is None


async def test_the_same_file_refused_again_is_one_row_with_its_bytes_refreshed(ledger, clock):
    await ledger.enter(rejections=(kept_refusal(),))
    clock.advance(5)
    again = replace(kept_refusal(), reason="Another reason. Correct it.")
    entry = await ledger.enter(rejections=(again,), request_id="r-2")
    (row,) = await rows(ledger)
    assert (entry.freed, row.body, row.request_id) == ((), b"<testsuite>", "r-2")
    assert (row.reason, row.rejected_at, row.kept_until) == (again.reason, clock.now(), clock.now() + KEEP_US)


async def test_of_the_same_file_twice_the_second_blob_is_one_too_many(ledger):
    await ledger.enter(rejections=(kept_refusal(body=None, blob="1/a"),))
    assert (await ledger.enter(rejections=(kept_refusal(body=None, blob="1/b"),))).freed == ("1/b",)
    assert (await rows(ledger))[0].blob == "1/a"


async def test_bytes_for_which_there_was_no_room_come_with_the_next_refusal_and_stay(ledger):
    await ledger.enter(rejections=(kept_refusal(body=None),))
    assert (await rows(ledger))[0].kept_until is None
    await ledger.enter(rejections=(kept_refusal(body=None, blob="1/a"),))
    await ledger.enter(rejections=(kept_refusal(body=None),))
    (row,) = await rows(ledger)
    assert (row.blob, row.kept_until is None) == ("1/a", False)


@pytest.mark.parametrize(
    "other",
    [{"rejections": (kept_refusal("other.xml"),)}, {"rejections": (kept_refusal(node_id="n2"),)}, {"build_no": 2}],
    ids=["name", "node", "build"],
)
async def test_another_name_node_or_build_is_another_file(ledger, other):
    await ledger.enter(rejections=(kept_refusal(),))
    await ledger.enter(**({"rejections": (kept_refusal(),)} | other))
    assert len(await rows(ledger)) == 2


async def test_beyond_the_bytes_of_a_route_the_oldest_go_first_and_other_routes_keep_theirs(ledger):
    large = {"body": None, "size": 100 * MIB}
    for number in range(3):
        entry = await ledger.enter(build_no=number + 1, rejections=(kept_refusal(**large, blob=f"1/{number}"),))
        await ledger.enter(build_no=number + 1, rejections=(kept_refusal("x.xml", route="", **large),))
    assert entry.freed == ("1/0",)
    assert [row.blob for row in await rows(ledger) if row.route == "shop"] == [None, "1/1", "1/2"]
    (oldest, *_) = await rows(ledger)
    assert (oldest.kept_until, oldest.size) == (None, 100 * MIB)


async def test_beyond_the_files_of_a_route_the_oldest_go_first(ledger, monkeypatch):
    monkeypatch.setattr(rejections, "MAX_QUARANTINED_FILES", 3)
    for number in range(5):
        await ledger.enter(build_no=number + 1, rejections=(kept_refusal(),))
    assert [row.body is None for row in await rows(ledger)] == [True, True, False, False, False]


async def test_of_one_build_the_newest_refusals_are_kept_and_the_blobs_of_older_ones_go(ledger):
    first = kept_refusal("first.xml", body=None, blob="1/first")
    await ledger.enter(rejections=(first,))
    many = tuple(refusal(f"{number}.xml") for number in range(MAX_REJECTIONS + 5))
    assert (await ledger.enter(rejections=many)).freed == ("1/first",)
    assert [row.name for row in await rows(ledger)] == [told.name for told in many[:MAX_REJECTIONS]]


async def test_what_was_sent_lets_go_of_its_bytes_once_and_stays_sent_when_it_is_refused_again(ledger, clock):
    spooled = kept_refusal(body=None, blob="1/a")
    await ledger.enter(rejections=(spooled,))
    assert [await ledger.database.write(mark_sent, 1) for _ in range(2)] == ["1/a", None]
    entry = await ledger.enter(rejections=(replace(spooled, quarantined=replace(spooled.quarantined, blob="1/b")),))
    (row,) = await rows(ledger)
    assert (entry.freed, row.blob, row.kept_until, row.sent_at) == (("1/b",), None, None, clock.now())


async def test_pages_of_refusals_follow_each_other_and_are_narrowed(ledger):
    await ledger.enter(rejections=(kept_refusal(), refusal("x.xml")))
    await ledger.enter(report(), build_no=2, rejections=(kept_refusal(route=""),))

    async def page(**query):
        return await ledger.database.read(list_rejections, RejectionsQuery(**query))

    first = await page(limit=2)
    assert [refused.rejection.id for refused in first.rejections] == [3, 2]
    second = await page(limit=2, before_id=first.next_before_id)
    assert ([refused.rejection.id for refused in second.rejections], second.next_before_id) == ([1], None)
    for query, ids in (
        ({"job_id": "a" * 32}, [3, 2, 1]),
        ({"job_id": "a" * 31}, []),
        ({"job_id": "a" * 32, "build_no": 1}, [2, 1]),
        ({"route": "shop"}, [1]),
    ):
        assert [refused.rejection.id for refused in (await page(**query)).rejections] == ids


# -- several callers ---------------------------------------------------------------------------------------------


async def test_a_caller_replaces_no_rejection_of_another_one_of_the_same_build(ledger):
    await ledger.enter(rejections=(kept_refusal("ours.xml", body=None, blob="1/a"),), caller="ours")
    many = tuple(refusal(f"{number}.xml") for number in range(MAX_REJECTIONS))
    for _ in range(2):
        assert (await ledger.enter(rejections=many, caller="theirs")).freed == ()
    assert [row.blob for row in await rows(ledger) if row.caller == "ours"] == ["1/a"]
    assert len(await rows(ledger)) == 1 + MAX_REJECTIONS
    assert "ours" in {each.caller for each in (await ledger.database.read(find_why, "a" * 32, 1)).rejections}


async def test_a_caller_unlinks_no_bytes_of_another_one_of_the_same_route(ledger):
    large = {"body": None, "size": 100 * MIB}
    await ledger.enter(rejections=(kept_refusal(**large, blob="1/ours"),), caller="ours")
    freed = []
    for number in range(4):
        entry = await ledger.enter(
            build_no=number + 2, caller="theirs", rejections=(kept_refusal(**large, blob=f"1/{number}"),)
        )
        freed += entry.freed
    assert freed == ["1/0", "1/1"]


async def test_the_same_file_of_two_callers_is_two_rejections(ledger):
    for caller, routes in (("ours", ("shop",)), ("theirs", ("other",))):
        await ledger.enter(rejections=(kept_refusal(),), caller=caller, caller_routes=routes)
    found = [await ledger.database.read(find_quarantined, number) for number in (1, 2)]
    assert [(each.file.rejection.caller, each.caller_routes) for each in found] == [
        ("ours", ("shop",)),
        ("theirs", ("other",)),
    ]


async def test_few_rejections_of_a_caller_for_jobs_that_are_not_its_own_are_kept(ledger, monkeypatch):
    monkeypatch.setattr(rejections, "MAX_FOREIGN_OF_BUILD", 2)
    monkeypatch.setattr(rejections, "MAX_FOREIGN_OF_CALLER", 3)
    await ledger.enter(rejections=(refusal(),), caller="another", is_foreign=True)
    for build_no in (1, 1, 1, 2, 3):
        await ledger.enter(build_no=build_no, rejections=(refusal(),), caller="theirs", is_foreign=True)
    assert [row.key[-1] for row in await rows(ledger) if row.caller == "theirs"] == ["1", "2", "3"]
    assert [row.key[-1] for row in await rows(ledger) if row.caller == "another"] == ["1"]


async def test_once_the_route_is_known_rejections_of_callers_of_other_routes_explain_nothing(ledger):
    await ledger.accept(report(), caller_routes=("shop",))
    await ledger.enter(rejections=(refusal("theirs.xml"),), caller="theirs", caller_routes=("other",))
    before = await ledger.database.read(find_why, "a" * 32, 1)
    await ledger.run_parameters(await ledger.claimed(), "shop")
    after = await ledger.database.read(find_why, "a" * 32, 1)
    assert [len(found.rejections) for found in (before, after)] == [1, 0]
    assert after.view["rejections"] == []


async def test_what_a_caller_was_not_allowed_is_no_part_of_a_build_without_reports(ledger):
    await ledger.accept(complete=True)
    await ledger.enter(rejections=(refusal("theirs.xml"),), caller="theirs", is_foreign=True)
    assert (await ledger.claimed()).build.rejected == ()


# -- callers that are not proven ---------------------------------------------------------------------------------


async def stranger(ledger, address="198.51.100.1", build_no=1):
    wrong_token = NewRejection(name="", reason="No caller has this token. Check it.", code="APIGW.0301")
    await ledger.enter(build_no=build_no, caller="", address=address, rejections=(wrong_token,))


async def addresses(ledger):
    return [row.address for row in await rows(ledger) if row.caller == ""]


async def test_strangers_neither_replace_the_rejections_of_callers_nor_make_a_build(ledger):
    await ledger.enter(rejections=(refusal(),))
    for _ in range(MAX_UNPROVEN_OF_BUILD + 2):
        await stranger(ledger)
    found = await rows(ledger)
    assert [row.name for row in found if row.caller] == ["bad.xml"]
    assert len(found) == 1 + MAX_UNPROVEN_OF_BUILD
    assert (await ledger.database.read(find_why, "a" * 32, 1)).build is None


async def test_one_stranger_cannot_replace_the_rejections_of_another(ledger, monkeypatch):
    monkeypatch.setattr(rejections, "MAX_UNPROVEN_OF_ADDRESS", 2)
    await stranger(ledger, "192.0.2.7", build_no=1)
    for build_no in range(2, 6):
        await stranger(ledger, "198.51.100.1", build_no=build_no)
    assert sorted(await addresses(ledger)) == ["192.0.2.7", "198.51.100.1", "198.51.100.1"]


async def test_all_strangers_together_have_a_limit(ledger, monkeypatch):
    monkeypatch.setattr(rejections, "MAX_UNPROVEN", 3)
    for build_no in range(1, 6):
        await stranger(ledger, f"192.0.2.{build_no}", build_no=build_no)
    assert sorted(await addresses(ledger)) == ["192.0.2.3", "192.0.2.4", "192.0.2.5"]
