"""The admin listener over real sockets, before a real ledger."""

import asyncio
import re
from dataclasses import dataclass

import pytest

from bridge.domain.circuit_breaker import CODEARTS, TESTNOD, CircuitBreaker, HealthSignal
from bridge.domain.clock_trust import ClockState, Verdict, trusting
from bridge.domain.outcomes import BuildInfo
from bridge.server.admin import builds
from bridge.server.admin.access import AdminAccess
from bridge.server.admin.app import admin_app
from bridge.server.config import ServerConfig
from bridge.server.health import Readiness
from bridge.server.validation.pool import ValidationPool
from bridge.store.blobs.disk import DiskSpool
from bridge.store.circuit_breakers import BreakerSignal, apply_breaker_signals
from bridge.telemetry.metrics import Metrics
from tests.support.ledger import asked, dead, kept_refusal, refusal, report
from tests.support.upload_server import new_resender

JOB = "a" * 32
SECOND = 1_000_000
TOKEN = "an-admin-token-0123456789"


@dataclass(frozen=True)
class Task:
    name: str
    beat_at: int
    restarts: int = 0
    last_error: str | None = None


class CodeArts:
    """Says that every build runs, and counts how often it was asked; or never answers."""

    def __init__(self, *, silent=False):
        self.asked = []
        self._silent = silent

    async def build_info(self, job_id, build_no):
        self.asked.append((job_id, build_no))
        if self._silent:
            await asyncio.Event().wait()
        return BuildInfo(building=True, result=None, region=None)


@pytest.fixture
def readiness(database, tmp_path, clock):
    spool = tmp_path / "spool"
    spool.mkdir()
    return Readiness(database=database, spool=DiskSpool(spool), min_free=1, clock=clock)


@pytest.fixture
def resender(database, tmp_path):
    return new_resender(database, DiskSpool(tmp_path / "spool"), ValidationPool(workers=0))


@pytest.fixture
def serve(aiohttp_client, database, readiness, clock, resender, tmp_path):
    """Start an admin listener; what is not said is as on a fresh gateway."""

    async def start(*, tokens=(), host="127.0.0.1", codearts=None, running=(), archive=None, verdict=trusting, own=()):
        app = admin_app(
            database=database,
            readiness=readiness,
            metrics=Metrics(),
            tasks=lambda: running,
            certificate=None,
            config=lambda: ServerConfig(
                upload=None,
                submission=None,
                storage=None,
                build_status=None,
                webhook=None,
                proxy=None,
                trusted_proxies=(),
                access=AdminAccess(operator_tokens=tokens),
                routes=(),
                resender=resender,
                codearts=codearts,
                max_finalize_delay_us=0,
            ),
            archive=archive,
            spool=DiskSpool(tmp_path / "spool"),
            host=host,
            clock=clock,
            clock_verdict=verdict,
            own_breakers=lambda: own,
        )
        return await aiohttp_client(app)

    return start


async def open_breaker(database, name):
    await database.write(
        apply_breaker_signals,
        BreakerSignal(breaker=name, signal=HealthSignal.TRIP, reason="it hangs", probe_delay_us=5 * SECOND),
    )


