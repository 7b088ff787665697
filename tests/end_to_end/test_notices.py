"""A storm of events, and a gateway that is killed in it: few notices, and their sums add up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.app.notices import to_notice_sinks
from bridge.clock import SystemClock
from bridge.domain.notices import EventKind, NoticeEvent
from bridge.sandbox.sandbox import Sandbox
from bridge.settings import load
from bridge.store.ledger import open_ledger
from bridge.store.uploads import accept
from tests.faults.gateway import FaultyGateway
from tests.support.builds import UPLOAD_PATH, Ci, small_build
from tests.support.ledger import upload
from tests.support.processes import until
from tests.support.webhook_receiver import WebhookReceiver

JOB = "9" * 32
STORM, UPLOADS = 10_000, 60
NOTICE_SECONDS = 2.0
"""Instead of ten seconds, five minutes and one minute."""


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as receiver:
        yield receiver


async def add_storm(url: str, target: str) -> None:
    """Write events as commits of facts do, before a gateway runs."""
    event = NoticeEvent(
        kind=EventKind.DEAD_DELIVERY, route="all", targets=(target,), text="A report was given up.", job_id=JOB
    )
    async with open_ledger(url, SystemClock(), lambda _: None) as database:
        for number in range(100):
            events = (event,) * (STORM // 100)
            await database.write(accept, upload(job_id=JOB, build_no=number + 1, notices=events))


@pytest.mark.early
@pytest.mark.timeout(600)
async def test_a_storm_is_few_notices_and_a_kill_in_it_loses_none(
    settings: dict[str, Any], receiver: WebhookReceiver, tmp_path: Path
) -> None:
    settings["notices"] = [{"url": receiver.url, "events": ["rejected_upload", "dead_delivery"]}]
    sending, over = asyncio.Event(), asyncio.Event()
    sent: list[str] = []

    async def hold(request: web.Request) -> web.Response:
        sent.append(request.headers["webhook-id"])
        sending.set()
        await over.wait()
        return web.Response(status=500)

    receiver.script = [hold] * 2
    async with FaultyGateway(tmp_path / "gateway", settings, notice_seconds=NOTICE_SECONDS) as gateway:
        await gateway.start()
        assert await gateway.terminate() == 0
        [target] = to_notice_sinks(load(gateway.config, {}))
        await add_storm(settings["store"]["url"], target)
        await gateway.start()
        rejected = await reject(gateway, UPLOADS // 2)
        await asyncio.wait_for(sending.wait(), 120)
        await gateway.kill()
        over.set()
        receiver.script = []
        await gateway.start()
        rejected += await reject(gateway, UPLOADS // 2)
        await until(lambda: told(receiver, "dead_delivery") == STORM, "every dead report is told")
        await until(lambda: told(receiver, "rejected_upload") == rejected, "every rejected upload is told")
        assert await gateway.terminate() == 0
    assert sent[0] in {notice.id for notice in receiver.received}  # the notice that was cut off came again
    assert receiver.faults == []
    assert len({notice.id for notice in receiver.received}) < 30


async def reject(gateway: FaultyGateway, count: int) -> int:
    """Upload what is no report so often; return how many uploads were rejected."""
    async with aiohttp.ClientSession() as http:
        for number in range(count):
            form = aiohttp.FormData()
            form.add_field("files", b"<broken", filename="a.xml")
            url = f"{gateway.server_url}{UPLOAD_PATH}?job_id={JOB}&build_no={number + 1}&node_id=default"
            async with http.post(url, data=form) as answer:
                assert answer.status == 400
    return count


def told(receiver: WebhookReceiver, kind: str) -> int:
    counts = {notice.id: notice.content["data"] for notice in receiver.received}
    return sum(data["count"] for data in counts.values() if data["event"] == kind)


@pytest.mark.timeout(600)
async def test_what_happens_to_builds_is_told(
    settings: dict[str, Any], sandbox: Sandbox, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    settings["notices"] = [{"url": receiver.url, "routes": ["all"]}]
    settings["delivery"] |= {"give_up_after": "1s"}
    world = sandbox.state

    def events(kind: str) -> list[dict[str, Any]]:
        data = [notice.content["data"] for notice in receiver.received]
        return [event for each in data if each["event"] == kind for event in each["events"]]

    async with (
        FaultyGateway(tmp_path / "gateway", settings, notice_seconds=0.5) as gateway,
        Ci(world, lambda: gateway.server_url) as ci,
    ):
        await gateway.start()

        async def play(build_no: int, build_result: str) -> None:
            build = small_build(build_no, job_id=JOB)
            world.builds.start(JOB, build_no, at=world.micros())
            await ci.send(build, build.uploads[0])
            world.builds.end(JOB, build_no, at=world.micros(), build_result=build_result)

        await play(1, "FAILURE")
        await until(lambda: len(events("result_mismatch")) == 1, "a failed build with a green report is told")
        assert "CodeArts says FAILURE" in events("result_mismatch")[0]["text"]
        refused = {"status": 422, "body": {"error_message": "There was a problem creating this test run."}}
        world.faults.script("testnod.register", *[refused] * 200)
        await play(2, "SUCCESS")
        await until(lambda: len(events("dead_delivery")) == 1, "a report that was given up is told")
        assert events("dead_delivery")[0]["build_no"] == 2
        world.faults.clear()
        world.runs.close_project(sandbox.project_token)
        await play(3, "SUCCESS")
        await until(lambda: len(events("blocked_route")) == 1, "a route whose token is rejected is told")
        assert "Fix its project_token" in events("blocked_route")[0]["text"]
        assert receiver.faults == []
        assert await gateway.terminate() == 0
