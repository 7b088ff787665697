import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import event

from bridge.domain.build import BuildRecord, BuildState, DeliveryState, RegistrationState, UploadMetadata
from bridge.domain.changes import AddRun, set_build, set_registration, set_run
from bridge.domain.circuit_breaker import TESTNOD, HealthSignal, route_breaker
from bridge.domain.intake import MAX_REJECTIONS
from bridge.domain.result_mismatch import MismatchKind
from bridge.domain.rows import Rows
from bridge.store import queries
from bridge.store.circuit_breakers import BreakerSignal, apply_breaker_signals
from bridge.store.queries import BuildsQuery, count_mismatches, counts, find_build, find_why, list_builds, one_build
from tests.support.fake_clock import START
from tests.support.ledger import dead, engine_of, named, refusal, report, run_parameters

JOB = "a" * 32
OTHER_JOB = "b" * 32
SECOND = 1_000_000
RUN = AddRun("run-1", "https://nod.test/runs/1", START)
SMALL_INDEX = "(ix_builds_stuck_reason|ix_builds_blocked_reason|ix_deliveries_unfinished)"
BIG_TABLE = re.compile(rf"SCAN (builds|reports|deliveries|registrations|runs|rejections)\b(?!.* INDEX {SMALL_INDEX})")


@contextmanager
def statements(database):
    """Collect what is asked of the ledger, with its parameters."""
    asked_for = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        asked_for.append((statement, parameters))

    event.listen(engine_of(database, "reading"), "before_cursor_execute", note)
    try:
        yield asked_for
    finally:
        event.remove(engine_of(database, "reading"), "before_cursor_execute", note)


def listed(**query):
    return list_builds, BuildsQuery(**query)


EVERY_QUERY = [
    listed(),
    listed(before_id=3),
    listed(job_id=JOB),
    listed(job_id=JOB, build_no=2),
    listed(caller="ci"),
    listed(caller="ci", job_id=JOB),
    listed(state=BuildState.OPEN),
    listed(route="shop"),
    listed(mirror_differs=True),
    listed(job_id=JOB, state=BuildState.OPEN, route="shop"),
    (one_build, 1),
    (find_build, JOB, 2),
    (find_build, JOB, 99),
    (find_why, JOB, 2),
    (find_why, JOB, 99),
    (counts,),
    (count_mismatches, 1),
]


@pytest.fixture
async def delivered(ledger, clock):
    """A build whose one report went the whole way, in a run that has been finalized."""
    await ledger.accept(report("a.xml"), upload_metadata=UploadMetadata(branch="main", commit="c0ffee"))
    visit = await ledger.claimed()
    life = await ledger.register(visit)
    await ledger.run_parameters(visit, "shop")
    await ledger.record(visit.build, named(life), RUN)
    build = await ledger.build()
    ended = set_build(state=BuildState.FINALIZED, finalized_at=START + 9, ended_at=START + 5, finalized_seq=1)
    processed = set_run(build.runs[0], status="processed", finalized_at=START + 9)
    await ledger.record(visit.build, ended, processed)
    await ledger.release(visit, None)
    clock.advance(SECOND)


async def list_all(database, **query):
    return await database.read(*listed(**query))


# -- the build object --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("delivered")
async def test_a_build_is_told_in_the_contracts_words(database):
    (build,) = (await list_all(database)).builds
    digest = build["reports"][0]["received_sha256"]
    time = "2023-11-14T22:13:20.00000{}Z".format
    assert build == {
        "id": 1,
        "job_id": JOB,
        "build_no": 1,
        "state": "finalized",
        "stuck_reason": None,
        "blocked_reason": None,
        "route": "shop",
        "build_result": None,
        "result_mismatch": None,
        "end_reason": None,
        "branch": None,
        "commit": None,
        "metadata_mismatch": None,
        "accepted_at": time(0),
        "ended_at": time(5),
        "finalized_at": time(9),
        "next_attempt_at": None,
        "last_error": None,
        "mirror": None,
        "testnod": {
            "build_id": "codearts-1",
            "runs": [
                {
                    "test_run_id": "run-1",
                    "test_run_url": "https://nod.test/runs/1",
                    "status": "processed",
                    "opened_at": time(0),
                    "finalized_at": time(9),
                    "lost_registrations": 0,
                    "build_id": "codearts-1",
                    "counts": True,
                }
            ],
            "recent_finalizes": [],
        },
        "reports": [
            {
                "id": 1,
                "name": "a.xml",
                "node_id": "default",
                "size": 12,
                "sent_size": 12,
                "received_sha256": digest,
                "sent_sha256": digest,
                "tests": 3,
                "failures": 1,
                "errors": 0,
                "skipped": 0,
                "flaky": 0,
                "suite_errors": 0,
                "disabled": 0,
                "time": 0.0015,
                "notes": [],
                "first_failures": [],
                "flaky_tests": [],
                "accepted_at": time(0),
                "caller": "ci",
                "deliveries": [
                    {
                        "id": 1,
                        "target": "testnod",
                        "state": "pending",
                        "attempts": 0,
                        "last_error": None,
                        "next_attempt_at": "1970-01-01T00:00:00.000000Z",
                        "recent_attempts": [
                            {
                                "call": "register",
                                "at": "1970-01-01T00:00:00.000001Z",
                                "duration_seconds": 0.000001,
                                "outcome": "succeeded",
                                "status": 201,
                                "reason": None,
                            }
                        ],
                    }
                ],
            }
        ],
        "code_check": None,
        "rejections": [],
    }