# -- who may ask -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/builds", "/api/v1/why", "/nowhere"])
async def test_if_a_token_is_set_every_request_needs_it(serve, path):
    client = await serve(tokens=(TOKEN, "another-token-of-the-list"))
    for headers in ({}, {"X-Auth-Token": "guess"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = await client.get(path, headers=headers)
        body = await answer.json()
        assert (answer.status, body["error_code"]) == (401, "APIGW.0301")
        guessed = "has another token than admin.token" if headers.get("X-Auth-Token") else "has no token"
        assert f"the request {guessed}. Send admin.token" in body["error_msg"]


@pytest.mark.parametrize(
    "headers", [{"X-Auth-Token": TOKEN}, {"Authorization": f"Bearer {TOKEN}"}, {"X-Auth-Token": "another"}]
)
async def test_each_token_of_the_list_opens_in_either_header(serve, headers):
    client = await serve(tokens=(TOKEN, "another"))
    assert (await client.get("/api/v1/builds", headers=headers)).status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_health_is_open_to_all_under_every_name(serve, path):
    assert (await (await serve(tokens=(TOKEN,))).get(path)).status == 200
    assert (await (await serve()).get(path, headers={"Host": "10.0.0.7:8081"})).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8081", 200),
        ("127.0.0.1", 200),
        ("127.9.9.9", 200),
        ("[::1]:8081", 200),
        ("bridge.internal:8081", 200),  # as admin.host says
        ("rebound.example:8081", 403),
        ("localhost.example", 403),
        ("10.0.0.7", 403),
    ],
)
async def test_without_a_token_only_a_local_name_opens(serve, host, status):
    client = await serve(host="bridge.internal")
    for path in ("/api/v1/builds", "/metrics"):
        assert (await client.get(path, headers={"Host": host})).status == status


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/builds",
        "/api/v1/builds/1",
        "/api/v1/builds/99",
        f"/api/v1/why?job_id={JOB}&build_no=1",
        "/api/v1/why",
        "/api/v1/rejections",
        "/api/v1/rejections/1/file",
        "/api/v1/reports/1/file",
        "/api/v1/routes",
        "/api/v1/audit",
        "/api/v1/paused",
        "/api/v1/openapi.json",
        "/metrics",
        "/livez",
        "/readyz",
        "/nowhere",
    ],
)
async def test_no_answer_is_cached_or_taken_for_another_type(serve, ledger, path):
    await ledger.accept(report(), rejections=(kept_refusal(),))
    for tokens in ((), (TOKEN,)):
        answer = await (await serve(tokens=tokens)).get(path)
        headers = answer.headers
        assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")


async def test_events_are_not_cached_or_taken_for_another_type(serve):
    answer = await (await serve()).get("/api/v1/events")
    assert (answer.headers["X-Content-Type-Options"], answer.headers["Cache-Control"]) == ("nosniff", "no-store")
    answer.close()


# -- health ------------------------------------------------------------------------------------------------------


async def test_livez_is_ok(serve):
    answer = await (await serve()).get("/livez")
    assert (answer.status, await answer.text()) == (200, "ok\n")


async def test_upstreams_and_loops_are_told_and_leave_it_ready(serve, database, clock):
    await open_breaker(database, TESTNOD)
    clock.advance(3 * SECOND)
    answer = await (await serve(running=[Task("cleanup", 0, 2, "ValueError")])).get("/readyz")
    assert answer.status == 200
    assert await answer.json() == {
        "ready": True,
        "reasons": [],
        "paused": None,
        "upstreams": [
            {
                "name": "testnod",
                "breaker": "open",
                "open_since": "2023-11-14T22:13:20.000000Z",
                "failing_since": "2023-11-14T22:13:20.000000Z",
                "failures": 1,
                "reason": "it hangs",
                "next_probe_at": "2023-11-14T22:13:25.000000Z",
            }
        ],
        "codearts_rates": [],
        "tasks": [{"name": "cleanup", "heartbeat_age_seconds": 3.0, "restarts": 2, "last_error": "ValueError"}],
        "certificate_fault": None,
        "failing_notice_targets": [],
    }


async def test_calls_of_one_build_that_keep_failing_are_shown_before_they_are_an_outage(serve, database):
    told = BreakerSignal(
        breaker=TESTNOD, signal=HealthSignal.UNEXPECTED, reason="HTTP 500", probe_delay_us=SECOND, source=7
    )
    for failures in (1, 2, 3):
        await database.write(apply_breaker_signals, told)
        shown = (await (await (await serve()).get("/readyz")).json())["upstreams"]
        assert len(shown) == (failures == 3)
    assert (shown[0]["open_since"], shown[0]["failures"], shown[0]["reason"]) == (None, 3, "HTTP 500")
    assert shown[0]["failing_since"] is not None


async def test_a_clock_that_is_doubted_is_told_and_leaves_it_ready(serve, ledger):
    await ledger.accept(report())
    verdict = Verdict(state=ClockState.SUSPECT, reason="The clock was set forward by 1 hour.")
    client = await serve(verdict=lambda: verdict)
    answer = await client.get("/readyz")
    assert answer.status == 200
    assert (await answer.json())["clock_doubt"] == (
        "The clock was set forward by 1 hour. "
        "Until the clock is trusted, nothing is given up or deleted because of its age."
    )
    told = await (await client.get(f"/api/v1/why?job_id={JOB}&build_no=1")).json()
    assert "the bridge distrusts its clock (The clock was set forward by 1 hour)" in told["sentence"]


