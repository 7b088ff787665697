"""`bridge check-config --online` as a process, before the sandbox and servers that answer otherwise."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from bridge.sandbox.sandbox import DEFAULT_KEY, DEFAULT_USER, Sandbox
from tests.support.ports import REFUSED_URL
from tests.support.processes import toml
from tests.support.weed import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, new_prefix

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
PROJECT = "b4d3971c3988463b865f6f920846149e"
SECRET = "canary-of-the-settings-7c1d"


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


def settings(sandbox, folder, **tables):
    user, password, domain = DEFAULT_USER
    access_key, secret_key = DEFAULT_KEY
    kinds = {
        "none": {},
        "aksk": {"access_key": access_key, "secret_key": secret_key},
        "password": {"user": user, "password": password, "domain": domain, "project": "cn-north-4"},
    }
    auth = tables.pop("auth", "none")
    return {
        "server": {"host": "127.0.0.1", "port": 0},
        "admin": {"port": 0},
        "store": {"url": f"sqlite:///{folder}/bridge.db", "spool": f"{folder}/spool"},
        "testnod": {
            "base_url": sandbox.testnod_url,
            "storage_hosts": [urlsplit(sandbox.s3_url).hostname],
            "allow_private_storage": True,
        },
        "codearts": {
            "endpoint": sandbox.codearts_url,
            "check_endpoint": sandbox.check_url,
            "iam_endpoint": sandbox.iam_url,
            "auth": auth,
            **kinds[auth],
        },
        "callers": {"auth": "open"},
        "routes": [{"name": "shop", "project_token": sandbox.project_token}],
        **tables,
    }


async def check(folder, content, *options):
    """Return exit code, what was printed for a program, and stderr."""
    path = folder / "bridge.toml"
    path.write_text(toml(content))
    command = (sys.executable, "-m", "bridge", "check-config", "--online", *options, "--config", str(path))
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await running.communicate()
    assert SECRET not in (out + err).decode()
    return running.returncode, out.decode(), err.decode()


async def findings(folder, content):
    """Return exit code, and state and text by upstream and subject."""
    code, out, _ = await check(folder, content, "--json")
    found = json.loads(out)["online"]
    return code, {f"{one['upstream']} {one['subject']}".strip(): (one["state"], one) for one in found}


def states(found):
    return {name: state for name, (state, _) in found.items()}


@asynccontextmanager
async def server(*, status=200, body="", headers=None):
    """A server that answers everything alike."""

    async def handle(_request):
        return web.Response(status=status, text=body, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# -- what works --------------------------------------------------------------------------------------------------------


async def test_every_upstream_is_asked_and_a_line_tells_of_each(tmp_path, sandbox):
    code, out, _ = await check(tmp_path, settings(sandbox, tmp_path))
    lines = out.splitlines()
    assert code == 0
    assert lines[0].endswith("bridge.toml is valid: 1 route (shop), no warnings.")
    assert lines[1:] == [
        "works   TestNod, route shop: The project token is accepted.",
        "works   CodeArts Build: The credentials are accepted; it lists builds.",
        "works   CodeArts Check: The credentials are accepted.",
        "works   Clock: It differs by less than 30 seconds from that of CodeArts Build, CodeArts Check and TestNod.",
        "4 questions asked, all is well.",
    ]
    assert {call.where for call in sandbox.state.calls.at()} == {
        "testnod.finalize",
        "codearts.record_list",
        "check.refresh",
    }
    assert sandbox.state.runs.all(None) == []


@pytest.mark.parametrize("auth", ["aksk", "password"])
async def test_credentials_are_proven(tmp_path, sandbox, auth):
    sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
    code, found = await findings(tmp_path, settings(sandbox, tmp_path, auth=auth))
    assert code == 0
    assert states(found) == dict.fromkeys(found, "works")
    assert ("IAM" in found) == (auth == "password")
    assert len(sandbox.state.calls.at("iam.log_in")) == (auth == "password")


async def test_a_project_or_a_job_of_a_route_is_listed(tmp_path, sandbox):
    sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
    for glob, call in (({"project_id": PROJECT}, "job_list"), ({"job_id": JOB}, "record_list")):
        routes = [{"name": "shop", "project_token": sandbox.project_token, **glob}]
        _, found = await findings(tmp_path, settings(sandbox, tmp_path, routes=routes))
        assert found["CodeArts Build"][0] == "works"
        (asked,) = sandbox.state.calls.at(f"codearts.{call}")
        assert next(iter(glob.values())) in asked.path


async def test_routes_with_one_token_are_one_question(tmp_path, sandbox):
    token = sandbox.project_token
    routes = [{"name": name, "project_token": token, "job_id": f"{name}*"} for name in ("a", "b")]
    _, found = await findings(tmp_path, settings(sandbox, tmp_path, routes=routes))
    assert "TestNod route a, b" in found
    assert len(sandbox.state.calls.at("testnod.finalize")) == 1


async def test_iam_is_asked_if_callers_show_its_tokens(tmp_path, sandbox):
    codearts = {**settings(sandbox, tmp_path)["codearts"], "domain": "sandbox"}
    callers = {"auth": "iam"}
    _, found = await findings(tmp_path, settings(sandbox, tmp_path, codearts=codearts, callers=callers))
    assert found["IAM"][0] == "works"


async def test_a_probe_is_written_read_and_deleted_in_s3(tmp_path, sandbox, weed):
    prefix = new_prefix()
    s3 = {"endpoint_url": weed.url, "region": REGION, "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
    store = {"url": f"sqlite:///{tmp_path}/bridge.db", "spool": f"s3://{BUCKET}/{prefix}spool"}
    store["archive"] = f"s3://{BUCKET}-of-nobody/{prefix}archive"
    code, found = await findings(tmp_path, settings(sandbox, tmp_path, s3=s3, store=store))
    assert code == 1
    assert found["S3 store.spool"][0] == "works"
    assert found["S3 store.archive"][0] == "failed"
    assert "takes no object" in found["S3 store.archive"][1]["text"]


async def test_a_ledger_in_postgresql_is_asked(tmp_path, sandbox, postgres):
    async with postgres.new_url() as url:
        store = {"url": url, "spool": f"{tmp_path}/spool"}
        code, found = await findings(tmp_path, settings(sandbox, tmp_path, store=store))
    assert (code, found["PostgreSQL store.url"][0]) == (0, "works")


# -- what does not -----------------------------------------------------------------------------------------------------


async def test_wrong_secrets_are_named_with_their_setting_and_never_shown(tmp_path, sandbox):
    sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
    codearts = {**settings(sandbox, tmp_path, auth="password")["codearts"], "password": SECRET}
    routes = [{"name": "shop", "project_token": SECRET}]
    code, out, _ = await check(tmp_path, settings(sandbox, tmp_path, codearts=codearts, routes=routes))
    lines = out.splitlines()
    assert code == 1
    assert lines[1].startswith("failed  TestNod, route shop: The project token is rejected: ")
    assert lines[1].endswith("Copy the token of the project in TestNod to project_token.")
    assert lines[2].startswith("failed  IAM: The login is rejected: ")
    assert "Check codearts.user, password, domain and project." in lines[2]
    assert lines[-1] == "3 questions asked: 2 failed, 0 warnings."
    assert len(sandbox.state.calls.at("iam.log_in")) == 1  # five failures lock a user
    assert sandbox.state.calls.at("codearts.*") == []


async def test_a_wrong_key_is_tried_once(tmp_path, sandbox):
    sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
    codearts = {**settings(sandbox, tmp_path, auth="aksk")["codearts"], "secret_key": SECRET}
    code, found = await findings(tmp_path, settings(sandbox, tmp_path, codearts=codearts))
    assert code == 1
    assert [found[name][0] for name in ("CodeArts Build", "CodeArts Check")] == ["failed", "failed"]
    assert "codearts.auth" in found["CodeArts Build"][1]["remedy"]
    assert len(sandbox.state.calls.at("c*")) == 1


async def test_a_refused_list_is_a_warning_and_a_limit_too(tmp_path, sandbox):
    refused = {"status": 403, "body": {"error_code": "CB.00060403", "error_msg": "no permission"}}
    for answer, text in ((refused, "no permission"), ({"status": 429}, "throttles")):
        sandbox.state.faults.script("codearts.record_list", answer)
        code, found = await findings(tmp_path, settings(sandbox, tmp_path))
        assert (code, found["CodeArts Build"][0]) == (0, "warning")
        assert text in found["CodeArts Build"][1]["text"]


async def test_addresses_where_nothing_or_something_else_answers_fail(tmp_path, sandbox):
    async with server(status=404, body="<html>Not found</html>") as other:
        codearts = {"endpoint": other, "check_endpoint": REFUSED_URL, "auth": "none"}
        tables = {"codearts": codearts, "testnod": {**settings(sandbox, tmp_path)["testnod"], "base_url": other}}
        code, found = await findings(tmp_path, settings(sandbox, tmp_path, **tables))
    assert code == 1
    assert states(found) == {
        "TestNod route shop": "failed",
        "CodeArts Build": "failed",
        "CodeArts Check": "failed",
        "Clock": "works",
    }
    assert found["TestNod route shop"][1]["remedy"] == "Check testnod.base_url."
    assert found["CodeArts Build"][1]["remedy"] == "Check codearts.endpoint."
    assert "firewall" in found["CodeArts Check"][1]["remedy"]


async def test_a_clock_that_differs_is_named_with_its_distance(tmp_path, sandbox):
    async with server(status=404, headers={"Date": "Tue, 01 Jan 2030 00:00:00 GMT"}) as ahead:
        testnod = {**settings(sandbox, tmp_path)["testnod"], "base_url": ahead}
        code, found = await findings(tmp_path, settings(sandbox, tmp_path, testnod=testnod))
    state, clock = found["Clock"]
    assert (code, state) == (1, "failed")
    assert clock["text"].endswith("behind that of TestNod.") or clock["text"].endswith("ahead of that of TestNod.")
    assert "NTP" in clock["remedy"]


async def test_an_upstream_that_repeats_a_secret_does_not_make_it_shown(tmp_path, sandbox):
    body = json.dumps({"error_message": f"bad token {SECRET} !"})
    async with server(status=400, body=body) as echo:
        testnod = {**settings(sandbox, tmp_path)["testnod"], "base_url": echo}
        routes = [{"name": "shop", "project_token": SECRET}]
        code, found = await findings(tmp_path, settings(sandbox, tmp_path, testnod=testnod, routes=routes))
    assert (code, found["TestNod route shop"][0]) == (1, "failed")


async def test_settings_that_are_not_valid_are_not_tried(tmp_path, sandbox):
    code, out, err = await check(tmp_path, settings(sandbox, tmp_path, routes=[]))
    assert (code, out) == (1, "")
    assert "routes" in err
    assert sandbox.state.calls.at() == []
