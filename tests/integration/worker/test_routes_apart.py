"""Two callers, each bound to a route of its own, upload to one build: what one states moves no report of the other."""

from unittest.mock import AsyncMock

import pytest
from sqlalchemy import select

from bridge.domain.build import BuildRecord, BuildState, DeliveryState, EndReason, UploadMetadata
from bridge.domain.outcomes import NoSuchBuild
from bridge.domain.routing import Route
from bridge.domain.why import WhyCase, why
from bridge.store.queries import find_why
from bridge.store.schema import deliveries, reports
from tests.support.builders import MINUTE, POLICY
from tests.support.fake_clock import FakeClock
from tests.support.ledger import report
from tests.support.worker_play import Play

JOB = "a" * 32
BY_BRANCH = (Route(name="api", branch=("main",)), Route(name="shop", branch=("dev",)))
ASKING = {"routes": BY_BRANCH, "has_codearts": True}
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def play(backend, tmp_path, request):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        play = Play(database, clock, tmp_path, **getattr(request, "param", ASKING))
        play.outside.record = BuildRecord(branch="main")
        play.outside.running = True
        yield play


without_codearts = pytest.mark.parametrize("play", [{"routes": BY_BRANCH}], indirect=True)
one_candidate = pytest.mark.parametrize(
    "play", [{"routes": (BY_BRANCH[0], Route(name="shop", job_id=("b" * 32,))), "has_codearts": True}], indirect=True
)


async def ours(play, branch="main", **other):
    """Upload what belongs to the route api, by a caller that is bound to it."""
    stated = UploadMetadata(branch=branch)
    return await play.ledger.accept(
        report("ours.xml"), caller="ours", **{"caller_routes": ("api",), "upload_metadata": stated, **other}
    )


async def lie(play, *files, **other):
    """Upload by a caller that is bound to the route shop, and claim a branch of that route."""
    stated = UploadMetadata(branch="dev", commit="bad0bad")
    return await play.ledger.accept(*files, caller="theirs", caller_routes=("shop",), upload_metadata=stated, **other)


async def minutes(play, count):
    await play.until(play.clock.now() + count * MINUTE)


async def outcome(play):
    """Return the route of the build, and the state of each report by its name."""
    query = select(reports.c.name, deliveries.c.state).join(deliveries, deliveries.c.report_id == reports.c.id)
    row = await play.ledger.row()
    return row.route, dict(map(tuple, await play.ledger.rows(query)))


async def explanation(play):
    found = await play.ledger.database.read(find_why, JOB, 1)
    return why(
        job_id=JOB,
        build_no=1,
        build=found.build,
        rejections=found.rejections,
        breakers=found.breakers,
        now=play.clock.now(),
        polled=None,
    )


@pytest.mark.parametrize("truth_after", [0, 3], ids=["at once", "after the lie would have been believed"])
async def test_a_lie_does_not_move_the_reports_of_another_caller_while_record_info_is_away(play, truth_after):
    play.outside.away = {"codearts"}
    await lie(play, report("theirs.xml"))
    await minutes(play, truth_after)
    await ours(play)
    await minutes(play, 2)
    assert await outcome(play) == ("", {"theirs.xml": D.PENDING, "ours.xml": D.PENDING})
    play.outside.away = set()
    await minutes(play, 60)

    assert await outcome(play) == ("api", {"theirs.xml": D.PENDING, "ours.xml": D.DELIVERED})
    build = await play.ledger.build()
    assert (build.run_parameters.branch, build.run_parameters.commit) == ("main", None)


async def test_callers_that_contradict_each_other_wait_for_the_record_and_why_says_so(play):
    play.outside.away = {"codearts"}
    await lie(play, report("theirs.xml"))
    await ours(play)
    await minutes(play, 60)

    answer = await explanation(play)
    assert (await outcome(play))[1] == {"theirs.xml": D.PENDING, "ours.xml": D.PENDING}
    assert answer.case is WhyCase.BLOCKED
    assert "no record of CodeArts decides which route it has" in answer.cause


async def test_the_blocked_report_of_a_caller_of_another_route_is_not_the_answer_for_the_build(play):
    await lie(play, report("theirs.xml"))
    await ours(play)
    await minutes(play, 1)
    assert (await outcome(play))[1] == {"theirs.xml": D.PENDING, "ours.xml": D.DELIVERED}

    answer = await explanation(play)
    assert answer.case is WhyCase.WAITING
    assert "1 report of callers that may not use its route was not delivered" in answer.cause


@without_codearts
async def test_without_codearts_the_first_statement_counts_for_its_caller_and_others_are_blocked_with_the_reason(play):
    await ours(play)
    await lie(play, report("theirs.xml"))
    await minutes(play, 1)

    assert await outcome(play) == ("api", {"theirs.xml": D.PENDING, "ours.xml": D.DELIVERED})
    answer = await explanation(play)
    assert answer.case is WhyCase.BLOCKED
    assert 'Caller "theirs" may not send to route "api"' in answer.cause