async def test_a_gateway_that_stops_is_not_ready_and_says_so(serve, readiness):
    readiness.drain()
    answer = await (await serve()).get("/readyz")
    body = await answer.json()
    assert (answer.status, body["ready"]) == (503, False)
    assert body["reasons"] == ["The gateway is stopping. Send uploads to the one that replaces it."]


async def test_metrics_show_what_the_ledger_counts_now(serve, ledger):
    await ledger.accept(report("a.xml"), report("b.xml"))
    visit = await ledger.claimed()
    await ledger.record(visit.build, dead(visit.build.deliveries[1]))
    client = await serve(running=[Task("cleanup", -4 * SECOND)])
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = await answer.text()
    assert 'bridge_deliveries_pending{target="testnod"} 1.0' in text
    assert 'bridge_deliveries_dead{target="testnod"} 1.0' in text
    assert "bridge_builds_stuck 0.0" in text
    assert 'bridge_task_heartbeat_age_seconds{task="cleanup"} 4.0' in text
    assert "bridge_spool_free_bytes 0.0" not in text


async def test_metrics_and_health_answer_while_the_ledger_cannot(serve, database):
    client = await serve()
    with database.writing.begin() as connection:
        connection.exec_driver_sql("DROP TABLE circuit_breakers")
        connection.exec_driver_sql("DROP TABLE deliveries")
    assert (await client.get("/metrics")).status == 200
    assert (await (await client.get("/readyz")).json())["upstreams"] is None
    answer = await client.get("/api/v1/why", params={"job_id": JOB, "build_no": "1"})
    assert (answer.status, (await answer.json())["error_code"]) == (503, "BRIDGE.UNAVAILABLE")


# -- the API -----------------------------------------------------------------------------------------------------


async def test_pages_of_builds_follow_each_other(serve, ledger):
    for number in (1, 2, 3):
        await ledger.accept(report(), build_no=number)
    client = await serve()
    first = await (await client.get("/api/v1/builds", params={"limit": "2"})).json()
    assert [build["build_no"] for build in first["builds"]] == [3, 2]
    second = await (await client.get("/api/v1/builds", params={"limit": "2", "after": first["next"]})).json()
    assert [build["build_no"] for build in second["builds"]] == [1]
    assert second["next"] is None


async def test_a_bad_parameter_is_named_in_codearts_shape(serve):
    answer = await (await serve()).get("/api/v1/builds", params={"job": "x"})
    body = await answer.json()
    assert (answer.status, body["status"], body["error_code"]) == (400, "fail", "CB.00060200")
    assert body["error_msg"].startswith('"job" is not a parameter of this path. Use job_id,')


async def test_one_build_is_found_by_its_id(serve, ledger):
    await ledger.accept(report())
    client = await serve()
    assert (await (await client.get("/api/v1/builds/1")).json())["job_id"] == JOB


@pytest.mark.parametrize("name", ["2", "x", "-1", "٣", str(2**53), "9" * 30])
async def test_a_build_that_is_not_there_is_404(serve, name):
    answer = await (await serve()).get(f"/api/v1/builds/{name}")
    assert (answer.status, (await answer.json())["error_code"]) == (404, "BRIDGE.NOT_FOUND")


# -- why ---------------------------------------------------------------------------------------------------------


async def ask_why(client, build_no=1):
    answer = await client.get("/api/v1/why", params={"job_id": JOB, "build_no": str(build_no)})
    assert answer.status == 200
    return await answer.json()


