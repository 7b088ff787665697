"""Two gateways of one ledger during a rolling reload of routes: one has the new route, the other not yet."""

from dataclasses import replace

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from bridge.domain.instants import SECOND
from bridge.domain.notices import NoticeFilter, Subscriptions
from bridge.domain.routing import Route
from bridge.store.schema import builds, deliveries, notice_events
from bridge.worker.own_faults import OwnFaults
from tests.support.fake_clock import FakeClock
from tests.support.ledger import report
from tests.support.worker_play import Outside, Play

JOB = "a" * 32
NEW, OLD = Route(name="api", job_id=(JOB,), build_id="new-{job_id}-{build_no}"), Route(name="shop")
NUMBERS = range(1, 5)
ALL = Subscriptions(filters=(("t", (NoticeFilter(),)),))

pytestmark = pytest.mark.parametrize("backend", ["postgres"], indirect=True)


@pytest.fixture
async def replicas(backend, tmp_path):
    """Two gateways before the same upstreams: the first has the new route before the old one, the second does not."""
    clock = FakeClock()
    outside = Outside(clock)
    async with backend.fresh(clock) as database:
        plays = [Play(database, clock, tmp_path, outside=outside, routes=routes) for routes in ((NEW, OLD), (OLD,))]
        for play in plays:
            play.config = replace(play.config, own_faults=OwnFaults(shared=True), notices=ALL)
        yield plays


async def arrive(play, caller_routes):
    for number in NUMBERS:
        uploaded = {"job_id": JOB, "build_no": number, "complete": True, "caller_routes": caller_routes}
        await play.ledger.accept(report(f"junit-{number}.xml"), **uploaded)


async def pass_time(*plays, seconds):
    clock = plays[0].clock
    end = clock.now() + seconds * SECOND
    while clock.now() < end:
        for play in plays:
            await play.turn()
        clock.set(clock.now() + SECOND)


async def outcome(play):
    """Return routes, states and reasons of all builds, and the states of their deliveries."""
    rows = await play.ledger.rows(select(builds.c.route, builds.c.state, builds.c.blocked_reason))
    states = await play.ledger.rows(select(deliveries.c.state))
    return {tuple(row) for row in rows}, {row.state for row in states}


async def kinds(play):
    return [row.kind for row in await play.ledger.rows(select(notice_events.c.kind))]


@pytest.mark.parametrize("first", [0, 1], ids=["by the one with the new route", "by the other"])
async def test_reports_of_a_caller_of_the_new_route_reach_it_whichever_gateway_looks_first(replicas, first):
    await arrive(replicas[0], ("api",))
    with capture_logs() as lines:
        await pass_time(*(replicas if first == 0 else reversed(replicas)), seconds=60)

    assert await kinds(replicas[0]) == []
    assert not {line["event"] for line in lines} & {"build_blocked", "build_unblocked"}
    assert await outcome(replicas[0]) == ({("api", "finalized", None)}, {"delivered"})
    assert {build_id.partition("-")[0] for build_id in replicas[0].outside.opened} == {"new"}


async def test_if_no_gateway_has_the_route_yet_its_reports_wait_with_the_reason(replicas):
    new, old = replicas
    await arrive(old, ("api",))
    with capture_logs() as lines:
        await pass_time(old, seconds=200)
    assert await kinds(old) == ["blocked_route"] * len(NUMBERS)
    assert [line["event"] for line in lines].count("build_blocked") == len(NUMBERS)
    old.config.own_faults.forget_left()  # as a reload does
    await pass_time(old, seconds=200)
    assert await kinds(old) == ["blocked_route"] * len(NUMBERS)  # announced once

    rows, states = await outcome(old)
    assert states == {"pending"}
    [(route, _, reason)] = rows
    assert route == ""
    assert reason.startswith('Caller "ci" may not send to route "shop", which takes this build. Correct [[routes]]')
    assert old.outside.registered == []

    await pass_time(new, old, seconds=60)
    assert await outcome(old) == ({("api", "finalized", None)}, {"delivered"})


async def test_a_build_whose_caller_may_use_both_routes_is_delivered_once_to_one_of_them(replicas):
    await arrive(replicas[0], None)
    await pass_time(*reversed(replicas), seconds=60)

    rows, states = await outcome(replicas[0])
    assert (states, {state for _, state, _ in rows}) == ({"delivered"}, {"finalized"})
    assert len(replicas[0].outside.registered) == len(NUMBERS)
