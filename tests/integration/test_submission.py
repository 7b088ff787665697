"""A whole gateway that serves TestNod's submission API, beside the sandbox as TestNod and its storage."""

import asyncio
import base64
import gzip
import hashlib
import io
import json
import re
import sqlite3
import zipfile
from contextlib import asynccontextmanager, closing
from urllib.parse import urlsplit

import aiohttp
import pytest

from bridge.app.gateway import Gateway
from bridge.clock import SystemClock
from bridge.domain.submission import NEVER_UPLOADED
from bridge.sandbox.runs import State
from bridge.sandbox.sandbox import DEFAULT_PROJECT_TOKEN, Sandbox
from bridge.settings import load
from tests.support.whole import PATIENCE_SECONDS, POLLING, SHOP, ask, ground, until

TOKENS = """
[callers]
auth = "token"
[[callers.tokens]]
name = "any"
token = "token-any"
routes = ["shop", "web"]
[[callers.tokens]]
name = "web"
token = "token-web"
routes = ["web"]
[[callers.tokens]]
name = "reader"
token = "token-reader"
routes = ["shop"]
scopes = ["status"]
[[callers.tokens]]
name = "old"
token = "token-old"
routes = ["shop"]
expires_at = 2020-01-01T00:00:00Z
"""
WEB = '[[routes]]\nname = "web"\nproject_token = "token-of-web"\njob_id = "nothing*"\ntags = ["web-tests"]\n'
DELIVERY = '[delivery]\nretry_initial_delay = "100ms"\nretry_max_delay = "1s"\n'
GOOD = b'<testsuite name="s"><testcase classname="c" name="a"/></testsuite>'
OTHER = b'<testsuite name="s"><testcase classname="c" name="b"><failure/></testcase></testsuite>'


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        sandbox.state.runs.open_project("token-of-web", "web")
        yield sandbox


@asynccontextmanager
async def gateway(folder, sandbox, *, route="", server=""):
    """Run a gateway with the routes shop and web; `route` and `server` are further lines of the tables."""
    settings = ground(folder, sandbox).replace("[server]", f"[server]\n{server}")
    polling = POLLING.format(poll_after="0s", poll_every="1s")
    endpoint = f'[codearts]\nendpoint = "{sandbox.codearts_url}"\n'
    path = folder / "bridge.toml"
    tables = [settings, polling, endpoint, DELIVERY, TOKENS, SHOP, route, WEB]
    path.write_text("\n".join(tables))
    async with (
        Gateway(load(path, {}), clock=SystemClock()) as running,
        asyncio.timeout(PATIENCE_SECONDS),
        aiohttp.ClientSession() as http,
    ):
        yield Client(running, http)


@pytest.fixture
async def client(tmp_path, sandbox):
    async with gateway(tmp_path, sandbox) as client:
        yield client


class Client:
    """A client of the gateway's submission API."""

    def __init__(self, running, http):
        self.running = running
        self.http = http

    async def call(self, name, *, token=DEFAULT_PROJECT_TOKEN, **body):
        """Return status and JSON of one of the three calls."""
        headers = {} if token is None else {"Project-Token": token}
        url = f"{self.running.server_url}/integrations/test_runs/{name}"
        async with self.http.post(url, headers=headers, **body) as answer:
            return answer.status, await answer.json()

    async def register(self, build_id="ci-7", *, tags=("smoke",), token=DEFAULT_PROJECT_TOKEN, **metadata):
        metadata = {"build_id": build_id, "branch": "main", **metadata}
        document = {"tags": [{"value": tag} for tag in tags], "test_run": {"metadata": metadata}}
        status, registered = await self.call("upload", token=token, json=document)
        assert status == 201, registered
        return registered

    async def put(self, url, body=GOOD, *, method="PUT", headers=None):
        """Return status, text and headers of a PUT."""
        headers = {"Content-Type": "application/xml", **(headers or {})}
        async with self.http.request(method, url, data=body, headers=headers) as answer:
            return answer.status, await answer.text(), answer.headers

    async def stored(self, registered, body=GOOD):
        status, text, _ = await self.put(registered["presigned_url"], body)
        assert (status, text) == (200, "")

    async def finalize(self, build_id="ci-7", **options):
        return await self.call("finalize", data={"build_id": build_id}, **options)

    async def build(self, build_no="ci-7", route="shop"):
        (build,) = (await ask(self.running, f"builds?job_id={route}&build_no={build_no}"))["builds"]
        return build

    async def finalized(self, build_no="ci-7", route="shop"):
        async def is_finalized():
            return (await self.build(build_no, route))["state"] == "finalized"

        await until(is_finalized)
        return await self.build(build_no, route)


