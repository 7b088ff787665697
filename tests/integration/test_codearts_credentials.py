"""A whole gateway beside the sandbox: each way to authenticate at CodeArts, and the outbound proxy."""

from contextlib import asynccontextmanager

import pytest

from bridge.sandbox.sandbox import DEFAULT_KEY, DEFAULT_USER, Sandbox
from tests.support.forward_proxy import ForwardProxy
from tests.support.whole import JOB, running_gateway, until, upload, why

PASSWORD = 'auth = "password"\niam_endpoint = "{iam}"\nproject = "cn-north-4"\nuser = "{user}"\ndomain = "{domain}"\n'
RIGHT = PASSWORD + 'password = "{password}"\n'
AKSK = 'auth = "aksk"\naccess_key = "{key}"\nsecret_key = "{secret}"\n'
TOKEN = 'auth = "token"\ntoken = "known"\n'


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
        sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
        yield sandbox


@asynccontextmanager
async def gateway(folder, sandbox, codearts, *tables):
    user, password, domain = DEFAULT_USER
    who = {"iam": sandbox.iam_url, "user": user, "password": password, "domain": domain}
    who |= {"key": DEFAULT_KEY[0], "secret": DEFAULT_KEY[1]}
    codearts = f'[codearts]\nendpoint = "{sandbox.codearts_url}"\n' + codearts.format(**who)
    async with running_gateway(folder, sandbox, codearts, *tables) as running:
        yield running


def end_build(sandbox):
    sandbox.state.builds.end(JOB, 1, at=sandbox.state.micros())


async def told(running, build_no, reason):
    """Return what is said of a build as soon as it names the reason."""

    async def is_told():
        return reason in await why(running, build_no)

    await until(is_told)
    return await why(running, build_no)


def called(sandbox, where):
    return len(sandbox.state.calls.at(where))


@pytest.mark.parametrize(
    "codearts", [RIGHT, AKSK, 'auth = "token"\ntoken = "known"\n'], ids=["password", "aksk", "token"]
)
async def test_a_build_is_described_polled_and_finalized_with_each_kind_of_credentials(sandbox, tmp_path, codearts):
    sandbox.state.behavior = sandbox.state.behavior.changed({"codearts_tokens": ["known"]})
    async with gateway(tmp_path, sandbox, codearts) as running:
        await upload(running)
        await sandbox.state.calls.wait_for("codearts.build_info")
        end_build(sandbox)
        await sandbox.state.calls.wait_for("testnod.finalize")
    (run,) = sandbox.state.runs.all(None)
    assert run.uploads[0].registered.metadata["branch"] == "main"
    # A call may still be unanswered when the gateway stops.
    assert {call.status for call in sandbox.state.calls.at("codearts.*")} <= {200, None}


async def test_a_token_that_ends_between_two_calls_is_renewed_after_one_401(sandbox, tmp_path):
    async with gateway(tmp_path, sandbox, RIGHT) as running:
        await upload(running)
        await sandbox.state.calls.wait_for("codearts.build_info")
        sandbox.state.accounts.end_tokens(at=sandbox.state.micros())
        end_build(sandbox)
        await sandbox.state.calls.wait_for("testnod.finalize")
    assert called(sandbox, "iam.log_in") == 2
    assert [call.status for call in sandbox.state.calls.at("codearts.*")].count(401) == 1


@pytest.mark.parametrize(
    ("codearts", "where", "reason"),
    [
        (PASSWORD + 'password = "wrong-canary"\n', "iam.log_in", "The username or password is wrong"),
        (AKSK.replace("{secret}", "wrong-canary"), "codearts.*", "verify aksk signature fail"),
    ],
    ids=["password", "aksk"],
)
async def test_wrong_credentials_are_tried_once_and_then_held(sandbox, tmp_path, codearts, where, reason):
    for build_no in range(1, 11):
        sandbox.state.builds.start(JOB, build_no, at=sandbox.state.micros())
    async with gateway(tmp_path, sandbox, codearts) as running:
        for build_no in range(1, 11):
            await upload(running, build_no)
        for build_no in range(1, 11):
            sentence = await told(running, build_no, reason)
            assert "wrong-canary" not in sentence
    assert called(sandbox, where) == 1


async def test_every_call_leaves_by_the_proxy_but_those_that_are_exempt(sandbox, tmp_path):
    async with ForwardProxy(login="user:pw") as proxy:
        iam_port = sandbox.iam_url.rpartition(":")[2]
        client = (
            f'[outbound]\nhttp_proxy = "http://user:pw@127.0.0.1:{proxy.port}"\nno_proxy = "127.0.0.1:{iam_port}"\n'
        )
        async with gateway(tmp_path, sandbox, RIGHT, client) as running:
            await upload(running)
            await sandbox.state.calls.wait_for("codearts.build_info")
            end_build(sandbox)
            await sandbox.state.calls.wait_for("testnod.finalize")
    reached = {target.rpartition("127.0.0.1:")[2].partition("/")[0] for _, target in proxy.asked}
    ports = {url.rpartition(":")[2] for url in (sandbox.codearts_url, sandbox.testnod_url, sandbox.s3_url)}
    assert reached == ports
    assert called(sandbox, "iam.log_in") == 1