async def test_before_the_pin_a_build_shows_what_is_known_of_it_so_far(ledger, database):
    await ledger.accept(report(), upload_metadata=UploadMetadata(branch="main", commit="c0ffee"))
    visit = await ledger.claimed()
    await ledger.record(visit.build, set_build(record=BuildRecord(branch="release")))
    build = await database.read(one_build, 1)
    assert (build["branch"], build["commit"], build["route"]) == ("release", "c0ffee", None)
    assert build["testnod"] == {"build_id": None, "runs": [], "recent_finalizes": []}


async def test_without_a_record_a_build_shows_what_uploads_said(ledger, database):
    await ledger.accept(report(), upload_metadata=UploadMetadata(branch="main", commit="c0ffee"))
    build = await database.read(one_build, 1)
    assert (build["branch"], build["commit"]) == ("main", "c0ffee")


async def test_after_the_pin_a_build_shows_what_its_runs_were_opened_with(ledger, database):
    await ledger.accept(report(), upload_metadata=UploadMetadata(branch="main"))
    visit = await ledger.claimed()
    await ledger.record(visit.build, set_build(run_parameters=replace(run_parameters("shop"), branch="pinned")))
    assert (await database.read(one_build, 1))["branch"] == "pinned"


async def test_an_owed_delivery_is_next_tried_when_its_registration_is_due(ledger, database):
    await ledger.accept(report())
    visit = await ledger.claimed()
    life = await ledger.register(visit)
    await ledger.record(visit.build, named(life))
    due = set_registration(replace(life, state=RegistrationState.REGISTERED), due_at=START + SECOND)
    await ledger.record(visit.build, due)
    (delivery,) = (await database.read(one_build, 1))["reports"][0]["deliveries"]
    assert delivery["next_attempt_at"] == "2023-11-14T22:13:21.000000Z"


async def test_a_dead_delivery_has_its_reason_and_no_next_try(ledger, database):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.record(visit.build, dead(visit.build.deliveries[1]))
    (delivery,) = (await database.read(one_build, 1))["reports"][0]["deliveries"]
    assert (delivery["state"], delivery["last_error"], delivery["next_attempt_at"]) == ("dead", "storage said no", None)


@pytest.mark.parametrize(
    ("requested_at", "test_run_id", "lost"),
    [
        (START - 1, None, [1, 0]),  # before the first run: it may have opened it
        (START + 5, None, [1, 0]),
        (START + 15, None, [0, 1]),
        (START + 15, "run-1", [1, 0]),  # TestNod had said which
    ],
)
async def test_a_lost_registration_is_counted_in_the_run_it_may_hold(ledger, database, requested_at, test_run_id, lost):
    await ledger.accept(report())
    visit = await ledger.claimed()
    life = await ledger.register(visit)
    await ledger.run_parameters(visit, "shop")
    gone = set_registration(life, state=RegistrationState.LOST, requested_at=requested_at, test_run_id=test_run_id)
    await ledger.record(visit.build, gone, RUN, AddRun("run-2", "https://nod.test/runs/2", START + 10))
    runs = (await database.read(one_build, 1))["testnod"]["runs"]
    assert [run["lost_registrations"] for run in runs] == lost