@without_codearts
async def test_a_caller_without_a_report_of_its_own_chooses_nothing(play):
    await lie(play, complete=True)
    await ours(play)
    await minutes(play, 1)

    assert await outcome(play) == ("api", {"ours.xml": D.DELIVERED})
    build = await play.ledger.build()
    assert (build.state, build.run_parameters.commit) == (BuildState.OPEN, None)


async def test_complete_of_another_route_does_not_end_a_build_that_codearts_still_runs(play):
    play.outside.away = {"codearts"}
    await lie(play, complete=True)
    await ours(play)
    await minutes(play, 1)
    play.outside.away = set()
    await minutes(play, 60)
    assert (await play.ledger.build()).state is BuildState.OPEN

    await ours(play, complete=True)
    await minutes(play, 2)
    assert await play.end_reason() == {EndReason.CALLER}


async def test_a_build_that_codearts_does_not_know_yet_cannot_be_taken_in_advance(play, monkeypatch):
    unknown = NoSuchBuild(message="Build not found.")
    for call in ("record_info", "build_info"):
        monkeypatch.setattr(play.outside, call, AsyncMock(return_value=unknown))
    for name in ("theirs.xml", "again.xml"):
        await lie(play, report(name))
        await minutes(play, 60)
    assert (await outcome(play))[0] == ""
    assert "CodeArts has no such build" in (await explanation(play)).cause

    monkeypatch.undo()
    await ours(play)
    await minutes(play, 60)
    assert await outcome(play) == ("api", {"theirs.xml": D.PENDING, "again.xml": D.PENDING, "ours.xml": D.DELIVERED})


async def test_a_record_without_a_branch_lets_no_statement_decide_between_callers(play):
    play.outside.record = BuildRecord(tag="v1")
    await ours(play)
    await lie(play, report("theirs.xml"))
    await minutes(play, 60)
    assert await outcome(play) == ("", {"theirs.xml": D.PENDING, "ours.xml": D.PENDING})
    assert (await explanation(play)).case is WhyCase.BLOCKED


# -- no other caller waits longer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("caller_routes", [None, ("api", "shop")], ids=["unbound", "bound to all of them"])
async def test_a_caller_that_may_use_all_routes_in_question_waits_a_minute_for_the_record(play, caller_routes):
    play.outside.away = {"codearts"}
    await ours(play, caller_routes=caller_routes)
    await play.until(play.clock.now() + POLICY.record_timeout + MINUTE)
    assert await outcome(play) == ("api", {"ours.xml": D.DELIVERED})


@one_candidate
async def test_a_job_with_one_route_waits_a_minute_for_the_record(play):
    play.outside.away = {"codearts"}
    await ours(play)
    await play.until(play.clock.now() + POLICY.record_timeout + MINUTE)
    assert await outcome(play) == ("api", {"ours.xml": D.DELIVERED})


async def test_a_bound_caller_waits_for_the_record_for_the_time_in_which_codearts_may_not_know_a_build(play):
    play.outside.away = {"codearts"}
    await ours(play)
    await play.until(play.clock.now() + POLICY.not_found_timeout - MINUTE)
    assert (await outcome(play))[0] == ""
    answer = await explanation(play)
    assert answer.case is WhyCase.PENDING
    assert "its record decides between the routes of several callers" in answer.cause
    await minutes(play, 2)
    assert await outcome(play) == ("api", {"ours.xml": D.DELIVERED})


D = DeliveryState


BY_NAME = (Route(name="api", job_name=("checkout",)), Route(name="shop", job_name=("nightly*",)))


@pytest.mark.parametrize("play", [{"routes": BY_NAME, "has_codearts": True}], indirect=True)
async def test_a_stated_job_name_does_not_move_the_reports_of_another_caller(play):
    play.outside.record = BuildRecord(job_name="checkout")
    play.outside.away = {"codearts"}
    lied = {"caller": "theirs", "caller_routes": ("shop",), "upload_metadata": UploadMetadata(job_name="nightly")}
    await play.ledger.accept(report("theirs.xml"), **lied)
    await ours(play, upload_metadata=UploadMetadata())
    await minutes(play, 3)
    assert await outcome(play) == ("", {"theirs.xml": D.PENDING, "ours.xml": D.PENDING})
    play.outside.away = set()
    await minutes(play, 60)
    assert await outcome(play) == ("api", {"theirs.xml": D.PENDING, "ours.xml": D.DELIVERED})
    assert len(play.outside.registered) == 1
    [blocked] = await play.ledger.rows(select(deliveries.c.last_error).where(deliveries.c.blocked_since.is_not(None)))
    assert 'Caller "theirs" may not send to route "api"' in blocked.last_error