def error_of(text):
    """Return code and message of an error of S3."""
    code, message = (re.search(f"<{name}>(.*?)</{name}>", text)[1] for name in ("Code", "Message"))
    return code, message


# -- a whole build ---------------------------------------------------------------------------------------------------


async def test_several_uploads_become_one_run_with_what_the_first_one_stated(client, sandbox):
    first = await client.register(commit_sha="c0ffee", run_url="https://ci.test/7")
    second = await client.register(branch="other", tags=["late"])
    await client.stored(second, OTHER)
    await client.stored(first)
    assert await client.finalize() == (200, {"status": "processing"})

    build = await client.finalized()
    (run,) = sandbox.state.runs.all("ci-7")
    stated = {"build_id": "ci-7", "branch": "main", "commit_sha": "c0ffee", "run_url": "https://ci.test/7"}
    assert [upload.registered.metadata for upload in run.uploads] == [stated, stated]
    assert {upload.registered.tags for upload in run.uploads} == {("smoke",)}
    assert sorted(upload.sha256 for upload in run.uploads) == sorted(
        hashlib.sha256(body).hexdigest() for body in (GOOD, OTHER)
    )
    assert sum(report["tests"] for report in build["reports"]) == 2
    assert {report["caller"] for report in build["reports"]} == {"project:shop"}
    assert sandbox.state.calls.at("codearts.build_info") == []


async def test_the_answer_to_a_registration_is_that_of_the_page(client):
    registered = await client.register()
    assert list(registered) == [
        *("id", "project_id", "project", "test_run_id", "upload_id", "test_run_url", "presigned_url")
    ]
    assert all(isinstance(registered[name], int) for name in ("id", "test_run_id", "upload_id"))
    url = urlsplit(registered["presigned_url"])
    assert f"{url.scheme}://{url.netloc}" == client.running.server_url
    assert url.path == f"/bridge/v1/uploads/{registered['upload_id']}"
    assert "X-Amz-Expires=300" in url.query


async def test_testnods_uploader_sends_its_file_with_headers_of_s3_and_no_finalize(client, sandbox):
    body = b'{"tags":null,"test_run":{"metadata":{"branch":"","commit_sha":"","run_url":"","build_id":"b1"}}}'
    accept = {"Content-Type": "application/json", "Accept": "application/json", "Project-Token": DEFAULT_PROJECT_TOKEN}
    url = f"{client.running.server_url}/integrations/test_runs/upload"
    async with client.http.post(url, data=body, headers=accept) as answer:
        assert answer.status == 201
        registered = json.loads(await answer.read())
    metadata = {f"x-amz-meta-{name}": str(registered[name]) for name in ("project_id", "test_run_id", "upload_id")}
    status, text, headers = await client.put(registered["presigned_url"], headers=metadata)
    assert (status, text, headers["ETag"]) == (200, "", f'"{hashlib.md5(GOOD).hexdigest()}"')  # noqa: S324

    await until(lambda: [run.uploads[0].puts for run in sandbox.state.runs.all("b1")] == [1])
    (run,) = sandbox.state.runs.all("b1")
    assert run.uploads[0].registered.tags == ("Default",)
    assert run.finalize_calls == []
    assert (await client.build("b1"))["state"] == "open"


async def test_a_route_gives_its_tags_to_runs_without_any(client, sandbox):
    registered = await client.register("w1", tags=[], token="token-of-web")
    await client.stored(registered)
    await client.finalize("w1", token="token-web")

    await client.finalized("w1", route="web")
    (run,) = sandbox.state.runs.all("w1")
    assert (run.project.name, run.uploads[0].registered.tags) == ("web", ("web-tests",))


