"""Notices of a whole gateway: from an upload, a breaker and a reload to a webhook."""

import asyncio

import aiohttp
import pytest
from sqlalchemy import func, select

from bridge.domain.instants import MINUTE, SECOND
from bridge.settings import load
from bridge.store.schema import notice_conditions, notice_events, notices
from tests.support.fake_clock import FakeClock
from tests.support.listener import running
from tests.support.upload_server import FORM, GOOD, JOB, NOT_XML, form
from tests.support.webhook_receiver import WebhookReceiver
from tests.support.whole import PATIENCE_SECONDS, let_pass_until

CI, API = "canary-ci-token", "canary-api-token"
TABLES = f"""
[[callers.tokens]]
name = "ci"
token = "{CI}"
routes = ["shop"]
[[callers.tokens]]
name = "api"
token = "{API}"
routes = ["api"]
[[routes]]
name = "shop"
project_token = "tok-shop"
job_id = "{JOB}"
[[routes]]
name = "api"
project_token = "tok-api"
"""


def target(receiver, **values):
    lines = "".join(f"{name} = {value!r}\n" for name, value in {"url": receiver.url, **values}.items())
    return f"[[notices]]\n{lines}"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def receiver(clock):
    async with WebhookReceiver(now=lambda: clock.now() / SECOND) as receiver:
        yield receiver


@pytest.fixture
async def other(clock):
    async with WebhookReceiver(now=lambda: clock.now() / SECOND) as other:
        yield other


async def upload(gateway, body, *, token=CI, build_no=1):
    url = f"{gateway.server_url}/v1/report/junit/report/upload?job_id={JOB}&build_no={build_no}&node_id=n"
    headers = {**FORM, "X-Auth-Token": token}
    async with aiohttp.ClientSession() as http, http.post(url, data=form(("a.xml", body)), headers=headers) as answer:
        return answer.status


async def comes(gateway, clock, receiver, *, every=SECOND):
    """Let time pass until the receiver has a notice."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await let_pass_until(gateway, clock, lambda: bool(receiver.received), every)


async def rows(gateway):
    tables = (notice_events, notices, notice_conditions)
    query = select(*(select(func.count()).select_from(table).scalar_subquery() for table in tables))
    return await gateway.database.read(lambda connection: tuple(connection.execute(query).one()))


async def test_a_rejected_upload_is_told_to_the_targets_of_its_route_only(tmp_path, clock, receiver, other):
    tables = TABLES + target(receiver, routes=["shop"]) + target(other, routes=["api"])
    async with running(tmp_path, tables, clock=clock) as gateway:
        assert await upload(gateway, NOT_XML) == 400
        await comes(gateway, clock, receiver)
        [notice] = receiver.received
        data = notice.content["data"]
        assert (data["event"], data["route"], data["count"]) == ("rejected_upload", "shop", 1)
        assert "a.xml" in data["events"][0]["text"]
        assert other.requests == 0
        assert (await rows(gateway))[0] == 0


async def test_strangers_cause_no_notice(tmp_path, clock, receiver):
    async with running(tmp_path, TABLES + target(receiver), clock=clock) as gateway:
        assert await upload(gateway, NOT_XML, token="canary-wrong-token") == 401
        assert await upload(gateway, NOT_XML, token=API) == 403
        await comes(gateway, clock, receiver)
        [notice] = receiver.received
        assert (notice.content["data"]["count"], notice.content["data"]["route"]) == (1, None)


async def test_a_testnod_that_is_away_for_long_is_told_and_uploads_are_accepted(tmp_path, clock, receiver):
    wanted = target(receiver, events=["upstream_away"])
    async with running(tmp_path, TABLES + wanted, clock=clock) as gateway:
        assert await upload(gateway, GOOD) == 200
        await comes(gateway, clock, receiver, every=15 * SECOND)
        [notice] = receiver.received
        assert "TestNod has been away for" in notice.content["data"]["events"][0]["text"]
        assert await upload(gateway, GOOD, build_no=2) == 200


async def test_a_reload_adds_and_removes_targets(tmp_path, clock, receiver):
    async with running(tmp_path, TABLES, clock=clock) as gateway:
        assert await upload(gateway, NOT_XML) == 400
        assert await rows(gateway) == (0, 0, 0)
        path = tmp_path / "bridge.toml"
        before = path.read_text(encoding="utf-8")
        path.write_text(before + target(receiver), encoding="utf-8")
        await gateway.apply_settings(load(path, {}))
        assert await upload(gateway, NOT_XML, build_no=2) == 400
        await comes(gateway, clock, receiver)
        assert receiver.received[0].content["data"]["events"][0]["build_no"] == 2
        path.write_text(before, encoding="utf-8")
        await gateway.apply_settings(load(path, {}))
        assert await upload(gateway, NOT_XML, build_no=3) == 400
        assert (await rows(gateway))[0] == 0


async def test_without_a_table_nothing_is_written_whatever_happens(tmp_path, clock):
    async with running(tmp_path, TABLES, clock=clock) as gateway:
        for number in range(3):
            assert await upload(gateway, NOT_XML, build_no=number + 1) == 400
        clock.advance(MINUTE)
        assert await upload(gateway, GOOD) == 200
        assert await rows(gateway) == (0, 0, 0)


async def test_the_address_of_the_console_comes_from_the_environment(tmp_path, clock, receiver, monkeypatch):
    monkeypatch.setenv("BRIDGE_ADMIN_URL", "https://bridge.example/")
    async with running(tmp_path, TABLES + target(receiver), clock=clock) as gateway:
        assert await upload(gateway, NOT_XML) == 400
        await comes(gateway, clock, receiver)
        [event] = receiver.received[0].content["data"]["events"]
        assert event["url"] == f"https://bridge.example/builds/{JOB}/1"