async def test_a_build_is_blocked_as_soon_as_the_breaker_of_its_route_opens(ledger, database):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.run_parameters(visit, "shop")
    assert (await database.read(one_build, 1))["blocked_reason"] is None
    trip = BreakerSignal(
        breaker=route_breaker("shop"), signal=HealthSignal.TRIP, reason="Project not found.", probe_delay_us=SECOND
    )
    await database.write(apply_breaker_signals, trip)
    blocked = (await database.read(one_build, 1))["blocked_reason"]
    assert blocked == 'Route "shop": Project not found. Fix its project_token. Delivery resumes automatically.'


async def test_a_build_that_waits_for_a_breaker_is_next_tried_when_that_is_probed(ledger, database):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.release(visit, START + 600 * SECOND, waiting_on=TESTNOD)
    assert (await database.read(one_build, 1))["next_attempt_at"] == "2023-11-14T22:23:20.000000Z"
    await database.write(
        apply_breaker_signals,
        BreakerSignal(breaker=TESTNOD, signal=HealthSignal.TRIP, reason="it hangs", probe_delay_us=SECOND),
    )
    assert (await database.read(one_build, 1))["next_attempt_at"] == "2023-11-14T22:13:21.000000Z"


async def test_a_build_shows_its_newest_refusals_oldest_first(ledger, database):
    names = [f"{number}.xml" for number in range(MAX_REJECTIONS + 3)]
    for name in names:
        await ledger.accept(report(), rejections=(refusal(name),))
    await ledger.accept(report(), build_no=2, rejections=(refusal("other.xml"),))
    refused = (await database.read(one_build, 1))["rejections"]
    assert [told["name"] for told in refused] == names[3:]
    assert refused[0] == {
        "at": "2023-11-14T22:13:20.000000Z",
        "name": "3.xml",
        "reason": "'3.xml' is no JUnit report. Look at what wrote it.",
        "code": "BRIDGE.REPORT",
        "caller": "ci",
        "request_id": "r-1",
        "id": 4,
        "size": None,
        "sha256": None,
        "kept_until": None,
        "sent_at": None,
    }


async def test_a_build_of_which_everything_was_refused_shows_its_refusals(ledger, database):
    await ledger.accept(build_no=7, rejections=(refusal("bad.xml"),))
    build = await database.read(find_build, JOB, 7)
    assert (build["id"], build["job_id"], build["build_no"], build["reports"]) == (None, JOB, 7, [])
    assert [told["name"] for told in build["rejections"]] == ["bad.xml"]


async def test_what_the_ledger_does_not_know_is_none(database):
    assert await database.read(one_build, 1) is None
    assert await database.read(find_build, JOB, 1) is None


# -- why ---------------------------------------------------------------------------------------------------------


async def test_refusals_are_found_where_there_is_no_build(ledger, database):
    await ledger.accept(build_no=7, rejections=(refusal("bad.xml"),))
    found = await database.read(find_why, JOB, 7)
    assert (found.build, found.view, [told.name for told in found.rejections]) == (None, None, ["bad.xml"])


@pytest.mark.usefixtures("delivered")
async def test_a_found_build_is_the_one_that_visits_see_without_its_urls(ledger, database):
    found = await database.read(find_why, JOB, 1)
    seen = await ledger.build()
    assert seen.registrations[1].presigned_url is not None
    without = Rows([replace(seen.registrations[1], presigned_url=None)])
    assert found.build == replace(seen, registrations=without)
    assert found.view == await database.read(one_build, 1)


# -- pages -------------------------------------------------------------------------------------------------------


async def test_pages_hold_every_build_once_newest_first(ledger, database):
    for number in range(1, 8):
        await ledger.accept(report(), build_no=number)
    seen, after = [], {}
    for _ in range(3):
        page = await list_all(database, limit=3, **after)
        seen += [[build["build_no"] for build in page.builds]]
        after = {"before_id": page.next_before_id}
        await ledger.accept(report(), build_no=100 + len(seen))  # what arrives meanwhile moves nothing
    assert seen == [[7, 6, 5], [4, 3, 2], [1]]
    assert page.next_before_id is None


