import asyncio
from collections import OrderedDict

import pytest

from bridge.domain.callers import AuthScheme, IamUsers
from bridge.domain.outcomes import CredentialsRejected, OutcomeUnknown, Rejected, Throttled
from bridge.errors import Unauthenticated, Unavailable
from bridge.protocols.iam import ValidToken
from bridge.server.auth import fair_queue, iam_tokens
from bridge.server.auth.fair_queue import MAX_CHECKS, WAIT_SECONDS
from bridge.server.auth.iam_tokens import INVALID_US, VALID_US, IamTokens, Tenant
from tests.support.fake_clock import FakeClock
from tests.support.loop_clock import LoopClock

HOUR = 3_600_000_000
EVERYBODY = (IamUsers(name="*", routes=None, scopes=frozenset({"upload"})),)
AWAY = OutcomeUnknown(message="iam: no complete response in time.")
BAD = CredentialsRejected(message="The token is bad.")


class Iam:
    """IAM as it is today; `asked` are the tokens that it was asked about."""

    def __init__(self, clock):
        self.clock = clock
        self.asked = []
        self.answer = self.good()
        self.answers = lambda _: self.answer
        self.open = asyncio.Event()
        self.open.set()

    def good(self, **changes):
        facts = {"user": "ann", "domain": "firm", "project_id": "p" * 32, "project": "cn-north-4"}
        return ValidToken(**({"expires_at": self.clock.now() + HOUR} | facts | changes))

    async def check(self, token):
        self.asked.append(token)
        await self.open.wait()
        return self.answers(token)