async def test_why_says_one_sentence_and_what_it_rests_on(serve, ledger):
    await ledger.accept(report(), rejections=(refusal("bad.xml"),))
    codearts = CodeArts()
    body = await ask_why(await serve(codearts=codearts))
    assert body["status"].startswith(f"The bridge rejected the file of build 1 of job {JOB} a moment ago (")
    assert (body["cause"], body["action"]) == ("'bad.xml' is no JUnit report", "look at what wrote it")
    assert body["sentence"] == f"{body['status']}: {body['cause']}; {body['action']}."
    assert (body["case"], body["job_id"], body["build_no"]) == ("rejected", JOB, 1)
    assert (body["build"]["id"], body["rejections"]) == (1, body["build"]["rejections"])
    assert codearts.asked == []


async def test_why_of_a_refused_build_without_any_row(serve, ledger):
    await ledger.accept(rejections=(refusal("bad.xml"),), build_no=9)
    body = await ask_why(await serve(), 9)
    assert (body["case"], body["build"], [told["name"] for told in body["rejections"]]) == (
        "rejected",
        None,
        ["bad.xml"],
    )


async def test_codearts_is_asked_of_a_build_without_uploads(serve):
    codearts = CodeArts()
    body = await ask_why(await serve(codearts=codearts), 5)
    assert body["case"] == "never_uploaded"
    assert body["cause"] == "CodeArts reports that the build is still running"
    assert codearts.asked == [(JOB, 5)]


async def test_codearts_is_not_asked_while_its_breaker_is_open(serve, database):
    await open_breaker(database, CODEARTS)
    codearts = CodeArts()
    body = await ask_why(await serve(codearts=codearts))
    assert body["cause"] == "CodeArts has been away for less than a second (it hangs)"
    assert codearts.asked == []


async def test_a_codearts_that_never_answers_does_not_keep_the_sentence(serve, monkeypatch):
    monkeypatch.setattr(builds, "CODEARTS_SECONDS", 0.0)
    body = await ask_why(await serve(codearts=CodeArts(silent=True)))
    assert "CodeArts could not be asked about it (it did not answer within" in body["cause"]


async def test_why_needs_to_know_of_which_build(serve):
    answer = await (await serve()).get("/api/v1/why", params={"job_id": JOB})
    assert (answer.status, (await answer.json())["error_code"]) == (400, "CB.00060200")


@pytest.mark.parametrize(
    ("tokens", "ends"), [((), "/send`"), ((TOKEN,), '/send -H "X-Auth-Token: $BRIDGE_ADMIN_TOKEN"`')]
)
async def test_why_proposes_the_command_that_sends_a_file_to_this_listener(serve, ledger, tokens, ends):
    await ledger.enter(rejections=(kept_refusal(),))
    client = await serve(tokens=tokens)
    headers = {"X-Auth-Token": TOKEN} if tokens else {}
    answer = await client.get("/api/v1/why", params={"job_id": JOB, "build_no": "1"}, headers=headers)
    url = str(client.make_url("/api/v1/rejections/1"))
    assert f"`curl -X POST {url}{ends} to send" in (await answer.json())["action"]


async def test_why_names_a_call_that_hangs_while_a_worker_has_the_build(serve, ledger, clock):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.record(visit.build, asked(visit.build.deliveries[1]))
    client = await serve()
    answer = await (await client.get("/api/v1/why", params={"job_id": JOB, "build_no": "1"})).json()
    assert "the call that registers a report at TestNod has been running" in answer["cause"]
    clock.advance(60 * SECOND)  # the lease has ended
    answer = await (await client.get("/api/v1/why", params={"job_id": JOB, "build_no": "1"})).json()
    assert "has been running" not in answer["cause"]


async def test_a_breaker_that_is_open_for_this_gateway_alone_is_shown_until_that_of_the_ledger_opens(serve, database):
    own = CircuitBreaker(
        name="route:shop", failures=1, opened_at=0, reason="this replica's project_token of route shop"
    )
    client = await serve(own=[own])
    answer = await client.get("/readyz")
    assert answer.status == 200
    assert [upstream["reason"] for upstream in (await answer.json())["upstreams"]] == [own.reason]
    shown = await (await client.get("/metrics")).text()
    assert re.search(r'bridge_circuit_open_seconds\{upstream="route:shop"\} [1-9]', shown)
    await open_breaker(database, "route:shop")
    shown = (await (await client.get("/readyz")).json())["upstreams"]
    assert [upstream["reason"] for upstream in shown] == ["it hangs"]
