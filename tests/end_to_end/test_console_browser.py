"""The console in real Chromium, before a real gateway: search, live update, actions, sign-in, keyboard, phone, axe."""

import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright, expect

from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import Build, Ci, Upload
from tests.support.outcome import api_builds
from tests.support.processes import GatewayProcess, NewGateway, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TOKEN = "operator-token-0123456789"
JOB = "d" * 32
GOOD = b'<testsuite name="s"><testcase classname="c" name="works" time="0.5"/></testsuite>'
RED = b'<testsuite><testcase classname="c" name="breaks"><failure message="boom">trace</failure></testcase></testsuite>'
BROKEN = b'<testsuite name="s"><testcase classname="c" name="a&b"/></testsuite>'
PATIENCE_MS = 30_000
"""For what comes at once unless the machine is busy."""

expect.set_options(timeout=PATIENCE_MS)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")


class Tab:
    """A page that records what must never happen: script errors and violations of the content policy."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self._note(message.text))
        page.set_default_timeout(PATIENCE_MS)

    def _note(self, text: str) -> None:
        if "Content Security Policy" in text or "Refused to" in text:
            self.faults.append(text)

    async def go(self, path: str) -> None:
        await self.page.goto(self.url + path)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def tab(browser: Browser, gateway: GatewayProcess) -> AsyncIterator[Tab]:
    tab = Tab(await browser.new_page(), gateway.admin_url)
    yield tab
    assert tab.faults == []


def build_of(number: int, *files: tuple[str, bytes]) -> Build:
    return Build(
        job_id=JOB,
        build_no=number,
        branch="main",
        commit="c" * 40,
        uploads=(Upload(node_id="n1", files=files),),
        uploads_before_end=1,
        waits_for_finalize=False,
        pause_seconds=0,
    )


@pytest.fixture
def upload(sandbox: Sandbox, gateway: GatewayProcess) -> Any:
    """Upload the files of one build, which CodeArts calls running."""

    async def send(number: int, *files: tuple[str, bytes]) -> int:
        build, world = build_of(number, *files), sandbox.state
        record = {"branch": "main", "commit": "c" * 40}
        world.builds.start(build.job_id, build.build_no, at=world.micros(), record=record)
        async with Ci(world, lambda: gateway.server_url) as ci:
            status, _ = await ci.send(build, build.uploads[0])
        return int(status)

    return send


async def test_a_build_is_found_and_its_page_follows_the_delivery_without_a_reload(
    tab: Tab, upload: Any, sandbox: Sandbox
) -> None:
    await upload(1, ("TEST-a.xml", GOOD))
    await upload(2, ("TEST-b.xml", RED))
    await tab.go("/builds")
    await tab.page.get_by_label("Number").fill("2")
    await tab.page.get_by_label("Job id").fill(JOB)
    await tab.page.get_by_role("button", name="Show").click()
    await expect(tab.page.locator("tbody tr")).to_have_count(1)
    await tab.page.get_by_role("link", name="#2").click()
    await tab.page.evaluate("window.notReloaded = true")
    sandbox.state.builds.end(JOB, 2, at=sandbox.state.micros())
    await expect(tab.page.locator(".why")).to_contain_text("was finalized", timeout=PATIENCE_MS)
    assert await tab.page.evaluate("window.notReloaded")
    await tab.page.get_by_role("link", name="TEST-b.xml").click()
    await expect(tab.page.locator("h1")).to_have_text("TEST-b.xml")
    await expect(tab.page.get_by_text("boom")).to_be_visible()


async def test_a_route_is_paused_and_resumed_by_hand(tab: Tab, upload: Any) -> None:
    await tab.go("/")
    await tab.page.get_by_role("link", name="Pause").click()
    await tab.page.get_by_role("button", name="Yes").click()
    await expect(tab.page.get_by_role("status")).to_contain_text("is paused")
    assert await upload(3, ("TEST-a.xml", GOOD)) == 200
    await tab.go(f"/builds/{JOB}/3")
    await expect(tab.page.locator(".why")).to_contain_text("paused route", timeout=PATIENCE_MS)
    await tab.go("/")
    await tab.page.get_by_role("link", name="Resume").click()
    await tab.page.get_by_role("button", name="Yes").click()
    await tab.go(f"/builds/{JOB}/3")
    await expect(tab.page.locator("tbody .tag.good").first).to_have_text("delivered", timeout=PATIENCE_MS)
    await tab.go("/audit")
    await expect(tab.page.locator("tbody tr")).to_have_count(2)


async def test_a_rejected_file_is_looked_at_and_sent_repaired(tab: Tab, upload: Any) -> None:
    assert await upload(4, ("TEST-a.xml", BROKEN)) == 400
    await tab.go("/rejections")
    await tab.page.get_by_role("link", name="TEST-a.xml").click()
    await expect(tab.page.locator("span.fault")).to_contain_text("a&b")
    await expect(tab.page.locator("span.add").last).to_contain_text("a&amp;b")
    await tab.page.get_by_role("link", name="Send repaired").click()
    await tab.page.get_by_role("button", name="Yes").click()
    await expect(tab.page.get_by_role("status")).to_contain_text("1 report")
    await tab.go(f"/builds/{JOB}/4")
    await expect(tab.page.get_by_role("link", name="TEST-a.xml").first).to_be_visible()


def of_cart(number: int) -> bytes:
    """Return a report in which one test is flaky, and one has another name in each build."""
    failure = '<failure message="timed out"/>' if number == 2 else ""
    return (
        f'<testsuite><testcase classname="shop.a.rather.long.package.Cart" name="pays_by_card">{failure}</testcase>'
        f'<testcase classname="shop.Cart" name="order {4711 * number} is paid"/></testsuite>'
    ).encode()


async def test_the_flaky_test_of_a_job_is_found_with_the_console_alone(
    tab: Tab, upload: Any, gateway: GatewayProcess
) -> None:
    for number in (1, 2, 3):
        assert await upload(number, ("TEST-cart.xml", of_cart(number))) == 200

    async def have_commits() -> bool:
        return {build["commit"] for build in (await api_builds(gateway)).values()} == {"c" * 40}

    await until(have_commits, "the commits have come from CodeArts")
    await tab.go("/")
    await tab.page.get_by_role("link", name="Tests").click()
    await expect(tab.page.locator("h1")).to_contain_text("Tests of job")  # the only one
    flaky = tab.page.locator("#flaky ~ .scroll table").first.locator("tbody tr")
    await expect(flaky).to_have_count(1)
    await expect(flaky).to_contain_text("pays_by_card")
    await expect(flaky).to_contain_text("both have commit cccccccccccc")
    await expect(tab.page.locator("pre")).to_contain_text("order [0-9]+ is paid")
    await flaky.get_by_role("link", name="build 2").click()
    await expect(tab.page.get_by_text("timed out")).to_be_visible()
    await tab.page.go_back()
    await tab.page.get_by_label("Last builds").fill("1")
    await tab.page.get_by_role("button", name="Show").click()
    await expect(tab.page.get_by_text("No test was flaky.")).to_be_visible()


async def test_a_job_is_chosen_and_found_from_its_builds_too(tab: Tab, upload: Any) -> None:
    await upload(4, ("TEST-cart.xml", of_cart(4)))
    await tab.go(f"/builds/{JOB}/4")
    await tab.page.get_by_role("link", name="Tests of this job").click()
    await expect(tab.page.get_by_text("The names are stable so far")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_have_no_serious_accessibility_fault_and_fit_a_phone(
    browser: Browser, gateway: GatewayProcess, upload: Any, scheme: Any
) -> None:
    await upload(5, ("a-report-with-a-rather-long-name-of-seventy-characters-in-one-word.xml", RED))
    await upload(6, ("TEST-b.xml", BROKEN))
    await upload(7, ("TEST-c.xml", of_cart(1)))
    await upload(8, ("TEST-c.xml", of_cart(2)))
    await upload(9, ("TEST-c.xml", of_cart(3)))
    context = await browser.new_context(color_scheme=scheme, viewport={"width": 360, "height": 780})
    tab = Tab(await context.new_page(), gateway.admin_url)
    pages = ("/", "/builds", f"/builds/{JOB}/5", "/reports/1", "/rejections", "/rejections/1", "/audit", "/builds/x/y")
    for path in (*pages, f"/tests?job_id={JOB}", "/tests", "/act?action=retry-build&target=1&back=/"):
        await tab.go(path)
        width = await tab.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, path
        found = await Axe().run(tab.page)
        serious = [fault for fault in found.response["violations"] if fault["impact"] in ("serious", "critical")]
        assert not serious, (path, [(fault["id"], fault["nodes"][0]["html"]) for fault in serious])
    assert tab.faults == []


async def test_the_keyboard_alone_leads_to_a_build_and_through_an_action(tab: Tab, upload: Any) -> None:
    await upload(7, ("TEST-a.xml", GOOD))
    await tab.go("/builds")
    await tab.page.keyboard.press("Tab")
    assert await tab.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(40):
        await tab.page.keyboard.press("Tab")
        if "#7" in await tab.page.evaluate("document.activeElement.textContent"):
            break
    await tab.page.keyboard.press("Enter")
    await expect(tab.page.locator("h1")).to_contain_text("Build 7")
    await tab.page.get_by_role("link", name="Finalize now").focus()
    await tab.page.keyboard.press("Enter")
    await expect(tab.page.get_by_role("button", name="Yes")).to_be_focused()
    await tab.page.keyboard.press("Enter")
    await expect(tab.page.get_by_role("status")).to_contain_text("ended now")


async def test_a_browser_signs_in_with_the_token_and_out_again(
    browser: Browser, new_gateway: NewGateway, settings: dict[str, Any]
) -> None:
    settings["admin"] = {**settings["admin"], "token": TOKEN}
    gateway = new_gateway(settings)
    await gateway.start()
    tab = Tab(await browser.new_page(), gateway.admin_url)
    await tab.go("/builds")
    await expect(tab.page.locator("h1")).to_have_text("Sign in")
    await tab.page.get_by_label("Token of the admin listener").fill(TOKEN)
    await tab.page.get_by_label("Your name").fill("Ann")
    await tab.page.get_by_role("button", name="Sign in").click()
    await expect(tab.page.locator("h1")).to_have_text("Builds")
    await expect(tab.page.locator(".who")).to_contain_text("Ann (operator)")
    await tab.page.get_by_role("button", name="Sign out").click()
    await expect(tab.page.locator("h1")).to_have_text("Sign in")
    assert tab.faults == []
