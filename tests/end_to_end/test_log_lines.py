"""The log of a gateway as a process: one line for each thing that happens, each with what an operator searches for."""

import signal
from collections import Counter
from typing import Any

import aiohttp

import bridge
from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import UPLOAD_PATH, Ci, small_build
from tests.support.processes import GatewayProcess, NewGateway, until
from tests.support.reckoning import all_processed

STEPS = ("upload_accepted", "build_described", "run_opened", "reports_delivered", "build_ended", "run_finalized")


def lines(gateway: GatewayProcess, build_no: int) -> list[dict[str, Any]]:
    """Return the lines of a build."""
    names = (*STEPS, "delivery_died", "build_blocked", "build_unblocked", "build_stuck", "breaker_opened")
    return [line for name in names for line in gateway.events(name) if line.get("build_no") == build_no]


async def upload(gateway: GatewayProcess, sandbox: Sandbox, build_no: int) -> None:
    sandbox.state.builds.start("a" * 32, build_no, at=sandbox.state.micros())
    form = aiohttp.FormData()
    body = f'<testsuite name="{build_no}"><testcase name="a"/></testsuite>'.encode()
    form.add_field("files", body, filename="a.xml", content_type="application/xml")
    url = f"{gateway.server_url}{UPLOAD_PATH}?job_id={'a' * 32}&build_no={build_no}&node_id=default"
    async with aiohttp.ClientSession() as http, http.post(url, data=form) as answer:
        assert answer.status == 200


async def test_each_step_of_a_build_is_one_line_with_build_route_version_and_instance(
    gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    build = small_build(1)
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        await ci.play(build)
        await until(lambda: all_processed(sandbox.state, build), "the build is finalized")
    await until(lambda: bool(gateway.events("run_finalized")), "the finalize is logged")
    await until(lambda: bool(gateway.events("build_ended")), "the end is logged")
    await gateway.terminate()

    found = lines(gateway, 1)
    assert Counter(line["event"] for line in found) == Counter(STEPS)
    assert {line["level"] for line in found} == {"info"}
    assert all(line["job_id"] == build.job_id for line in found)
    assert {line["route"] for line in found if line["event"] != "build_described"} == {"all"}
    (accepted,), (delivered,), (ended,) = map(gateway.events, ("upload_accepted", "reports_delivered", "build_ended"))
    assert (accepted["caller"], accepted["accepted"]) == ("open", 1)
    assert (delivered["target"], delivered["deliveries"], delivered["pending"]) == ("testnod", 1, 0)
    assert delivered["reports"] == ["TEST-1.xml"]
    assert (ended["reason"], ended["build_result"]) == ("build_info", "SUCCESS")

    logged = [
        line for name in ("gateway_starting", "gateway_listening", "gateway_stopped") for line in gateway.events(name)
    ]
    assert len(logged) == 3
    assert {line["version"] for line in (*logged, *found)} == {bridge.__version__}
    (instance,) = {line["instance"] for line in (*logged, *found)}
    assert f"/{gateway.pid}/" in instance
    assert not any("trace_id" in line for line in found)


async def test_what_needs_a_person_is_a_warning_with_its_reason(
    new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    settings["delivery"] |= {"give_up_after": "1s", "replace_stuck_runs": False}
    settings["polling"] |= {"confirm_timeout": "1s"}
    gateway = new_gateway(settings)
    await gateway.start()
    faults = sandbox.state.faults

    faults.at_random("testnod.register", rate=1, answer={"status": 422, "body": {"error": "no"}}, seed=1)
    await upload(gateway, sandbox, 1)
    await until(lambda: bool(gateway.events("delivery_died")), "the report is given up")
    (died,) = gateway.events("delivery_died")
    assert (died["level"], died["target"], died["deliveries"], died["reports"]) == ("warning", "testnod", 1, ["a.xml"])
    assert "HTTP 422" in died["reason"]
    faults.clear()

    faults.script("testnod.register", {"cut": True, "after": True})
    await upload(gateway, sandbox, 2)
    sandbox.state.builds.end("a" * 32, 2, at=sandbox.state.micros())
    await until(lambda: bool(gateway.events("build_stuck")), "the run stays pending")
    (stuck,) = gateway.events("build_stuck")
    assert (stuck["level"], stuck["build_no"], stuck["route"]) == ("warning", 2, "all")
    assert stuck["reason"]

    settings["routes"][0]["project_token"] = "t-nobodys"
    gateway.write(settings)
    await gateway.terminate()
    await gateway.start()
    await upload(gateway, sandbox, 3)
    await until(lambda: any(line["build_no"] == 3 for line in gateway.events("build_blocked")), "the build is blocked")
    blocked = next(line for line in gateway.events("build_blocked") if line["build_no"] == 3)
    assert blocked["level"] == "warning"
    assert "project_token" in blocked["reason"]
    opened = [line for line in gateway.events("breaker_opened") if line["upstream"] == "route:all"]
    assert [(line["level"], bool(line["reason"])) for line in opened] == [("warning", True)]


async def test_level_and_format_are_settings_that_a_reload_applies(
    new_gateway: NewGateway, settings: dict[str, Any]
) -> None:
    settings["log"] = {"level": "warning"}
    gateway = new_gateway(settings)
    await gateway.spawn()
    async with aiohttp.ClientSession() as http:

        async def listens() -> bool:
            try:
                async with http.get(f"http://127.0.0.1:{gateway._ports['server']}/readyz") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        await until(listens, "the gateway is ready")
    assert gateway.stderr() == ""
    gateway.write(settings | {"log": {"level": "info", "format": "console"}})
    gateway.signal(signal.SIGHUP)
    await until(lambda: "settings_reloaded" in gateway.stderr(), "the reload is logged")
    assert not gateway.stderr().startswith("{")
    assert "\x1b[" not in gateway.stderr()  # no color in a file
