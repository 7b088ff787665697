"""Reloads of a running gateway: what changes, and what does not."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from bridge.app.gateway import Gateway
from bridge.commands.serve import reload
from bridge.errors import SettingsError
from bridge.protocols import aksk_signing
from bridge.sandbox.sandbox import Sandbox
from bridge.settings import load
from tests.support.ports import REFUSED_URL
from tests.support.whole import JUNIT, PATIENCE_SECONDS, SHOP, ground, until

JOB, OTHER_JOB = "a1" * 16, "b2" * 16
BOUNDARY = "b0undary"
WHERE = '[polling]\ngrace_period = "0s"\nidle_timeout = "0s"\n'
CI = '[[callers.tokens]]\nname = "ci"\ntoken = "{}"\nscopes = ["upload", "status", "proxy"]\nroutes = ["shop"]\n'
GONE = 'Its route "shop" is no longer in the settings. Put it back. Delivery then resumes automatically.'
NO_ROUTE = "No route takes this build. Add or correct a [[routes]] table that matches it."
AWAY = 'bridge_circuit_open_seconds{upstream="route:shop"}'
OLD, NEW = "canary-old-token", "canary-new-token"


class Stage:
    """A gateway, its settings file, and who talks to it."""

    def __init__(self, path, where, http):
        self.path, self.where, self.http = path, where, http
        self.running = None

    def write(self, tables):
        self.path.write_text(self.where + tables)

    def read(self):
        return load(self.path, {})

    async def reload(self, tables):
        self.write(tables)
        await reload(self.running, self.read)

    @property
    def upload_url(self):
        return f"{self.running.server_url}/v1/report/junit/report/upload?job_id={JOB}&build_no=1&node_id=n"

    async def upload(self, token=OLD):
        body = form(JUNIT)
        async with self.http.post(self.upload_url, data=body, headers=headers(token)) as answer:
            return answer.status

    async def get(self, path, token=OLD):
        async with self.http.get(self.running.server_url + path, headers={"X-Auth-Token": token}) as answer:
            return answer.status, await answer.text()

    async def operator(self, path, token=""):
        async with self.http.get(self.running.admin_url + path, headers={"X-Auth-Token": token}) as answer:
            return answer.status, await answer.text()

    async def build(self):
        _, text = await self.operator(f"/api/v1/builds?job_id={JOB}")
        return json.loads(text)["builds"][0]

    async def why(self):
        _, text = await self.operator(f"/api/v1/why?job_id={JOB}&build_no=1")
        return json.loads(text)["sentence"]

    async def figures(self, *beginnings):
        _, text = await self.operator("/metrics")
        return [line for line in text.splitlines() if line.startswith(beginnings)]


def form(content):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.xml"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def headers(token):
    return {"X-Auth-Token": token, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def staged(tmp_path, sandbox):
    @asynccontextmanager
    async def start(tables):
        where = ground(tmp_path, sandbox) + WHERE
        async with aiohttp.ClientSession() as http:
            stage = Stage(tmp_path / "bridge.toml", where, http)
            stage.write(tables)
            async with Gateway(stage.read()) as stage.running, asyncio.timeout(PATIENCE_SECONDS):
                yield stage

    return start


@pytest.fixture
async def stage(staged):
    async with staged(CI.format(OLD) + SHOP) as stage:
        yield stage


async def test_callers_change_at_once(stage):
    await stage.reload(CI.format(NEW) + SHOP)
    assert (await stage.upload(OLD), await stage.upload(NEW)) == (401, 200)
    assert sorted(await stage.figures("bridge_config_reloads_total")) == [
        'bridge_config_reloads_total{result="rejected"} 0.0',
        'bridge_config_reloads_total{result="success"} 1.0',
    ]


async def test_an_upload_that_is_under_way_ends_as_it_began(stage):
    body = form(JUNIT)
    begun, rest = asyncio.Event(), asyncio.Event()

    async def pieces():
        begun.set()  # the bridge has asked for the body
        yield body[:20]
        await rest.wait()
        yield body[20:]

    async def send():
        sent = {"data": pieces(), "headers": headers(OLD), "expect100": True}
        async with stage.http.post(stage.upload_url, **sent) as answer:
            return answer.status

    sending = asyncio.create_task(send())
    await begun.wait()
    await stage.reload(CI.format(NEW) + SHOP)
    rest.set()
    assert await sending == 200
    assert await stage.upload(OLD) == 401


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        (CI.format(NEW) + SHOP + "nonsense = 1\n", "routes[0].nonsense: is not a setting."),
        (CI.format(NEW), "routes: is missing."),
        (CI.format(NEW).replace("shop", "gone") + SHOP, "callers.tokens[0].routes[0]: is not the name of a route."),
        ("no TOML", "the line is neither a setting nor a heading."),
        ('[polling]\nmin_interval = "1h"\nmax_interval = "1s"\n' + CI.format(NEW) + SHOP, "polling"),
    ],
)
async def test_a_bad_file_changes_nothing_and_every_problem_is_logged(stage, capsys, tables, problem):
    await stage.reload(tables)
    assert (await stage.upload(OLD), await stage.upload(NEW)) == (200, 401)
    assert sorted(await stage.figures("bridge_config_reloads_total")) == [
        'bridge_config_reloads_total{result="rejected"} 1.0',
        'bridge_config_reloads_total{result="success"} 0.0',
    ]
    assert "settings_rejected" in capsys.readouterr().out
    with pytest.raises(SettingsError) as rejected:
        stage.read()
    assert any(problem in line for line in rejected.value.problems)


async def test_a_signature_serves_one_body_over_a_reload_too(staged):
    keys = '[callers]\nauth = ["aksk", "token"]\n[[callers.keys]]\nname = "sdk"\n'
    keys += 'access_key = "AK"\nsecret_key = "canary-sk"\n'
    async with staged(keys + CI.format(OLD) + SHOP) as stage:
        proof = signed(stage.upload_url)

        async def upload(content):
            async with stage.http.post(stage.upload_url, data=form(content), headers=proof) as answer:
                return answer.status

        assert await upload(JUNIT) == 200
        await stage.reload(keys + CI.format(NEW) + SHOP)
        assert [await upload(content) for content in (JUNIT.replace(b"a", b"b"), JUNIT)] == [401, 200]


def signed(url):
    """Return the headers that sign an upload and leave its body out."""
    target = URL(url)
    host = (("Host", f"{target.host}:{target.port}"),)
    raw = aksk_signing.RawRequest(method="POST", path=target.raw_path, query=target.raw_query_string, headers=host)
    proof = aksk_signing.sign(
        raw,
        aksk_signing.AccessKeyPair(access_key="AK", secret_key="canary-sk"),
        at=time.time_ns() // 1000,
        payload_sha256=aksk_signing.UNSIGNED_PAYLOAD,
    )
    return dict(proof) | {"Content-Type": headers("")["Content-Type"]}


async def test_limits_change(stage):
    stage.where = stage.where.replace("[server]", '[server]\nmax_report_size = "10 B"')
    await stage.reload(CI.format(OLD) + SHOP)
    assert await stage.upload() == 413


async def test_operators_tokens_change(stage):
    assert (await stage.operator("/metrics"))[0] == 200
    stage.where = stage.where.replace("[admin]", f'[admin]\ntoken = "{NEW}"')
    await stage.reload(CI.format(OLD) + SHOP)
    assert [(await stage.operator("/metrics", token))[0] for token in ("", OLD, NEW)] == [401, 401, 200]


async def test_the_proxy_goes_and_comes(stage, sandbox):
    path = f"/v1/job/{JOB}/1/build-info"
    tables = CI.format(OLD) + SHOP + f'[codearts]\nendpoint = "{sandbox.codearts_url}"\n'
    statuses = []
    for more in ("", "[proxy]\nenabled = false\n", '[proxy]\nmethods = ["HEAD"]\n', ""):
        sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
        await stage.reload(more + tables)
        statuses.append((await stage.get(path))[0])
    assert statuses == [200, 404, 403, 200]


async def test_a_route_that_is_gone_holds_what_is_owed_visibly_and_resumes_by_itself(staged, sandbox):
    async with staged(CI.format(OLD) + SHOP) as stage:
        away, there = stage.where.replace(sandbox.testnod_url, REFUSED_URL), stage.where
        stage.where = away
        await stage.reload(CI.format(OLD) + SHOP)
        assert await stage.upload() == 200
        await until(lambda: _build_is(stage, route="shop"))

        stage.where = there
        await stage.reload(CI.format(OLD).replace("shop", "other") + SHOP.replace("shop", "other"))

        async def shows_the_blocked_route():
            _, readyz = await stage.operator("/readyz")
            return (
                "is no longer in the settings" in await stage.why()
                and "route:shop" in {upstream["name"] for upstream in json.loads(readyz)["upstreams"]}
                and "bridge_builds_blocked 1.0" in await stage.figures("bridge_builds_blocked ")
                and not (await stage.figures(AWAY))[0].endswith(" 0.0")
            )

        await until(lambda: _build_is(stage, blocked_reason=GONE))
        await until(shows_the_blocked_route)
        assert not sandbox.state.runs.all()

        await stage.reload(CI.format(OLD) + SHOP)
        await until(lambda: _build_is(stage, blocked_reason=None, state="finalized"))
        assert len(sandbox.state.runs.all()) == 1


async def test_a_build_that_no_route_took_goes_out_once_one_does(staged):
    by_branch = SHOP + 'branch = "main"\n'
    async with staged(CI.format(OLD) + by_branch) as stage:
        assert await stage.upload() == 200
        await until(lambda: _build_is(stage, blocked_reason=NO_ROUTE))
        await stage.reload(CI.format(OLD) + SHOP)
        await until(lambda: _build_is(stage, blocked_reason=None, state="finalized"))


async def _build_is(stage, **wanted):
    build = await stage.build()
    return all(build[name] == value for name, value in wanted.items())


async def test_what_needs_a_restart_stays_and_the_rest_is_taken(stage, capsys):
    stage.where = stage.where.replace("/spool", "/elsewhere")
    await stage.reload(CI.format(NEW) + SHOP)
    assert await stage.upload(NEW) == 200
    assert stage.running.settings.store.spool.endswith("/spool")
    said = capsys.readouterr().out
    assert "restart_required" in said
    assert "store.spool" in said


async def test_the_audit_log_has_the_settings_that_a_reload_changed_and_no_secret(stage):
    await stage.reload(CI.format(NEW) + SHOP + "[delivery]\nconcurrency = 7\n")
    await stage.reload(CI.format(NEW) + SHOP + "[delivery]\nconcurrency = 7\n")  # changes nothing
    _, text = await stage.operator("/api/v1/audit")
    (entry,) = json.loads(text)["audit"]
    assert (entry["person"], entry["action"], entry["target"]) == ("gateway", "reload", "settings")
    assert "delivery.concurrency: 16 → 7" in entry["detail"]
    assert "callers.tokens.ci.token: changed" in entry["detail"]
    assert OLD not in text
    assert NEW not in text
