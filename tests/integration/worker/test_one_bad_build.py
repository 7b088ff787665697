"""Builds that upstreams answer oddly delay themselves alone: sound builds of the same route go on as by themselves."""

from itertools import repeat

import pytest

from bridge.client.ssrf_guard import STORAGE_BLOCKED
from bridge.domain.build import DeliveryState
from bridge.domain.circuit_breaker import storage_breaker
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.upload import REJECTED_FOR
from bridge.domain.outcomes import (
    NotSent,
    OutcomeUnknown,
    PutRejected,
    Registered,
    Rejected,
    UnrecognizedResponse,
    UrlRejected,
)
from bridge.store.circuit_breakers import all_breakers
from tests.support.builders import HOUR, MINUTE
from tests.support.fake_clock import FakeClock
from tests.support.ledger import report
from tests.support.worker_play import Play

JOB = "b" * 32  # of the route "shop"
ODD_REGISTERS = {
    "500": OutcomeUnknown(message="HTTP 500", status=500),
    "a page with 200": OutcomeUnknown(message="HTML", status=200),
    "a redirect": UnrecognizedResponse(status=302, message="sign in"),
    "422": Rejected(status=422, message="There was a problem creating this test run."),
    "429": Rejected(status=429, message="slow down"),
    "no URL": Registered(test_run_id="r", upload_id="u", test_run_url="", presigned_url="", expires_at=None),
    "cut": OutcomeUnknown(message="cut"),
    "refused": NotSent(message="connection refused"),
}
ODD_PUTS = {
    "403": PutRejected(status=403, code="AccessDenied", message=""),
    "400": PutRejected(status=400, code="", message=""),
    "406": PutRejected(status=406, code="", message=""),
    "503": OutcomeUnknown(message="SlowDown", status=503),
    "a URL elsewhere": UrlRejected(message="not in storage_hosts"),
    "a private address": NotSent(message=STORAGE_BLOCKED),
    "cut": OutcomeUnknown(message="cut"),
}
ODD = [("register", outcome) for outcome in ODD_REGISTERS.values()]
ODD += [("put", outcome) for outcome in ODD_PUTS.values()]
NAMES = [f"register {name}" for name in ODD_REGISTERS] + [f"put {name}" for name in ODD_PUTS]

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def new_play(backend, tmp_path):
    databases = []

    async def new(**policy):
        clock = FakeClock()
        opened = backend.fresh(clock)
        database = await opened.__aenter__()
        databases.append(opened)
        return Play(database, clock, tmp_path, grace_period=0, **policy)

    yield new
    for opened in databases:
        await opened.__aexit__(None, None, None)


def build_id(number):
    return f"codearts-{JOB}-{number}"


async def accept(play, numbers):
    for number in numbers:
        await play.ledger.accept(report(), job_id=JOB, build_no=number, complete=True)


async def time_of(play, numbers, hours=2):
    """Play until these builds are finalized; return how long that took, in microseconds."""
    began = play.clock.now()
    while not play.outside.finalized_at.keys() >= {build_id(number) for number in numbers}:
        await play.until(play.clock.now() + 5 * SECOND)
        assert play.clock.now() < began + hours * 60 * MINUTE, "sound builds are held up"
    return max(play.outside.finalized_at[build_id(number)] for number in numbers) - began


TIMES_ALONE: dict[tuple[int, ...], int] = {}


async def time_alone(new_play, numbers, **policy):
    """Return how long these builds take without others, in microseconds: played once, since a play has no chance."""
    if (key := tuple(numbers)) not in TIMES_ALONE:
        play = await new_play(**policy)
        await accept(play, numbers)
        TIMES_ALONE[key] = await time_of(play, numbers)
    return TIMES_ALONE[key]


