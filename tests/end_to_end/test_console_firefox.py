"""The console in real Firefox, before a real gateway: each page, sign-in, one action, and no error in its console."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import Build, Ci, Upload
from tests.support.firefox import FIREFOX, FirefoxTab, firefox_tab
from tests.support.processes import GatewayProcess, NewGateway

TOKEN = "operator-token-0123456789"
JOB = "d" * 32
RED = b'<testsuite><testcase classname="c" name="breaks"><failure message="boom">trace</failure></testcase></testsuite>'
HEADING = "document.querySelector('h1')?.textContent"

pytestmark = pytest.mark.skipif(FIREFOX is None, reason="Firefox is not installed: apt-get install firefox-esr")


@pytest.fixture
async def gateway(new_gateway: NewGateway, settings: dict[str, Any]) -> GatewayProcess:
    """A gateway whose console asks for a token."""
    settings["admin"] = {**settings["admin"], "token": TOKEN}
    gateway = new_gateway(settings)
    await gateway.start()
    return gateway


@pytest.fixture
async def tab() -> AsyncIterator[FirefoxTab]:
    async with firefox_tab() as tab:
        yield tab


async def upload_one(sandbox: Sandbox, gateway: GatewayProcess) -> None:
    build = Build(
        job_id=JOB,
        build_no=1,
        branch="main",
        commit="c" * 40,
        uploads=(Upload(node_id="n1", files=(("TEST-a.xml", RED),)),),
        uploads_before_end=1,
        waits_for_finalize=False,
        pause_seconds=0,
    )
    world = sandbox.state
    world.builds.start(JOB, 1, at=world.micros(), record={"branch": "main", "commit": "c" * 40})
    async with Ci(world, lambda: gateway.server_url) as ci:
        assert (await ci.send(build, build.uploads[0]))[0] == 200


async def test_every_page_works_in_firefox_without_an_error(
    tab: FirefoxTab, sandbox: Sandbox, gateway: GatewayProcess
) -> None:
    await upload_one(sandbox, gateway)
    await tab.go(f"{gateway.admin_url}/builds")
    await tab.until(f"{HEADING} == 'Sign in'")
    await tab.run(f"document.querySelector('[name=token]').value = {TOKEN!r}")
    await tab.run("document.querySelector('[name=name]').value = 'Ann'")
    await tab.click("button", "Sign in")
    await tab.until(f"{HEADING} == 'Builds'")
    await tab.click("a", "Overview")
    await tab.until(f"{HEADING} == 'Overview' && document.querySelectorAll('svg.bars rect').length")
    await tab.click("a", "Builds")
    await tab.click("tbody a", "#1")
    await tab.until(f"{HEADING}.startsWith('Build 1')")
    await tab.run("window.notReloaded = true")
    sandbox.state.builds.end(JOB, 1, at=sandbox.state.micros())
    await tab.until("document.querySelector('.why').textContent.includes('was finalized') && window.notReloaded")
    assert await tab.run("document.querySelectorAll('svg.timeline rect').length") >= 3
    await tab.click("tbody a", "TEST-a.xml")
    await tab.until(f"{HEADING} == 'TEST-a.xml' && document.body.textContent.includes('boom')")
    await tab.click("a", "Overview")
    await tab.click("a", "Pause")
    await tab.click("button", "Yes")
    await tab.until("document.querySelector('[role=status]')?.textContent.includes('is paused')")
    await tab.click("a", "Audit log")
    await tab.until("document.querySelector('tbody')?.textContent.includes('Ann')")
    await tab.click("button", "Sign out")
    await tab.until(f"{HEADING} == 'Sign in'")
    assert tab.faults == []


async def test_a_violation_of_the_content_policy_would_be_noticed(tab: FirefoxTab, gateway: GatewayProcess) -> None:
    await tab.go(f"{gateway.admin_url}/sign-in")
    await tab.run("document.body.append(Object.assign(document.createElement('script'), {textContent: '1'}))")
    await tab.until("true")
    assert any("script-src" in fault for fault in tab.faults)
