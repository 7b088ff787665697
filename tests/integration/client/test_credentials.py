"""The bridge's credentials at CodeArts, against the sandbox; the test moves the clock of both."""

import asyncio
from dataclasses import replace

import pytest

from bridge.client.codearts import CodeArts
from bridge.client.credentials import (
    EXPIRED,
    MARGIN_US,
    RENEW_AGAIN_US,
    RETRY_REJECTED_US,
    SHARE_FAILURE_US,
    AccessKeySigner,
    PasswordLogin,
    StaticHeaders,
)
from bridge.client.iam import IAM_HEADER_BYTES, Iam
from bridge.domain.outcomes import BuildInfo, CredentialsRejected, NotSent, OutcomeUnknown, Throttled
from bridge.protocols.aksk_signing import AccessKeyPair
from bridge.protocols.iam import Login, ValidToken
from bridge.sandbox.sandbox import DEFAULT_KEY, DEFAULT_USER, Sandbox
from tests.support.fake_clock import FakeClock

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
DAY_US = 86_400 * 1_000_000
CONCURRENT = 20


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def sandbox(clock):
    async with Sandbox(now=lambda: clock.now() / 1_000_000) as sandbox:
        sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
        sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
        yield sandbox


@pytest.fixture
async def iam(sandbox, new_session, clock):
    return Iam(new_session("iam", header_bytes=IAM_HEADER_BYTES, clock=clock.now), sandbox.iam_url)


@pytest.fixture
async def as_user(sandbox, new_session, iam, clock):
    def make(password=DEFAULT_USER[1]):
        login = Login(user=DEFAULT_USER[0], password=password, domain=DEFAULT_USER[2], project="cn-north-4")
        return CodeArts(new_session("codearts"), sandbox.codearts_url, PasswordLogin(iam, login, clock.now))

    return make


@pytest.fixture
async def with_key(sandbox, new_session, clock):
    def make(secret_key=DEFAULT_KEY[1], project=""):
        key = AccessKeyPair(access_key=DEFAULT_KEY[0], secret_key=secret_key)
        return CodeArts(new_session("codearts"), sandbox.codearts_url, AccessKeySigner(key, project, clock.now))

    return make


def calls(sandbox, where):
    return len(sandbox.state.calls.at(where))


async def ask(codearts):
    return await codearts.build_info(JOB, 1)


async def ask_at_once(codearts):
    return await asyncio.gather(*(ask(codearts) for _ in range(CONCURRENT)))


async def test_with_a_password_all_calls_share_one_token(sandbox, as_user):
    outcomes = await ask_at_once(as_user())
    assert {type(outcome) for outcome in outcomes} == {BuildInfo}
    assert calls(sandbox, "iam.log_in") == 1


async def test_a_token_is_renewed_before_its_end(sandbox, as_user, clock):
    codearts = as_user()
    await ask(codearts)
    clock.advance(DAY_US - MARGIN_US - 1_000_000)
    await ask(codearts)
    assert calls(sandbox, "iam.log_in") == 1
    clock.advance(1_000_000)
    outcomes = await ask_at_once(codearts)
    assert {type(outcome) for outcome in outcomes} == {BuildInfo}
    assert calls(sandbox, "iam.log_in") == 2
    assert calls(sandbox, "codearts.build_info") == 2 + CONCURRENT  # none was refused


async def test_a_token_that_is_renewed_early_serves_on_while_iam_is_away(sandbox, as_user, clock):
    codearts = as_user()
    await ask(codearts)
    clock.advance(DAY_US - MARGIN_US)
    sandbox.state.faults.at_random("iam.log_in", rate=1, answer={"status": 503}, seed=1)
    assert isinstance(await ask(codearts), BuildInfo)
    clock.advance(MARGIN_US)
    assert isinstance(await ask(codearts), OutcomeUnknown)
    sandbox.state.faults.clear()
    clock.advance(SHARE_FAILURE_US)
    assert isinstance(await ask(codearts), BuildInfo)


async def test_a_token_that_ends_in_the_middle_is_renewed_once_for_all(sandbox, as_user):
    codearts = as_user()
    await ask(codearts)
    sandbox.state.accounts.end_tokens(at=sandbox.state.micros())
    outcomes = await ask_at_once(codearts)
    assert {type(outcome) for outcome in outcomes} == {BuildInfo}
    assert calls(sandbox, "iam.log_in") == 2


