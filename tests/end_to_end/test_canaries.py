"""Secrets in every setting, then every kind of fault: none is ever found where people or disks could keep it."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest
from pydantic import BaseModel, SecretStr

from bridge.sandbox.sandbox import Sandbox
from bridge.settings.model import Settings
from tests.faults.gateway import FaultyGateway
from tests.support.builds import UPLOAD_PATH, Build, Ci, Upload
from tests.support.canaries import ADMIN, CALLER, CANARIES, PROJECT, leaks, plant
from tests.support.processes import until
from tests.support.reckoning import all_processed
from tests.support.webhook_receiver import WebhookReceiver
from tests.support.writings import WRITINGS

STRANGER = "canary-stranger-token-c4d8"
HOOK = CANARIES["webhook.secret"]
HUGE = 300_000


def tells(secret: str, writing: str = "as it is") -> dict[str, Any]:
    """Return the failure of an upstream that repeats what it was sent, in one of WRITINGS."""
    said = f"cannot do that for {WRITINGS[writing](secret)}"
    return {"status": 500, "body": {"error_code": "X.1", "error_msg": said, "error_message": said}}


REFUSES = {"status": 403, "body": "<Error><Code>Denied</Code><Message>X-Amz-Signature=canary-echo</Message></Error>"}
ECHOED = (
    "percent, every byte",
    "HTML, hexadecimal entities",
    "base64",
    "JSON, ASCII escapes",
    "split by quotes",
    "hex",
)
SPOILT = ({"cut": True}, {"garbled": True}, {"status": 429, "headers": {"Retry-After": "0"}}, "pass")


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    key, secret = CANARIES["notices.url"], CANARIES["notices.secret"]
    async with WebhookReceiver(format="dingtalk", key=key, secret=secret) as receiver:
        yield receiver


@pytest.fixture
def canary_settings(
    settings: dict[str, Any], sandbox: Sandbox, receiver: WebhookReceiver, tmp_path: Path
) -> dict[str, Any]:
    data = tmp_path / "data"
    data.mkdir()
    settings["store"] |= {"url": f"sqlite:///{data}/bridge.db", "spool": f"{data}/spool"}
    plant(settings, sandbox.state)
    settings["notices"][0]["url"] = receiver.url
    return settings


@pytest.fixture
async def gateway(canary_settings: dict[str, Any], tmp_path: Path) -> AsyncIterator[FaultyGateway]:
    async with FaultyGateway(tmp_path / "gateway", canary_settings, bad_disk=True) as gateway:
        await gateway.start()
        yield gateway


def _secret_fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{path}.{name}".lstrip(".")
        for kind in _kinds(field.annotation):
            if kind is SecretStr:
                yield key
            elif isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _secret_fields(kind, key)


def _kinds(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _kinds(argument)


def test_every_secret_of_the_settings_has_its_canary() -> None:
    assert set(_secret_fields(Settings)) == CANARIES.keys()


def a_build(build_no: int) -> Build:
    files = tuple(
        (f"TEST-{size}.xml", f'<testsuite name="{build_no}"><!--{"x" * size}--></testsuite>'.encode())
        for size in (100, HUGE)
    )
    return Build(
        job_id="9" * 32,
        build_no=build_no,
        branch="main",
        commit="c" * 40,
        uploads=tuple(Upload(node_id="default", files=(file,)) for file in files),
        uploads_before_end=2,
        waits_for_finalize=False,
        pause_seconds=0,
    )


@pytest.mark.early
@pytest.mark.timeout(600)
async def test_no_secret_is_found_in_any_output_page_metric_answer_dump_or_spool(
    gateway: FaultyGateway, sandbox: Sandbox, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    world, found = sandbox.state, []
    world.faults.script("testnod.register", *[tells(PROJECT)] * 4)
    for call, secret in (("testnod.finalize", PROJECT), ("codearts.build_info", CANARIES["codearts.token"])):
        world.faults.script(call, *[tells(secret, writing) for writing in ECHOED])
    for place in ("register", "finalize", "upload_failed"):
        world.faults.script(f"testnod.{place}", tells(PROJECT), *SPOILT)
    for place in ("build_info", "record_info"):
        world.faults.script(f"codearts.{place}", tells(CANARIES["codearts.token"]), *SPOILT)
    world.faults.script("s3.put", REFUSES, {"cut": True}, "pass")
    found += await _strangers(gateway)
    async with Ci(world, lambda: gateway.server_url, token=CALLER) as ci:
        await ci.play(a_build(1))
        await until(lambda: _failing(gateway, "register:all"), "registers keep failing, and /readyz shows why")
        found += await _pages(gateway)
        await until(lambda: all_processed(world, a_build(1)), "the first build is finalized", seconds=90)
        found += await _pages(gateway)
        gateway.disk.fail("write", "commit", "space")
        found += await _strangers(gateway)
        found += await _pages(gateway)
        gateway.disk.fail()
        await until(gateway.ready, "the disk has room")
        world.faults.script("s3.put", {"hang": True})
        world.builds.start("9" * 32, 2, at=world.micros())
        await ci.send(a_build(2), a_build(2).uploads[1])
        await until(lambda: world.calls.at("s3.put")[-1].status is None, "a PUT hangs")
        await gateway.kill()
        await gateway.start()
        world.runs.close_project(PROJECT)
        await ci.play(a_build(3))
        found += await _pages(gateway)
        world.runs.open_project(PROJECT, "canary")
        world.builds.end("9" * 32, 2, at=world.micros())
        await until(lambda: all_processed(world, a_build(3)), "the last build is finalized", seconds=90)
    found += await _pages(gateway)
    await until(lambda: bool(receiver.received), "a notice tells of what was rejected or blocked")
    found += [notice.text for notice in receiver.received]
    assert await gateway.terminate() == 0

    dump, spool = _dump(tmp_path / "data" / "bridge.db"), _bytes_of(tmp_path / "data" / "spool")
    assert 'job_id is \\"[redacted]\\"' in gateway.stderr()  # the log would have told it
    texts = [gateway.stdout(), gateway.stderr(), dump, spool, *found]
    assert leaks(texts, STRANGER, "canary-echo") == []
    assert len(found) > 20


async def _strangers(gateway: FaultyGateway) -> list[str]:
    """Ask in every wrong way, and return all that is answered, headers included."""
    url = f"{gateway.server_url}{UPLOAD_PATH}?job_id={'9' * 32}&build_no=1"
    signed = f"SDK-HMAC-SHA256 Access={CANARIES['callers.keys.access_key']}, SignedHeaders=host, Signature={'0' * 64}"
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", url, {"headers": {"X-Auth-Token": STRANGER}}),
        ("POST", url, {"headers": {"Authorization": f"Bearer {STRANGER}"}}),
        ("POST", url, {"headers": {"Authorization": signed, "X-Sdk-Date": "20260101T000000Z"}}),
        ("POST", url, {"headers": {"X-Auth-Token": CALLER}, "data": b"no form"}),
        ("POST", f"{url}&token={CALLER}", {"headers": {"X-Auth-Token": CALLER}, "data": {"branch": "main"}}),
        ("GET", f"{gateway.server_url}/v1/elsewhere?token={CALLER}", {"headers": {"X-Auth-Token": CALLER}}),
        ("POST", f"{gateway.server_url}/hooks/codearts?job_id={'9' * 32}", {"headers": {"X-Bridge-Hook": STRANGER}}),
        ("POST", f"{gateway.server_url}/hooks/codearts?job_id={'9' * 32}", {"headers": {"X-Bridge-Hook": HOOK}}),
        ("GET", f"{gateway.admin_url}/api/v1/builds", {"headers": {"X-Auth-Token": STRANGER}}),
    ]
    # Variables mixed up: only the client that sent the token as the job gets it back in the answer.
    await _told("POST", url.replace("9" * 32, CALLER), headers={"X-Auth-Token": CALLER})
    return [await _told(method, where, **options) for method, where, options in asked]


async def _pages(gateway: FaultyGateway) -> list[str]:
    admin, build = gateway.admin_url, f"job_id={'9' * 32}&build_no=1"
    pages = ["/", "/livez", "/readyz", "/metrics", "/api/v1/builds", "/api/v1/builds/1", f"/api/v1/why?{build}"]
    shown = [await _told("GET", admin + page, headers={"X-Auth-Token": ADMIN}) for page in pages]
    own = f"{gateway.server_url}/bridge/v1/builds/{'9' * 32}/1"
    return [*shown, await _told("GET", own, headers={"X-Auth-Token": CALLER})]


async def _told(method: str, url: str, **options: Any) -> str:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
        http.request(method, url, **options) as answer,
    ):
        return f"{answer.status} {dict(answer.headers)} {await answer.text()}"


def _dump(ledger: Path) -> str:
    with closing(sqlite3.connect(ledger)) as connection:
        return "\n".join(connection.iterdump())


def _bytes_of(folder: Path) -> str:
    return "\n".join(path.read_bytes().decode("latin1") for path in folder.rglob("*") if path.is_file())


def _failing(gateway: FaultyGateway, gate: str) -> bool:
    return any(event["upstream"] == gate for event in gateway.events("upstream_failing"))