async def test_files_after_finalize_open_a_run_that_is_finalized_too(client, sandbox):
    await client.stored(await client.register())
    await client.finalize()
    await client.finalized()
    await client.stored(await client.register(), OTHER)

    async def both():
        runs = sandbox.state.runs.all("ci-7")
        return len(runs) == 2 and all(run.finalize_calls for run in runs)

    await until(both)
    build = await client.finalized()
    assert [run["build_id"] for run in build["testnod"]["runs"]] == ["ci-7", "ci-7"]


async def test_a_build_id_that_no_path_may_have_is_sent_as_it_is(client, sandbox):
    build_id = "feature/x#17 测试"
    await client.stored(await client.register(build_id))
    assert (await client.finalize(build_id))[0] == 200

    await until(lambda: any(run.finalize_calls for run in sandbox.state.runs.all(build_id)))
    (build,) = (await ask(client.running, "builds?route=shop"))["builds"]
    assert build["build_no"].startswith("feature-x-17~")
    assert build["testnod"]["build_id"] == build_id
    assert (await client.build(build["build_no"]))["id"] == build["id"]


# -- retries ---------------------------------------------------------------------------------------------------------


async def test_every_call_may_be_repeated(client, sandbox):
    registered = await client.register()
    for _ in range(3):
        await client.stored(registered)
    for _ in range(2):
        assert (await client.finalize())[0] == 200
    await client.finalized()

    (run,) = sandbox.state.runs.all("ci-7")
    assert [upload.puts for upload in run.uploads] == [1]
    status, answer = await client.finalize()
    assert status == 200
    assert answer["status"] in {"processing", "processed"}


async def test_another_file_at_the_same_url_is_refused_as_s3_refuses_to_overwrite(client):
    registered = await client.register()
    await client.stored(registered)
    status, text, _ = await client.put(registered["presigned_url"], OTHER)

    assert (status, error_of(text)[0]) == (412, "PreconditionFailed")
    assert [report["tests"] for report in (await client.build())["reports"]] == [1]


# -- files that do not come ------------------------------------------------------------------------------------------


async def test_another_file_that_began_to_arrive_first_is_refused_too(client):
    registered = await client.register()
    began, came = asyncio.Event(), asyncio.Event()

    async def slowly():
        yield OTHER[:10]
        began.set()
        await came.wait()
        yield OTHER[10:]

    url, headers = registered["presigned_url"], {"Content-Length": str(len(OTHER))}
    slow = asyncio.create_task(client.put(url, slowly(), headers=headers))
    await began.wait()
    await client.stored(registered)
    came.set()
    status, text, _ = await slow
    assert (status, error_of(text)[0]) == (412, "PreconditionFailed")
    assert [report["name"] for report in (await client.build())["reports"]] == ["upload-1.xml"]