async def test_tokens_that_are_rejected_again_and_again_are_not_renewed_each_time(sandbox, as_user, clock):
    codearts = as_user()
    refused = {"status": 401, "body": {"error_code": "APIGW.0301", "error_msg": "decrypt token fail"}}
    sandbox.state.faults.at_random("codearts.build_info", rate=1, answer=refused, seed=1)
    for _ in range(10):
        assert isinstance(await ask(codearts), CredentialsRejected)
    assert calls(sandbox, "iam.log_in") == 2
    clock.advance(RETRY_REJECTED_US)
    await ask(codearts)
    assert calls(sandbox, "iam.log_in") == 3


async def test_one_path_that_rejects_every_token_does_not_make_the_others_renew(sandbox, as_user, clock):
    codearts = as_user()
    refused = {"status": 401, "body": {"error_code": "APIGW.0301", "error_msg": "decrypt token fail"}}
    sandbox.state.faults.at_random("codearts.record_info", rate=1, answer=refused, seed=1)
    for _ in range(10):
        assert isinstance(await ask(codearts), BuildInfo)
        assert isinstance(await codearts.record_info(JOB, 1), CredentialsRejected)
    assert calls(sandbox, "iam.log_in") == 2
    clock.advance(RENEW_AGAIN_US)
    await codearts.record_info(JOB, 1)
    assert calls(sandbox, "iam.log_in") == 3


async def test_a_wrong_password_is_probed_and_never_locks_the_user(sandbox, as_user, clock):
    codearts = as_user("mistaken")
    for _ in range(12):  # an hour
        outcomes = await ask_at_once(codearts)
        assert {outcome.message for outcome in outcomes} == {"The username or password is wrong."}
        assert {type(outcome) for outcome in outcomes} == {CredentialsRejected}
        clock.advance(RETRY_REJECTED_US)
    assert calls(sandbox, "iam.log_in") == 12
    assert calls(sandbox, "codearts.*") == 0


@pytest.mark.parametrize("kind", ["user", "key"])
async def test_what_a_clock_that_was_ahead_held_is_tried_once_it_is_set_back(sandbox, as_user, with_key, clock, kind):
    codearts = as_user() if kind == "user" else with_key()
    sandbox.state.faults.at_random("*", rate=1, answer={"status": 503}, seed=1)
    assert not isinstance(await ask(codearts), BuildInfo)
    sandbox.state.faults.clear()
    clock.advance(-DAY_US)
    sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
    assert isinstance(await ask(codearts), BuildInfo)


async def test_a_password_that_is_repaired_at_iam_is_found_by_the_next_probe(sandbox, as_user, clock):
    codearts = as_user("corrected")
    assert isinstance(await ask(codearts), CredentialsRejected)
    sandbox.state.accounts.add_user(DEFAULT_USER[0], "corrected", DEFAULT_USER[2])
    assert isinstance(await ask(codearts), CredentialsRejected)
    clock.advance(RETRY_REJECTED_US)
    assert isinstance(await ask(codearts), BuildInfo)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": 503}, OutcomeUnknown),
        ({"status": 429}, Throttled),
        ({"cut": True}, OutcomeUnknown),
        ({"garbled": True}, OutcomeUnknown),
    ],
)
async def test_an_iam_that_is_away_is_no_rejection_and_is_asked_by_one(sandbox, as_user, clock, answer, kind):
    codearts = as_user()
    sandbox.state.faults.at_random("iam.log_in", rate=1, answer=answer, seed=1)
    outcomes = await ask_at_once(codearts)
    assert {type(outcome) for outcome in outcomes} == {kind}
    assert calls(sandbox, "iam.log_in") == 1
    sandbox.state.faults.clear()
    clock.advance(SHARE_FAILURE_US)
    assert isinstance(await ask(codearts), BuildInfo)


async def test_an_iam_whose_tokens_have_ended_already_is_asked_by_one(sandbox, as_user):
    sandbox.state.behavior = replace(sandbox.state.behavior, token_seconds=0)
    outcomes = await ask_at_once(as_user())
    assert {outcome.message for outcome in outcomes} == {EXPIRED}
    assert calls(sandbox, "iam.log_in") == 1


async def test_who_gives_up_waiting_for_a_token_does_not_take_it_from_the_others(sandbox, as_user):
    codearts = as_user()
    sandbox.state.faults.script("iam.log_in", {"hang": True})
    first = asyncio.create_task(ask(codearts))
    second = asyncio.create_task(ask(codearts))
    await sandbox.state.calls.wait_for("iam.log_in")
    first.cancel()
    assert isinstance(await second, BuildInfo)