async def test_a_page_ends_before_it_holds_too_many_reports(ledger, database, monkeypatch):
    monkeypatch.setattr(queries, "MAX_PAGE_REPORTS", 3)
    for number, size in enumerate((1, 2, 2, 9), start=1):
        await ledger.accept(*(report(f"{name}.xml") for name in range(size)), build_no=number)
    pages, after = [], {}
    while not pages or after["before_id"] is not None:
        page = await list_all(database, **after)
        pages.append([len(build["reports"]) for build in page.builds])
        after = {"before_id": page.next_before_id}
    assert pages == [[9], [2], [2, 1]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, [(OTHER_JOB, 2), (JOB, 2), (JOB, 1)]),
        ({"job_id": JOB}, [(JOB, 2), (JOB, 1)]),
        ({"job_id": JOB, "build_no": 2}, [(JOB, 2)]),
        ({"job_id": JOB, "build_no": 3}, []),
        ({"state": BuildState.ENDED}, [(JOB, 1)]),
        ({"route": "shop"}, [(JOB, 1)]),
        ({"route": "shop", "state": BuildState.OPEN}, []),
    ],
)
async def test_builds_are_found_by_what_is_asked(ledger, database, query, found):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.record(visit.build, set_build(run_parameters=run_parameters("shop"), state=BuildState.ENDED))
    await ledger.accept(report(), build_no=2)
    await ledger.accept(report(), build_no=2, job_id=OTHER_JOB)
    builds = (await list_all(database, **query)).builds
    assert [(build["job_id"], build["build_no"]) for build in builds] == found


@pytest.mark.parametrize(
    ("mirror", "found"),
    [(None, []), ("agrees", []), ("differs: CodeArts counts 1 test", [1]), ("is not known: 503", [1])],
)
async def test_builds_are_found_whose_mirror_does_not_agree(ledger, database, mirror, found):
    for number in (1, 2):
        await ledger.accept(report(), build_no=number)
    leased = await ledger.claimed()
    await ledger.record(leased.build, set_build(mirror=mirror))
    for other in ({}, {"job_id": JOB}, {"caller": "ci"}, {"state": BuildState.OPEN}):
        page = await list_all(database, mirror_differs=True, **other)
        assert [build["build_no"] for build in page.builds] == found, other
        assert page.next_before_id is None
    assert (await list_all(database, mirror_differs=True, problems=True)).builds == []


# -- counts ------------------------------------------------------------------------------------------------------


async def test_what_is_unfinished_is_counted(ledger, database):
    await ledger.accept(report("a.xml"), report("b.xml"), report("c.xml"))
    visit = await ledger.claimed()
    states = [replace(delivery, state=DeliveryState.PENDING) for delivery in visit.build.deliveries.values()]
    await ledger.record(visit.build, dead(states[0]), set_build(stuck_reason="it hangs"))
    await ledger.release(visit, None, blocked_reason="No route takes it.")
    counted = await database.read(counts)
    assert counted.deliveries == {("testnod", "pending"): 2, ("testnod", "dead"): 1}
    assert (counted.stuck, counted.blocked) == (1, 1)


async def test_mismatches_are_counted_by_kind_and_route_for_as_long_as_is_asked(ledger, database):
    await ledger.accept(report("a.xml"))
    visit = await ledger.claimed()
    await ledger.record(
        visit.build, set_build(state=BuildState.ENDED, ended_at=START, result_mismatch=MismatchKind.FAILED_TESTS)
    )
    assert (await ledger.build()).result_mismatch is MismatchKind.FAILED_TESTS
    assert await database.read(count_mismatches, START) == {("failed_tests", ""): 1}
    assert await database.read(count_mismatches, START + 1) == {}


@pytest.mark.parametrize(("result", "said"), [("SUCCESS", "but 1 of 3 tests failed"), ("FAILURE", None), (None, None)])
async def test_a_build_states_how_its_result_and_its_reports_differ(ledger, database, result, said):
    await ledger.accept(report("a.xml"))
    visit = await ledger.claimed()
    await ledger.record(visit.build, set_build(build_result=result))
    sentence = (await list_all(database)).builds[0]["result_mismatch"]
    assert sentence is None if said is None else said in sentence


async def test_a_build_without_a_report_states_what_was_rejected(ledger, database):
    await ledger.accept(complete=True, rejections=(refusal("a.xml"), refusal("b.xml")))
    visit = await ledger.claimed()
    assert visit.build.rejected == ("a.xml", "b.xml")
    await ledger.record(visit.build, set_build(build_result="FAILURE"))
    sentence = (await list_all(database)).builds[0]["result_mismatch"]
    assert "and no report was accepted (2 files were rejected)" in sentence


# -- how the ledger is asked -------------------------------------------------------------------------------------


async def test_a_page_takes_as_many_statements_as_one_build(ledger, database):
    await ledger.accept(report("a.xml"), report("b.xml"), rejections=(refusal(),))
    with statements(database) as for_one:
        await list_all(database)
    for number in range(2, 9):
        await ledger.accept(report("a.xml"), report("b.xml"), build_no=number, rejections=(refusal(),))
    with statements(database) as for_eight:
        assert len((await list_all(database)).builds) == 8
    assert len(for_eight) == len(for_one)


