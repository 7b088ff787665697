"""Upstreams that answer in words that are not theirs: nothing counts as stored, nothing dies, and all arrives later."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from bridge.sandbox.testnod import SubmissionApi
from tests.support.builds import Build, Ci, small_build
from tests.support.processes import GatewayProcess, until
from tests.support.reckoning import all_processed, stored

JOB = "a" * 32


def s3_error(status: int, code: str) -> dict[str, Any]:
    return {"status": status, "body": f"<Error><Code>{code}</Code><Message>no</Message></Error>"}


def said(code: int, **fields: object) -> dict[str, Any]:
    return {"status": code, "body": json.dumps(fields)}


PAGE = "<html>Sign in</html>"
PUT_REJECTED = {"s3.put": s3_error(403, "AccessDenied")}
OUTAGES: dict[str, dict[str, dict[str, Any]]] = {
    "SignatureDoesNotMatch": {"s3.put": s3_error(403, "SignatureDoesNotMatch")},
    "InvalidToken": {"s3.put": s3_error(400, "InvalidToken")},
    "a proxy's page before storage": {"s3.put": {"status": 400, "body": PAGE}},
    "register 404": {"testnod.register": {"status": 404, "body": PAGE}},
    "register 422": {"testnod.register": said(422, error_message="There was a problem creating this test run.")},
    "register is answered like finalize": {"testnod.register": said(201, status="processed")},
}
"""What each call of several builds is answered during an outage, by place."""

ENDS: dict[str, dict[str, dict[str, Any]]] = {
    "finalize weird": {"testnod.finalize": said(200, status="weird")},
    "finalize 5": {"testnod.finalize": said(200, status=5)},
    "finalize 404": {"testnod.finalize": {"status": 404, "body": PAGE}},
    "finalize 200 HTML": {"testnod.finalize": {"status": 200, "body": PAGE}},
}


async def builds_of(gateway: GatewayProcess) -> list[Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/api/v1/builds") as answer:
        builds: list[Any] = (await answer.json())["builds"]
        return builds


async def states(gateway: GatewayProcess) -> set[str]:
    reports = [report for build in await builds_of(gateway) for report in build["reports"]]
    return {delivery["state"] for report in reports for delivery in report["deliveries"]}


async def all_delivered(gateway: GatewayProcess) -> bool:
    return await states(gateway) == {"delivered"}


async def upstreams(gateway: GatewayProcess) -> list[Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/readyz") as answer:
        assert answer.status == 200
        shown: list[Any] = (await answer.json())["upstreams"]
        return shown


async def upload_all(sandbox: Sandbox, gateway: GatewayProcess, builds: list[Build]) -> None:
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        await asyncio.gather(*(ci.play(build) for build in builds))


def begin(sandbox: Sandbox, faults: dict[str, dict[str, Any]]) -> None:
    for place, answer in faults.items():
        sandbox.state.faults.at_random(place, rate=1, seed=1, answer=answer)


@pytest.mark.parametrize("faults", OUTAGES.values(), ids=OUTAGES)
async def test_what_is_an_outage_is_shown_as_one_and_all_arrives_after_it(
    gateway: GatewayProcess, sandbox: Sandbox, faults: dict[str, dict[str, Any]]
) -> None:
    begin(sandbox, faults)
    builds = [small_build(number) for number in range(1, 7)]
    await upload_all(sandbox, gateway, builds)
    await until(lambda: bool(gateway.events("breaker_opened")), "the upstream is found to be away", seconds=60)
    assert await states(gateway) == {"pending"}
    closed = [upstream for upstream in await upstreams(gateway) if upstream["open_since"]]
    assert closed
    assert all(upstream["reason"] for upstream in closed)

    sandbox.state.faults.clear()
    await until(lambda: all(_arrived(sandbox, build) for build in builds), "all arrives after the outage", seconds=60)
    await until(lambda: all_delivered(gateway), "the gateway has written that down")


def _arrived(sandbox: Sandbox, build: Build) -> bool:
    """Return whether all is stored: registers of unknown effect may hold the run itself."""
    return stored(sandbox.state, build) == build.digests()


@pytest.mark.parametrize("status", ["pending", "Failed", "weird", 5, None])
async def test_a_report_is_not_delivered_by_an_odd_answer_to_upload_failed(
    gateway: GatewayProcess, sandbox: Sandbox, status: object
) -> None:
    begin(sandbox, {**PUT_REJECTED, "testnod.upload_failed": said(200, status=status)})
    build = small_build(1)
    await upload_all(sandbox, gateway, [build])
    await until(lambda: len(sandbox.state.calls.at("testnod.upload_failed")) > 2, "upload_failed is asked again")
    assert await states(gateway) == {"pending"}

    sandbox.state.faults.clear()
    await until(lambda: all_processed(sandbox.state, build), "the report arrives", seconds=60)
    assert await states(gateway) == {"delivered"}


@pytest.mark.parametrize("url", [None, 7, "ftp://storage.example/k"])
async def test_ids_without_a_usable_url_are_reported_failed_and_the_run_ends(
    gateway: GatewayProcess, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, url: object
) -> None:
    registration = SubmissionApi._registration
    odd = iter([{"presigned_url": url}] * 2)
    monkeypatch.setattr(SubmissionApi, "_registration", lambda *given: {**registration(*given), **next(odd, {})})
    build = small_build(1)
    await upload_all(sandbox, gateway, [build])
    await until(lambda: all_processed(sandbox.state, build), "the report arrives and its run ends", seconds=60)
    [shown] = await builds_of(gateway)
    assert (await states(gateway), shown["stuck_reason"]) == ({"delivered"}, None)


@pytest.mark.parametrize("faults", ENDS.values(), ids=ENDS)
async def test_no_odd_answer_to_finalize_ends_a_run(
    gateway: GatewayProcess, sandbox: Sandbox, faults: dict[str, dict[str, Any]]
) -> None:
    begin(sandbox, faults)
    build = small_build(1)
    await upload_all(sandbox, gateway, [build])
    await until(lambda: len(sandbox.state.calls.at("testnod.finalize")) > 2, "finalize is asked again")
    assert {shown["state"] for shown in await builds_of(gateway)} == {"ended"}

    sandbox.state.faults.clear()
    await until(lambda: all_processed(sandbox.state, build), "the run ends", seconds=60)