async def turns():
    """Let tasks go on until they wait for IAM or for their turn."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def iam(clock):
    return Iam(clock)


def clocks(iam):
    return {"now": iam.clock.now, "steady": iam.clock.steady}


def tokens_of(iam, *, users=EVERYBODY, project=""):
    return IamTokens(
        iam.check, users, Tenant(domain="firm", project=project), now=iam.clock.now, steady=iam.clock.steady
    )


async def test_a_user_of_the_account_comes_in_under_a_name_that_no_token_can_have_with_the_token_at_hand(iam):
    caller = await tokens_of(iam).identify("canary")
    assert (caller.scheme, caller.name, caller.routes, caller.iam_token) == (AuthScheme.IAM, "iam:ann", None, "canary")
    assert "canary" not in repr(caller)


@pytest.mark.parametrize(
    "changes",
    [
        {"domain": "strangers"},
        {"domain": None},
        {"project_id": None},
        {"user": None},
        {"project": "cn-south-1", "project_id": "q" * 32},
    ],
    ids=["another account", "no account", "a token of no project", "no user", "another project"],
)
async def test_a_good_token_of_another_account_is_a_bad_token(iam, changes):
    iam.answer = iam.good(**changes)
    with pytest.raises(Unauthenticated, match="decrypt token fail"):
        await tokens_of(iam, project="cn-north-4").identify("canary")


@pytest.mark.parametrize("project", ["cn-north-4", "p" * 32, ""])
async def test_a_project_is_named_by_name_or_id_or_not_at_all(iam, project):
    assert (await tokens_of(iam, project=project).identify("canary")).name == "iam:ann"


async def test_the_first_table_that_names_a_user_says_what_he_may_do(iam):
    users = (
        IamUsers(name="ci-*", routes=("shop",), scopes=frozenset({"upload"})),
        IamUsers(name="a*", routes=("other",), scopes=frozenset({"status"})),
    )
    caller = await tokens_of(iam, users=users).identify("canary")
    assert (caller.routes, caller.scopes) == (("other",), {"status"})

    iam.answer = iam.good(user="bob")
    with pytest.raises(Unauthenticated):
        await tokens_of(iam, users=users).identify("canary")


async def test_a_verdict_is_believed_for_five_minutes_also_while_iam_is_away(iam, clock):
    tokens = tokens_of(iam)
    await tokens.identify("canary")
    iam.answer = AWAY
    clock.advance(VALID_US - 1)
    await tokens.identify("canary")
    with pytest.raises(Unavailable):
        await tokens.identify("another")

    clock.advance(1)

    with pytest.raises(Unavailable):
        await tokens.identify("canary")
    assert iam.asked == ["canary", "another", "canary"]


async def test_a_verdict_is_not_believed_beyond_the_tokens_end(iam, clock):
    tokens = tokens_of(iam)
    iam.answer = iam.good(expires_at=clock.now() + 1000)
    await tokens.identify("canary")
    clock.advance(1000)
    with pytest.raises(Unauthenticated):
        await tokens.identify("canary")


@pytest.mark.parametrize("answer", [BAD, Rejected(status=404, message="No such token.")])
async def test_a_bad_token_is_refused_and_asked_about_once_a_minute(iam, clock, answer):
    iam.answer = answer
    tokens = tokens_of(iam)
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await tokens.identify("bad")
    assert iam.asked == ["bad"]

    clock.advance(INVALID_US)
    iam.answer = iam.good()
    assert (await tokens.identify("bad")).name == "iam:ann"


async def test_an_iam_that_cannot_say_makes_callers_come_again_when_it_says(iam):
    iam.answer = Throttled(message="Too many requests.", retry_after_seconds=17.0)
    with pytest.raises(Unavailable) as told:
        await tokens_of(iam).identify("canary")
    assert told.value.retry_after_seconds == 17


async def test_one_check_serves_all_who_wait_for_it_and_outlives_who_gives_up(iam):
    tokens = tokens_of(iam)
    iam.open.clear()
    waiting = [asyncio.create_task(tokens.identify("canary")) for _ in range(5)]
    await turns()
    waiting[0].cancel()
    iam.open.set()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert [caller.name for caller in ended[1:]] == ["iam:ann"] * 4
    assert iam.asked == ["canary"]


async def test_more_checks_than_iam_can_serve_wait_for_their_turn(iam, monkeypatch):
    monkeypatch.setattr(fair_queue, "MAX_CHECKS", 2)
    tokens = tokens_of(iam)
    iam.open.clear()
    waiting = [asyncio.create_task(tokens.identify(token)) for token in ("one", "two", "three")]
    await turns()
    assert iam.asked == ["one", "two"]
    iam.open.set()
    assert [caller.name for caller in await asyncio.gather(*waiting)] == ["iam:ann"] * 3


async def test_a_check_without_a_turn_in_time_is_not_begun(iam, monkeypatch):
    clock = LoopClock()
    monkeypatch.setattr(fair_queue, "MAX_CHECKS", 1)
    monkeypatch.setattr(iam_tokens, "CHECK_SECONDS", 10 * WAIT_SECONDS)
    tokens = tokens_of(iam)
    iam.open.clear()
    first = asyncio.create_task(tokens.identify("one"))
    await turns()
    second = asyncio.create_task(tokens.identify("two"))
    await clock.pass_until(second.done, 1.0)
    with pytest.raises(Unavailable):
        await second
    iam.open.set()
    assert (await first).name == "iam:ann"
    assert iam.asked == ["one"]


async def test_made_up_tokens_of_other_addresses_keep_good_new_ones_out_for_no_turn(iam):
    tokens = tokens_of(iam)
    iam.open.clear()
    iam.answers = lambda token: iam.good() if token.startswith("good") else BAD
    flood = [
        asyncio.create_task(tokens.identify(f"made-up-{number}", origin=f"192.0.2.{number % 3}"))
        for number in range(10 * MAX_CHECKS)
    ]
    await turns()
    honest = [asyncio.create_task(tokens.identify(f"good-{number}", origin="198.51.100.1")) for number in range(20)]
    await turns()
    iam.open.set()
    callers = await asyncio.gather(*honest)
    assert {caller.name for caller in callers} == {"iam:ann"}
    assert len(iam.asked) < 3 * MAX_CHECKS
    for ended in await asyncio.gather(*flood, return_exceptions=True):
        assert isinstance(ended, Unauthenticated)


async def test_made_up_tokens_of_the_same_address_let_good_ones_in_after_a_while(iam):
    tokens = tokens_of(iam)
    iam.answers = lambda token: iam.good() if token.startswith("good") else BAD
    names = [f"good-{number}" if number % 5 == 0 else f"made-up-{number}" for number in range(100)]
    ended = await asyncio.gather(*(tokens.identify(name, origin="192.0.2.1") for name in names), return_exceptions=True)
    assert [isinstance(result, Unauthenticated) for result in ended] == [name.startswith("made-up") for name in names]


async def test_a_check_whose_client_left_before_its_turn_is_not_begun(iam, monkeypatch):
    monkeypatch.setattr(fair_queue, "MAX_CHECKS", 1)
    tokens = tokens_of(iam)
    iam.open.clear()
    first = asyncio.create_task(tokens.identify("one"))
    await turns()
    left = asyncio.create_task(tokens.identify("two", is_gone=lambda: True))
    shared = [asyncio.create_task(tokens.identify("three", is_gone=lambda gone=gone: gone)) for gone in (True, False)]
    await turns()
    iam.open.set()
    await asyncio.gather(first, *shared)
    with pytest.raises(Unavailable):
        await left
    assert iam.asked == ["one", "three"]


async def test_bad_tokens_cannot_crowd_out_good_ones(iam, monkeypatch):
    monkeypatch.setattr(iam_tokens, "MAX_VERDICTS", 3)
    tokens = tokens_of(iam)
    await tokens.identify("canary")
    iam.answer = BAD
    for number in range(10):
        with pytest.raises(Unauthenticated):
            await tokens.identify(f"bad-{number}")
    assert (await tokens.identify("canary")).name == "iam:ann"


@pytest.mark.parametrize("token", ["x" * 100_001, "ü"])
async def test_what_cannot_be_a_token_is_not_shown_to_iam(iam, token):
    with pytest.raises(Unauthenticated):
        await tokens_of(iam).identify(token)
    assert iam.asked == []


@pytest.mark.parametrize("good", [True, False], ids=["valid", "invalid"])
async def test_a_clock_that_is_set_back_lengthens_no_verdict(iam, good):
    iam.answers = lambda _: iam.good(expires_at=iam.clock.now() + 100 * HOUR) if good else BAD
    tokens = tokens_of(iam)
    for _ in range(2):
        if good:
            await tokens.identify("canary")
        else:
            with pytest.raises(Unauthenticated):
                await tokens.identify("canary")
    assert len(iam.asked) == 1

    iam.clock.advance(-48 * HOUR)
    iam.clock.advance(VALID_US if good else INVALID_US)
    iam.answer, iam.answers = AWAY, lambda _: AWAY

    with pytest.raises(Unavailable):
        await tokens.identify("canary")
    assert len(iam.asked) == 2


async def test_a_verdict_outlasts_new_settings_and_what_its_user_may_do_does_not(iam):
    good = OrderedDict()
    before = IamTokens(
        iam.check, EVERYBODY, Tenant(domain="firm"), now=iam.clock.now, steady=iam.clock.steady, valid=good
    )
    await before.identify("canary")
    iam.answer = AWAY

    bound = (IamUsers(name="a*", routes=("shop",), scopes=frozenset({"status"})),)
    after = IamTokens(iam.check, bound, Tenant(domain="firm"), **clocks(iam), valid=good)
    caller = await after.identify("canary")
    assert (caller.routes, caller.scopes) == (("shop",), {"status"})

    for users, domain in ((bound, "other"), ((), "firm")):
        with pytest.raises(Unauthenticated):
            await IamTokens(
                iam.check, users, Tenant(domain=domain), now=iam.clock.now, steady=iam.clock.steady, valid=good
            ).identify("canary")
