"""Events of builds that wait for an operator: a pause is none, and what blocks a build after a pause is one."""

from dataclasses import replace

import pytest
from sqlalchemy import select

from bridge.domain.instants import MINUTE
from bridge.domain.notices import NoticeFilter, Subscriptions
from bridge.store.operator_actions import Actor, RoutePause, pause_route
from bridge.store.restore_pause import Resumption, UncertainDeliveries, pause_ledger, resume
from bridge.store.schema import builds, notice_events
from tests.support.fake_clock import FakeClock
from tests.support.worker_play import JOBS, Play

ROUTE = "shop"
NUMBERS = range(1, 4)
ALL = Subscriptions(filters=(("t", (NoticeFilter(),)),))


@pytest.fixture
async def play(backend, tmp_path):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        play = Play(database, clock, tmp_path, retry_max_delay=MINUTE)
        play.config = replace(play.config, notices=ALL)
        yield play


async def events(play):
    return [row.kind for row in await play.ledger.rows(select(notice_events.c.kind).order_by(notice_events.c.id))]


async def reasons(play):
    return [row.blocked_reason for row in await play.ledger.rows(select(builds.c.blocked_reason))]


async def set_route_pause(play, *, pause):
    actor = Actor(name="ann", role="admin", address="", proof="token")
    asked = RoutePause(actor=actor, route=ROUTE, pause=pause, max_finalize_delay_us=0)
    await play.config.database.write(pause_route, asked)


async def set_ledger_pause(play, *, pause):
    if pause:
        await play.config.database.transact(pause_ledger)
    else:
        decision = Resumption(uncertain=UncertainDeliveries.REDELIVER, max_finalize_delay_us=0)
        await play.config.database.write(resume, decision)


async def set_paused_in_settings(play, *, pause):
    routes = tuple(replace(route, paused=pause and route.name == ROUTE) for route in play.config.policy.routes)
    play.config = replace(play.config, policy=replace(play.config.policy, routes=routes))


@pytest.mark.parametrize("set_pause", [set_route_pause, set_ledger_pause, set_paused_in_settings])
async def test_a_pause_is_no_event_and_what_blocks_a_build_after_it_is_one(play, set_pause):
    of_route = len(NUMBERS) * sum(route == ROUTE for route in JOBS.values())
    await set_pause(play, pause=True)
    for number in NUMBERS:
        await play.arrive(number)
    play.outside.unknown_token = f"token-{ROUTE}"
    await play.until(play.clock.now() + 5 * MINUTE)
    assert sum(reason is not None for reason in await reasons(play)) >= of_route
    assert await events(play) == []

    await set_pause(play, pause=False)
    await play.until(play.clock.now() + 10 * MINUTE)
    assert await events(play) == ["blocked_route"] * of_route