@pytest.mark.usefixtures("delivered")
@pytest.mark.parametrize("query", EVERY_QUERY, ids=lambda query: f"{query[0].__name__} {query[1:]}")
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # PostgreSQL's plans depend on how much there is
async def test_no_query_walks_a_whole_table(database, query):
    with statements(database) as asked_for:
        await database.read(*query)
    plans = await database.read(
        lambda connection: [
            str(row[3])
            for statement, parameters in asked_for
            if statement.startswith("SELECT")
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    )
    assert plans
    assert [plan for plan in plans if BIG_TABLE.search(plan)] == []


@pytest.mark.usefixtures("delivered")
@pytest.mark.parametrize("query", EVERY_QUERY, ids=lambda query: f"{query[0].__name__} {query[1:]}")
async def test_no_query_selects_bytes_or_presigned_urls(database, query):
    with statements(database) as asked_for:
        await database.read(*query)
    assert asked_for
    harmless = re.compile(r"(length\(reports\.body\)|reports\.blob) IS NOT NULL|NULL AS presigned_url")
    for statement, _ in asked_for:
        assert not re.search("body|blob|presigned_url", harmless.sub("", statement))


# -- of a caller ---------------------------------------------------------------------------------------------------


async def of_caller(database, **query):
    """Return the numbers of a caller's builds, page by page."""
    pages, before_id = [], BuildsQuery().before_id
    while before_id is not None:
        page = await list_all(database, before_id=before_id, **query)
        pages.append([build["build_no"] for build in page.builds])
        before_id = page.next_before_id
    return pages


@pytest.fixture
async def of_two_callers(ledger, monkeypatch):
    """Nine builds: each third one of nightly, and of these one with reports of both callers."""
    monkeypatch.setattr(queries, "WALKED_BUILDS", 2)
    monkeypatch.setattr(queries, "MAX_WALKS", 2)
    for number in range(1, 10):
        caller = "ci" if number % 3 else "nightly"
        await ledger.accept(
            report("a.xml"), report("b.xml", b"<testsuite>b</testsuite>"), build_no=number, caller=caller
        )
    await ledger.accept(report("c.xml", b"<testsuite>c</testsuite>"), build_no=3, caller="ci")


@pytest.mark.usefixtures("of_two_callers")
async def test_builds_are_found_by_a_caller_of_one_of_their_reports(database):
    assert await of_caller(database, caller="nightly") == [[9, 6, 3]]
    assert await of_caller(database, caller="ci", limit=3) == [[8, 7, 5], [4, 3, 2], [1]]
    assert await of_caller(database, caller="nobody else") == [[]]


@pytest.mark.usefixtures("of_two_callers")
async def test_other_filters_narrow_the_builds_of_a_caller(database):
    assert await of_caller(database, caller="nightly", state=BuildState.OPEN) == [[9, 6, 3]]
    assert await of_caller(database, caller="nightly", job_id=JOB, build_no=6) == [[6]]
    assert await of_caller(database, caller="nightly", job_id=JOB, build_no=7) == [[]]
    assert await of_caller(database, caller="nightly", branch="main") == [[]]


@pytest.mark.usefixtures("of_two_callers")
async def test_a_page_of_a_caller_ends_after_a_bounded_walk_and_the_next_one_goes_on(database):
    done = "UPDATE builds SET state = 'finalized', route = 'shop' WHERE build_no IN (1, 2)"
    await database.transact(lambda connection, _now: connection.exec_driver_sql(done))
    assert await of_caller(database, caller="ci", state=BuildState.FINALIZED) == [[], [2, 1]]
    assert await of_caller(database, caller="ci", route="shop", limit=1) == [[], [2], [1]]


# -- until a day ---------------------------------------------------------------------------------------------------


async def test_a_page_begins_with_the_newest_build_before_a_time(ledger, database, clock):
    for number in range(1, 6):
        await ledger.accept(report(), build_no=number)
        clock.advance(SECOND)
    for count in range(7):
        until = START + count * SECOND
        page = await list_all(database, until=until)
        assert [build["build_no"] for build in page.builds] == list(range(min(count, 5), 0, -1)), count
    assert (await list_all(database, until=START + 9 * SECOND, before_id=3)).builds[0]["build_no"] == 2
    assert (await list_all(database, until=START + 4 * SECOND, limit=1)).next_before_id == 4
