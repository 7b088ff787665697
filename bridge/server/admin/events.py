"""The admin API's events: a server-sent event whenever something changed that a page shows."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from aiohttp import web

from bridge.errors import Unauthenticated, Unavailable
from bridge.server.admin.identification import Identification
from bridge.store.console import PageFigures, page_figures
from bridge.store.engine.base import Database

EVENTS_PATH: Final = "/api/v1/events"
LOOK_SECONDS: Final = 1.0
KEEP_ALIVE_SECONDS: Final = 15.0
MAX_STREAMS: Final = 100
"""Streams at once; each is a connection. A page of a stream too many polls."""

HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventsApi:
    """The handler of /api/v1/events. The ledger is read once a second for all streams, and only while there are any."""

    def __init__(self, *, database: Database, identification: Identification, stopping: Callable[[], bool]) -> None:
        self._database = database
        self._identification = identification
        self._stopping = stopping
        self._streams = 0
        self._watcher: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._count = 0
        self._figures: PageFigures | None = None

    def add_routes(self, app: web.Application) -> None:
        """Add the handler to `app`."""
        app.router.add_get(EVENTS_PATH, self.events, allow_head=False)
        app.on_shutdown.append(self._stop)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send `change` events until the client leaves or may not see them any more.

        The data has the figures after the change.
        """
        if self._streams >= MAX_STREAMS:
            raise Unavailable(f"{MAX_STREAMS} clients follow the events already. Poll instead, or try again later.")
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        self._streams += 1
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(), name="console events")
        try:
            await response.write(b"retry: 3000\n\n")
            seen, loop = self._count, asyncio.get_running_loop()
            identified_at = loop.time()
            while not self._stopping():
                if loop.time() - identified_at >= KEEP_ALIVE_SECONDS:
                    if not await self._may_follow(request):
                        break
                    identified_at = loop.time()
                if await self._wait_for_change(seen):
                    seen = self._count
                    await response.write(self._event())
                else:
                    await response.write(b": still here\n\n")
        except ConnectionError:
            pass  # the client has left
        finally:
            self._streams -= 1
        return response

    async def _may_follow(self, request: web.Request) -> bool:
        """Return whether the person behind a stream is still known: the session may have ended, or the settings."""
        try:
            await self._identification.identify(request)
        except Unauthenticated:
            return False
        except Unavailable:  # the ledger shows it later
            pass
        return True

    async def _wait_for_change(self, seen: int) -> bool:
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS), self._changed:
                await self._changed.wait_for(lambda: self._count != seen or self._stopping())
        except TimeoutError:
            return False
        return self._count != seen

    def _event(self) -> bytes:
        found = self._figures
        data = {} if found is None else {"unfinished_builds": found.unfinished, "newest_build_id": found.builds}
        return f"event: change\nid: {self._count}\ndata: {json.dumps(data)}\n\n".encode()

    async def _watch(self) -> None:
        while self._streams and not self._stopping():
            found = self._figures
            with suppress(Unavailable):  # readiness shows it
                found = await self._database.read(page_figures)
            if found != self._figures:
                async with self._changed:
                    self._count += self._figures is not None
                    self._figures = found
                    self._changed.notify_all()
            await asyncio.sleep(LOOK_SECONDS)
        async with self._changed:
            self._changed.notify_all()

    async def _stop(self, _app: web.Application) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        async with self._changed:
            self._changed.notify_all()
