"""A reload that moves a job to another route, and back: nothing that was accepted is lost by it."""

from dataclasses import replace
from itertools import repeat

import pytest

from bridge.domain.circuit_breaker import CircuitBreaker, route_breaker
from bridge.domain.outcomes import NotSent
from bridge.domain.routing import Route
from bridge.domain.why import WhyCase, why
from bridge.store.circuit_breakers import wake_waiting_builds
from bridge.store.queries import find_why
from tests.support.builders import HOUR, MINUTE
from tests.support.fake_clock import FakeClock
from tests.support.ledger import report
from tests.support.worker_play import Play

JOB = "a" * 32
RIGHT = (Route(name="api", job_id=("aaaa*",)), Route(name="shop", job_id=("bbbb*",)))
MOVED = (Route(name="api", job_id=("aaab*",)), Route(name="shop", job_id=("*",)))
NUMBERS = range(1, 6)


@pytest.fixture
async def play(backend, tmp_path):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        yield Play(database, clock, tmp_path, routes=RIGHT, has_codearts=True)


async def reload(play, routes):
    """Do what a gateway does at SIGHUP."""
    play.config = replace(play.config, policy=replace(play.config.policy, routes=routes))
    await play.ledger.database.transact(wake_waiting_builds)


async def arrive(play, caller_routes=("api",)):
    for number in NUMBERS:
        await play.ledger.accept(
            report(f"{number}.xml"), build_no=number, caller="ca", caller_routes=caller_routes, complete=True
        )


async def minutes(play, count):
    await play.until(play.clock.now() + count * MINUTE)


async def explanation(play):
    found = await play.ledger.database.read(find_why, JOB, 1)
    now = play.clock.now()
    return why(job_id=JOB, build_no=1, build=found.build, rejections=(), breakers=found.breakers, now=now, polled=None)


@pytest.mark.parametrize("away", [set(), {"codearts"}, {"testnod"}], ids=["nothing", "CodeArts", "TestNod"])
async def test_reports_that_were_accepted_beside_a_wrong_reload_are_sent_after_the_right_one(play, away):
    play.outside.away = away
    await reload(play, MOVED)
    await arrive(play)
    await minutes(play, 70)
    assert await play.states() == ["pending"] * len(NUMBERS)
    answer = await explanation(play)
    assert answer.case is WhyCase.BLOCKED
    assert 'Caller "ca" may not send to route "shop"' in answer.cause

    await reload(play, RIGHT)
    play.outside.away = set()
    await minutes(play, 60)
    assert await play.states() == ["delivered"] * len(NUMBERS)
    assert {(await play.ledger.row(number)).route for number in NUMBERS} == {"api"}


async def test_the_right_reload_alone_wakes_blocked_builds(play):
    await reload(play, MOVED)
    await arrive(play)
    await minutes(play, 1)
    await reload(play, RIGHT)
    for _ in range(20):
        await play.turn()
    assert await play.states() == ["delivered"] * len(NUMBERS)


async def test_a_reload_wakes_builds_with_a_blocked_report_that_explains_nothing(play):
    await arrive(play)
    await reload(play, (Route(name="shop", job_id=("aaaa*",)),))
    await play.ledger.accept(report("own.xml"), build_no=1, caller="cb", caller_routes=("shop",), complete=True)
    await minutes(play, 1)
    assert sorted(await play.states()) == ["delivered"] + ["pending"] * len(NUMBERS)
    before = (await play.ledger.row()).due_at
    assert before > play.clock.now()

    await reload(play, play.config.policy.routes)
    assert (await play.ledger.row()).due_at == play.clock.now()


async def test_what_stays_wrong_for_as_long_as_a_report_is_tried_is_dead_and_says_why(play):
    play.config = replace(play.config, policy=replace(play.config.policy, give_up_after=HOUR))
    await reload(play, MOVED)
    await arrive(play)
    await minutes(play, 80)
    assert await play.states() == ["dead"] * len(NUMBERS)
    answer = await explanation(play)
    assert answer.case is WhyCase.DEAD
    assert 'Caller "ca" may not send to route "shop"' in answer.cause


async def test_builds_of_callers_of_any_route_leave_the_route_that_nothing_was_registered_in(play):
    calls = [("register", f"codearts-{JOB}-{number}") for number in NUMBERS]
    play.outside.odd = {call: repeat(NotSent(message="testnod: connection refused")) for call in calls}
    await reload(play, MOVED)
    await arrive(play, caller_routes=None)
    await minutes(play, 5)
    assert (await play.ledger.row()).route == "shop"

    play.outside.odd = {}
    await reload(play, RIGHT)
    await minutes(play, 60)
    assert await play.states() == ["delivered"] * len(NUMBERS)
    assert {(await play.ledger.row(number)).route for number in NUMBERS} == {"api"}


async def test_a_route_that_a_reload_removes_before_its_probe_is_not_probed(play):
    play.config = replace(play.config, clients=replace(play.config.clients, project_tokens={}))
    assert await play.prober._probe(CircuitBreaker(name=route_breaker("api")), "api") is None
