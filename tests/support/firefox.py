"""Debian's Firefox, driven by WebDriver BiDi, which it speaks itself: it needs no other program.

https://www.w3.org/TR/webdriver-bidi/
"""

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
LISTENS = re.compile(rb"WebDriver BiDi listening on (ws://\S+)")
PATIENCE_SECONDS = 90.0
"""For what comes at once unless the machine is busy."""

COLLECT_VIOLATIONS = (
    "() => document.addEventListener('securitypolicyviolation', e => console.error(e.violatedDirective))"
)


class FirefoxTab:
    """One tab; `faults` are script errors, errors in its console, and violations of a page's content policy."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection = connection
        self._number = 0
        self._context = ""
        self.faults: list[str] = []

    async def open(self) -> None:
        """Begin the session and open the tab."""
        await self._command("session.new", capabilities={})
        await self._command("session.subscribe", events=["log.entryAdded"])
        self._context = (await self._command("browsingContext.create", type="tab"))["context"]

    async def go(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        await self._command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        target = {"context": self._context}
        done = await self._command("script.evaluate", expression=expression, target=target, awaitPromise=True)
        if done["type"] != "success":
            raise AssertionError(done["exceptionDetails"]["text"])
        return done["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true, also over changes of the page."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    if await self.run(f"Boolean({expression})"):
                        return
                except AssertionError:  # the page is being replaced
                    pass
                await asyncio.sleep(0.05)

    async def click(self, selector: str, text: str = "") -> None:
        """Click the first element that matches `selector` and contains `text`, once there is one."""
        found = f"[...document.querySelectorAll({selector!r})].find(e => e.textContent.includes({text!r}))"
        await self.until(found)
        await self.run(f"{found}.click()")

    async def _command(self, method: str, **parameters: object) -> Any:
        self._number += 1
        await self._connection.send_json({"id": self._number, "method": method, "params": parameters})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                message = await self._connection.receive_json()
                if message.get("method") == "log.entryAdded":
                    entry = message["params"]
                    if entry["level"] == "error":
                        self.faults.append(entry["text"])
                elif message.get("id") == self._number:
                    if message["type"] == "error":
                        raise AssertionError(f"{method}: {message['message']}")
                    return message["result"]


@asynccontextmanager
async def firefox_tab() -> AsyncIterator[FirefoxTab]:
    """Start Firefox with a new profile and yield its tab; end it afterwards."""
    with tempfile.TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            *(FIREFOX or "firefox", "--headless", "--no-remote", "--remote-debugging-port", "0", "--profile", profile),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            url = await asyncio.wait_for(_address(process), PATIENCE_SECONDS)
            async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/session", max_msg_size=0) as connection:
                tab = FirefoxTab(connection)
                await tab.open()
                yield tab
        finally:
            process.terminate()
            await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    if process.stderr is None:
        raise RuntimeError("Firefox has no output.")
    async for line in process.stderr:
        if found := LISTENS.search(line):
            return found[1].decode()
    raise RuntimeError("Firefox ended before it listened.")