@pytest.mark.parametrize(("call", "outcome"), ODD, ids=NAMES)
async def test_a_build_that_is_answered_oddly_for_ever_holds_no_other_up(new_play, call, outcome):
    expected = await time_alone(new_play, [2])

    play = await new_play()
    play.outside.odd[call, build_id(1)] = repeat(outcome)
    await accept(play, [1])
    await play.until(play.clock.now() + 10 * MINUTE)
    await accept(play, [2])
    assert await time_of(play, [2]) <= 2 * expected + 3 * SECOND  # the prober looks once a second


@pytest.mark.parametrize(("call", "outcome"), ODD, ids=NAMES)
async def test_31_sound_builds_beside_25_odd_ones_take_less_than_twice_their_time_alone(new_play, call, outcome):
    sound = range(26, 57)
    expected = await time_alone(new_play, sound, retry_max_delay=2 * SECOND)

    play = await new_play(retry_max_delay=2 * SECOND)
    for number in range(1, 26):
        play.outside.odd[call, build_id(number)] = iter([outcome, outcome])
    await accept(play, range(1, 57))
    time_beside = await time_of(play, sound)
    others = sum(play.outside.spent_us[build_id(number)] for number in range(1, 26))  # here calls come one by one
    assert time_beside - others <= 2 * expected
    await time_of(play, range(1, 57))
    assert set(await play.states()) == {DeliveryState.DELIVERED}


REJECTED = [ODD_PUTS[name] for name in ("403", "400", "a URL elsewhere")]
"""What storage answers for the signer or the bucket more often than for a report: an outage until others are taken."""

UNANSWERED = [case for case in ODD if isinstance(case[1], NotSent) or case[1] == OutcomeUnknown(message="cut")]


@pytest.mark.parametrize(
    ("call", "outcome"), [case for case in ODD if case not in UNANSWERED and case[1] not in REJECTED]
)
async def test_a_build_that_is_answered_oddly_alone_is_given_up_in_its_time(new_play, call, outcome):
    play = await new_play(give_up_after=20 * SECOND, retry_max_delay=2 * SECOND)
    play.outside.odd[call, build_id(1)] = repeat(outcome)
    await accept(play, [1])
    await play.until(play.clock.now() + MINUTE)
    assert await play.states() == [DeliveryState.DEAD]


@pytest.mark.parametrize(("call", "outcome"), UNANSWERED)
async def test_calls_without_an_answer_are_an_outage_also_for_a_build_alone(new_play, call, outcome):
    play = await new_play(give_up_after=20 * SECOND)
    play.outside.odd[call, build_id(1)] = repeat(outcome)
    await accept(play, [1])
    await play.hours(12)
    assert await play.states() == [DeliveryState.PENDING]


@pytest.mark.parametrize("outcome", REJECTED)
async def test_storage_that_rejects_all_it_gets_kills_nothing_however_long(new_play, outcome):
    play = await new_play(give_up_after=20 * SECOND)
    for number in (1, 2):
        play.outside.odd["put", build_id(number)] = repeat(outcome)
    await accept(play, [1])
    await play.hours(12)
    assert await play.states() == [DeliveryState.PENDING]
    await accept(play, [2])
    await play.hours(12)
    assert await play.states() == [DeliveryState.PENDING] * 2
    breakers = await play.config.database.read(all_breakers)
    assert breakers.open_breaker(storage_breaker("shop"))

    play.outside.odd.clear()
    await time_of(play, [1, 2])
    assert await play.states() == [DeliveryState.DELIVERED] * 2


@pytest.mark.parametrize("apart", [10 * MINUTE, 30 * MINUTE])
async def test_a_report_that_storage_rejects_while_it_takes_others_is_given_up_after_hours(new_play, apart):
    play = await new_play(retry_max_delay=10 * MINUTE)
    play.outside.odd["put", build_id(1)] = repeat(ODD_PUTS["403"])
    hopeless_at = play.clock.now() + REJECTED_FOR
    await accept(play, [1])
    number = 1
    while DeliveryState.DEAD not in await play.states():
        number += 1
        await accept(play, [number])
        await play.until(play.clock.now() + apart)
        assert number < 60
    assert hopeless_at <= play.clock.now() <= hopeless_at + 2 * HOUR
