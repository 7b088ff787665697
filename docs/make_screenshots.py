"""Make the pictures of all pages of the console in docs/images, in both themes, from a demo with one rejected file.

Needs Chromium: `make screenshots`.
"""
# ruff: noqa: INP001

import asyncio
import hashlib
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from playwright.async_api import Browser

IMAGES = Path(__file__).parent / "images"
JOB = "b7d95e3c10a84f2296e4d8f07c5a1b38"  # of the demo
NUMBER = 87
TESTS_JOB = "5d0c7a9e41b24c0f8f1e2d3c4b5a6978"  # whose builds are uploaded here
TESTS_BUILDS = range(31, 39)
PAGES = {
    "overview": "/",
    "builds": "/builds",
    "build": f"/builds/{JOB}/{NUMBER}",
    "report": "/reports/{red}",
    "tests": f"/tests?job_id={TESTS_JOB}",
    "rejections": "/rejections",
    "rejection": "/rejections/1",
    "audit": "/audit",
    "confirm": "/act?action=forget-build&target=1",
    "sign-in": "/sign-in",
}
THEMES = ("light", "dark")
SIZE = {"width": 1100, "height": 760}
REJECTED = (
    b'<testsuite name="checkout">\n  <testcase classname="shop.Checkout" name="pays by card" time="0.41"/>\n'
    b'  <testcase classname="shop.Checkout" name="Marks & Spencer gift card" time="0.22"/>\n</testsuite>\n'
)


def picture(page: str, theme: str) -> str:
    """Return the name of the file with a page in a theme."""
    return f"{page}-{theme}.png"


async def main() -> None:
    """Run the demo, and take the pictures."""
    from playwright.async_api import async_playwright  # noqa: PLC0415 -- a test reads the names of pages without it

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is not installed. Install it (apt-get install chromium), then run this again.")
    demo = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bridge",
        "demo",
        "--keep",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        server, admin = await _addresses(demo)
        red = await _play(server, admin)
        for path in IMAGES.glob("*.png"):
            path.unlink()  # also of pages that are gone
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for theme in THEMES:
                await _take(browser, admin, theme, red)
    finally:
        demo.terminate()
        await demo.wait()


async def _addresses(demo: asyncio.subprocess.Process) -> tuple[str, str]:
    if demo.stdout is None:
        raise RuntimeError("The demo has no output.")
    found: dict[str, str] = {}
    async for line in demo.stdout:
        if match := re.match(r"(Server|Admin) +(http://\S+)", line.decode()):
            found[match[1]] = match[2]
        if line.startswith(b"Running until"):
            break
    return found["Server"], found["Admin"]


async def _play(server: str, admin: str) -> int:
    """Upload a file that is rejected, and return the id of a report with failures."""
    query = {"job_id": JOB, "build_no": str(NUMBER), "node_id": "checkout"}
    form = aiohttp.FormData()
    form.add_field("file", REJECTED, filename="TEST-checkout.xml")
    async with aiohttp.ClientSession() as http:
        await http.post(
            f"{server}/v1/report/junit/report/upload", params=query, data=form, headers={"X-Auth-Token": "x"}
        )
        for number in TESTS_BUILDS:
            form = aiohttp.FormData()
            form.add_field("file", _cart(number), filename="TEST-cart.xml")
            commit = hashlib.sha256(bytes([number // 2])).hexdigest()[:40]
            query = {"job_id": TESTS_JOB, "build_no": str(number), "node_id": "unit", "commit": commit}
            await http.post(
                f"{server}/v1/report/junit/report/upload", params=query, data=form, headers={"X-Auth-Token": "x"}
            )
        async with http.get(f"{admin}/api/v1/routes") as answer:
            route = (await answer.json())["routes"][0]["name"]
        for action in ("pause", "resume"):  # for the audit log
            await http.post(f"{admin}/api/v1/routes/{route}/{action}")
        async with http.get(f"{admin}/api/v1/builds", params={"job_id": JOB, "build_no": str(NUMBER)}) as answer:
            (build,) = (await answer.json())["builds"]
    return next(int(report["id"]) for report in build["reports"] if report["failures"])


def _cart(number: int) -> bytes:
    """Return a report of a job with a flaky test, a slow one, and a browser that is updated."""
    browser = "Chrome 141.0.7390.54" if number < TESTS_BUILDS[-2] else "Chrome 142.0.7444.59"
    failure = '<failure message="timed out"/>' if number in (TESTS_BUILDS[1], TESTS_BUILDS[-1]) else ""
    slow = 31.4 if number == TESTS_BUILDS[-3] else 1.2
    names = ("adds a book", "removes a book", "shows the total", "remembers the cart", "empties the cart")
    cases = "".join(f'<testcase classname="{browser} (Linux).cart" name="{name}" time="0.4"/>' for name in names)
    return (
        f'<testsuite name="shop">{cases}<testcase classname="shop.search" name="finds a title" time="{slow}"/>'
        f'<testcase classname="shop.checkout" name="pays by card" time="0.9">{failure}</testcase>'
        f'<testcase classname="shop.orders" name="order {48211 + number * 37} is paid" time="0.3"/></testsuite>'
    ).encode()


async def _take(browser: "Browser", admin: str, theme: str, red: int) -> None:
    context = await browser.new_context(color_scheme="dark" if theme == "dark" else "light", viewport=SIZE)
    page = await context.new_page()
    for name, path in PAGES.items():
        await page.goto(admin + path.format(red=red))
        await page.screenshot(path=IMAGES / picture(name, theme), full_page=name == "tests")


if __name__ == "__main__":
    asyncio.run(main())