async def test_an_archive_with_the_same_report_and_another_one_is_another_file(client):
    registered, packed = await client.register(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("same.xml", GOOD)
        archive.writestr("other.xml", OTHER)
    await client.stored(registered)
    status, text, _ = await client.put(registered["presigned_url"], packed.getvalue())
    assert (status, error_of(text)[0]) == (412, "PreconditionFailed")
    assert len((await client.build())["reports"]) == 1

    another = await client.register("ci-8")
    for _ in range(2):
        await client.stored(another, packed.getvalue())
    assert len((await client.build("ci-8"))["reports"]) == 2


async def test_of_two_files_that_end_to_arrive_at_once_one_is_stored(client):
    registered = await client.register()
    began, released = asyncio.Semaphore(0), asyncio.Event()

    async def until_released(body):
        yield body[:-1]
        began.release()
        await released.wait()
        yield body[-1:]

    def put(body):
        headers = {"Content-Length": str(len(body))}
        return asyncio.create_task(client.put(registered["presigned_url"], until_released(body), headers=headers))

    puts = [put(GOOD), put(OTHER)]
    for _ in puts:
        await began.acquire()
    released.set()
    assert sorted([(await each)[0] for each in puts]) == [200, 412]
    assert len((await client.build())["reports"]) == 1


async def test_a_put_that_failed_is_reported_to_testnod_and_the_run_goes_on(client, sandbox):
    lost, kept = await client.register(), await client.register()
    await client.stored(kept)
    ids = {"test_run_id": str(lost["test_run_id"]), "upload_id": str(lost["upload_id"])}
    failed = {**ids, "failure_message": "s3 PUT returned 502"}
    assert await client.call("upload_failed", data=failed) == (200, {"status": "failed"})
    assert await client.call("upload_failed", json={**lost, "failure_message": "again"}) == (200, {"status": "failed"})
    assert await client.finalize() == (200, {"status": "processing"})

    build = await client.finalized()
    (run,) = sandbox.state.runs.all("ci-7")
    assert sorted((upload.puts, upload.failure_message) for upload in run.uploads if upload.failed_at) == [
        (0, "s3 PUT returned 502")
    ]
    assert [upload.puts for upload in run.uploads if upload.failed_at is None] == [1]
    assert run.status_at(sandbox.state.micros()) in {State.PROCESSING, State.PROCESSED}
    states = [delivery["state"] for report in build["reports"] for delivery in report["deliveries"]]
    assert sorted(states) == ["dead", "delivered"]


async def test_a_file_that_came_has_not_failed(client):
    registered = await client.register()
    await client.stored(registered)
    failed = {"test_run_id": registered["test_run_id"], "upload_id": registered["upload_id"]}
    assert await client.call("upload_failed", json=failed) == (200, {"status": "processed"})


async def test_a_registration_whose_put_never_comes_is_reported_after_its_url_expired(client, sandbox, tmp_path):
    registered = await client.register()
    assert await client.finalize() == (200, {"status": "pending"})
    with closing(sqlite3.connect(tmp_path / "bridge.db", timeout=60)) as ledger, ledger:
        ledger.execute("UPDATE submissions SET expires_at = 0, given_up_at = 0")  # instead of six minutes
    status, text, _ = await client.put(registered["presigned_url"])
    assert (status, error_of(text)) == (403, ("AccessDenied", "Request has expired"))
    assert "<ServerTime>" in text

    await until(lambda: _uploads(sandbox) == [(0, NEVER_UPLOADED)])
    assert (await client.finalized())["reports"][0]["deliveries"][0]["state"] == "dead"


def _uploads(sandbox):
    return [(upload.puts, upload.failure_message) for run in sandbox.state.runs.all("ci-7") for upload in run.uploads]


# -- what is no report -----------------------------------------------------------------------------------------------


async def test_a_file_that_is_no_report_is_an_error_of_the_put_and_testnod_gets_the_reason(client, sandbox):
    registered = await client.register()
    for _ in range(2):
        status, text, _ = await client.put(registered["presigned_url"], b"<html><body>Sign in</body></html>")
        assert (status, error_of(text)[0]) == (400, "InvalidRequest")
        assert error_of(text)[1].startswith(f"upload-{registered['upload_id']}.xml: ")
    await client.finalize()

    build = await client.finalized()
    (rejection,) = build["rejections"]
    assert (rejection["name"], rejection["code"]) == (f"upload-{registered['upload_id']}.xml", "BRIDGE.REPORT")
    (run,) = sandbox.state.runs.all("ci-7")
    (upload,) = run.uploads
    assert (upload.puts, upload.failure_message[:20]) == (0, rejection["reason"][:20])


async def test_a_route_that_only_warns_answers_200_and_tells_testnod(tmp_path, sandbox):
    async with gateway(tmp_path, sandbox, route='on_invalid = "warn"') as client:
        await client.stored(await client.register(), b"no xml")
        await client.finalize()
        await client.finalized()
    assert [upload.failed_at is None for upload in sandbox.state.runs.all("ci-7")[0].uploads] == [False]


async def test_a_rejected_file_is_sent_from_the_quarantine(client, sandbox):
    truncated = b'<testsuite name="s"><testcase classname="c" name="a"/>'
    registered = await client.register()
    assert (await client.put(registered["presigned_url"], truncated))[0] == 400
    await client.finalize()
    (rejection,) = (await client.finalized())["rejections"]
    send = f"{client.running.admin_url}/api/v1/rejections/{rejection['id']}/send"
    async with client.http.post(send, json={"repair": True}) as answer:
        assert answer.status == 200, await answer.text()

    await until(lambda: [1] in [[u.puts for u in run.uploads] for run in sandbox.state.runs.all("ci-7")])
    assert (await client.finalized())["rejections"][0]["sent_at"] is not None


# -- the PUT as S3 answers it ----------------------------------------------------------------------------------------


async def test_urls_that_were_not_returned_are_forbidden(client):
    url = (await client.register())["presigned_url"]
    for wrong in (f"{url}x", url.partition("?")[0], url.replace("/1?", "/99?"), url.replace("/1?", "/x?")):
        status, text, headers = await client.put(wrong)
        assert (status, error_of(text)[0]) == (403, "SignatureDoesNotMatch")
        assert headers["Content-Type"].startswith("application/xml")
        assert headers["x-amz-request-id"]
    assert (await client.build())["reports"] == []


async def test_a_body_without_length_and_other_methods_are_refused(client):
    async def pieces():
        yield GOOD

    url = (await client.register())["presigned_url"]
    status, text, _ = await client.put(url, pieces())
    assert (status, error_of(text)[0]) == (411, "MissingContentLength")
    for method in ("GET", "POST", "DELETE"):
        status, text, headers = await client.put(url, method=method)
        assert (status, headers["Allow"], error_of(text)[0]) == (405, "PUT", "MethodNotAllowed")


async def test_damage_on_the_way_is_found_by_its_digest(client):
    registered = await client.register()
    right = base64.b64encode(hashlib.md5(GOOD).digest()).decode()  # noqa: S324
    status, text, _ = await client.put(registered["presigned_url"], OTHER, headers={"Content-MD5": right})
    assert (status, error_of(text)[0]) == (400, "BadDigest")
    assert (await client.put(registered["presigned_url"], headers={"Content-MD5": right}))[0] == 200


async def test_a_file_that_is_too_large_is_refused_by_its_length(tmp_path, sandbox):
    async with gateway(tmp_path, sandbox) as client:
        registered = await client.register()
        reader = {"Expect": "100-continue", "Content-Length": str(300 * 1024 * 1024)}
        parts = urlsplit(registered["presigned_url"])
        async with aiohttp.ClientSession() as http:
            status, text = await _head_only(http, parts, reader)
        assert (status, error_of(text)[0]) == (400, "EntityTooLarge")
        await client.finalize()
        await client.finalized()
    assert [upload.failed_at is None for upload in sandbox.state.runs.all("ci-7")[0].uploads] == [False]


async def _head_only(_http, parts, headers):
    """Return status and text of a PUT of which only the head is sent."""
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = [f"PUT {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}"]
    writer.write("\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(re.search(r"(?i)content-length: (\d+)", head)[1])
    text = (await reader.readexactly(length)).decode()
    writer.close()
    return int(head.split()[1]), text


async def test_a_compressed_file_is_unpacked_and_kept_as_received(client, sandbox):
    registered = await client.register()
    packed = gzip.compress(GOOD)
    status, _, headers = await client.put(registered["presigned_url"], packed, headers={"Content-Encoding": "gzip"})
    assert (status, headers["ETag"]) == (200, f'"{hashlib.md5(packed).hexdigest()}"')  # noqa: S324
    await until(lambda: _uploads(sandbox) == [(1, None)])
    assert sandbox.state.runs.all("ci-7")[0].uploads[0].sha256 == hashlib.sha256(GOOD).hexdigest()


# -- errors of the page ----------------------------------------------------------------------------------------------


async def test_a_token_of_no_project_is_404(client):
    data = {"test_run[metadata][build_id]": "7", "build_id": "7"}
    for call in ("upload", "finalize", "upload_failed"):
        for token in (None, "", "wrong", "token-reader", "token-old", "token-any x"):
            status, answer = await client.call(call, token=token, data=data)
            assert (status, answer["error_message"]) == (404, "Project not found.")


async def test_errors_of_registration_and_finalize_are_those_of_the_page(client):
    missing = await client.call("upload", data={"build_id": "7"})
    assert (missing[0], missing[1]["error_message"]) == (422, "metadata.build_id is required.")
    odd = await client.call("upload", json={"tags": "smoke", "test_run": {"metadata": {"build_id": "7"}}})
    assert (odd[0], odd[1]["error_message"]) == (422, "There was a problem creating this test run.")
    assert await client.call("finalize", data={}) == (422, {"error_message": "build_id is required."})
    unknown = {"error_message": "Test run not found for this build_id."}
    assert await client.finalize("never") == (404, unknown)
    failed = await client.call("upload_failed", data={"test_run_id": "1", "upload_id": "1"})
    assert (failed[0], failed[1]["error_message"]) == (404, "Upload not found.")


async def test_other_paths_and_methods_are_the_bridges_own_and_never_forwarded(client, sandbox):
    base = client.running.server_url
    for method, path, status in (
        ("POST", "/integrations/test_run/upload", 404),
        ("GET", "/integrations/test_runs/upload", 405),
        ("PUT", "/bridge/v1/uploads", 404),
    ):
        async with client.http.request(method, f"{base}{path}", headers={"Project-Token": "secret"}) as answer:
            assert answer.status == status
    assert sandbox.state.calls.at("codearts.unknown") == []


# -- callers stay in their routes ------------------------------------------------------------------------------------


async def test_a_caller_reaches_only_builds_of_its_routes(client):
    registered = await client.register()
    ids = {"test_run_id": registered["test_run_id"], "upload_id": registered["upload_id"]}

    assert (await client.finalize(token="token-web"))[0] == 404
    assert (await client.call("upload_failed", token="token-web", json=ids))[0] == 404
    own = await client.register(token="token-web")
    assert own["test_run_id"] != registered["test_run_id"]
    assert own["project_id"] != registered["project_id"]
    assert (await client.build(route="web"))["route"] == "web"
    assert (await client.call("upload_failed", token="token-any", json=ids)) == (200, {"status": "failed"})


async def test_a_token_for_all_routes_goes_to_the_one_that_takes_builds_without_a_job(client):
    await client.register("x", token="token-any")
    assert (await client.build("x"))["route"] == "shop"


async def test_the_status_of_a_build_is_shown_to_its_callers(client):
    registered = await client.register()
    async with client.http.get(registered["test_run_url"], headers={"X-Auth-Token": "token-reader"}) as answer:
        build = await answer.json()
    assert (answer.status, build["job_id"], build["build_no"], build["route"]) == (200, "shop", "ci-7", "shop")


# -- what people see -------------------------------------------------------------------------------------------------


async def test_why_and_the_console_show_such_a_build(client):
    registered = await client.register()
    answer = await ask(client.running, "why?job_id=shop&build_no=ci-7")
    assert answer["sentence"].startswith("Build ci-7 of route shop has no report yet: ")
    await client.stored(registered)

    async def waits():
        sentence = (await ask(client.running, "why?job_id=shop&build_no=ci-7"))["sentence"]
        return "when CI calls finalize for its build_id" in sentence

    await until(waits)
    async with client.http.get(f"{client.running.admin_url}/builds/shop/ci-7") as page:
        text = await page.text()
    assert page.status == 200
    assert "ci-7" in text
    async with client.http.get(f"{client.running.admin_url}/builds") as page:
        assert 'href="/builds/shop/ci-7"' in await page.text()


async def test_the_url_is_in_no_answer_but_the_registrations(client, tmp_path):
    registered = await client.register()
    secret = registered["presigned_url"].rpartition("=")[2]
    await client.stored(registered)
    await client.finalize()
    await client.finalized()
    assert secret not in json.dumps(await ask(client.running, "builds"))
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_url_is_the_one_outside_if_a_trusted_proxy_says_so(tmp_path, sandbox, trusted):
    async with gateway(tmp_path, sandbox, server=f"trusted_proxies = {['127.0.0.1'] if trusted else []}") as client:
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "ci.example.com", "Project-Token": "token-web"}
        url = f"{client.running.server_url}/integrations/test_runs/upload"
        async with client.http.post(url, data={"test_run[metadata][build_id]": "7"}, headers=headers) as answer:
            presigned = (await answer.json())["presigned_url"]
    outside = "https://ci.example.com" if trusted else client.running.server_url
    assert presigned.startswith(f"{outside}/bridge/v1/uploads/1?")


async def test_a_host_that_is_none_gets_no_url(client):
    url = f"{client.running.server_url}/integrations/test_runs/upload"
    headers = {"Host": 'a"b', "Project-Token": "token-web"}
    async with client.http.post(url, data={"test_run[metadata][build_id]": "7"}, headers=headers) as answer:
        assert answer.status == 400