async def test_a_key_signs_each_call_and_names_the_project_by_its_id(sandbox, with_key):
    project = "0e7e5c1b6f800f2a2f4dc0098e5b7d5f"
    outcomes = await ask_at_once(with_key(project=project))
    assert {type(outcome) for outcome in outcomes} == {BuildInfo}
    (call, *_) = sandbox.state.calls.at("codearts.build_info")
    assert call.headers["X-Project-Id"] == project


async def test_a_project_by_name_is_not_sent_as_an_id(sandbox, with_key):
    assert isinstance(await ask(with_key(project="cn-north-4")), BuildInfo)
    (call,) = sandbox.state.calls.at("codearts.build_info")
    assert "X-Project-Id" not in call.headers


async def test_a_wrong_key_is_probed_and_never_locked(sandbox, with_key, clock):
    codearts = with_key("wrong")
    for _ in range(12):  # an hour
        outcomes = await ask_at_once(codearts)
        assert {type(outcome) for outcome in outcomes} == {CredentialsRejected}
        assert all("verify aksk signature fail" in outcome.message for outcome in outcomes)
        clock.advance(RETRY_REJECTED_US)
    assert calls(sandbox, "codearts.build_info") == 12


async def test_a_key_that_is_repaired_serves_again_after_the_next_probe(sandbox, with_key, clock):
    codearts = with_key("corrected")
    assert isinstance(await ask(codearts), CredentialsRejected)
    sandbox.state.accounts.add_key(DEFAULT_KEY[0], "corrected")
    clock.advance(RETRY_REJECTED_US)
    outcomes = await ask_at_once(codearts)
    assert {type(outcome) for outcome in outcomes} == {BuildInfo}


async def test_a_key_that_was_taken_and_is_rejected_later_is_held_at_once(sandbox, with_key):
    codearts = with_key()
    await ask(codearts)
    sandbox.state.accounts.forget_key(DEFAULT_KEY[0])
    for _ in range(5):
        assert isinstance(await ask(codearts), CredentialsRejected)
    assert calls(sandbox, "codearts.build_info") == 2


async def test_a_key_that_no_one_could_judge_is_tried_by_one_of_those_who_wait(sandbox, with_key, clock):
    codearts = with_key()
    sandbox.state.faults.script("codearts.build_info", {"status": 503})
    outcomes = await ask_at_once(codearts)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NotSent"] * (CONCURRENT - 1) + ["OutcomeUnknown"]
    clock.advance(SHARE_FAILURE_US)
    assert isinstance(await ask(codearts), BuildInfo)


async def test_a_fixed_token_is_sent_as_it_is(sandbox, new_session, iam):
    token = await iam.log_in(Login(user="sandbox", password=DEFAULT_USER[1], domain="sandbox", project="cn-north-4"))
    codearts = CodeArts(new_session("codearts"), sandbox.codearts_url, StaticHeaders((("X-Auth-Token", token.token),)))
    assert isinstance(await ask(codearts), BuildInfo)
    assert isinstance(
        await ask(CodeArts(new_session("codearts"), sandbox.codearts_url, StaticHeaders())), CredentialsRejected
    )


async def test_a_token_is_shown_to_be_good_until_it_ends(sandbox, iam):
    login = Login(user="sandbox", password=DEFAULT_USER[1], domain="sandbox", project="cn-north-4")
    token = await iam.log_in(login)
    verdict = await iam.validate(token.token, requester=token.token)
    assert isinstance(verdict, ValidToken)
    assert (verdict.user, verdict.domain) == ("sandbox", "sandbox")
    assert abs(verdict.expires_at - token.expires_at) <= 1_000_000  # the Date of an answer has seconds only
    sandbox.state.accounts.end_tokens(at=sandbox.state.micros())
    assert isinstance(await iam.validate(token.token, requester=token.token), CredentialsRejected)


async def test_an_iam_that_no_one_reaches_was_not_asked(new_session, closed_port):
    iam = Iam(new_session("iam"), f"http://127.0.0.1:{closed_port}")
    login = Login(user="u", password="pw-canary", domain="d", project="p")
    outcome = await iam.log_in(login)
    assert isinstance(outcome, NotSent)
    assert "canary" not in outcome.message
