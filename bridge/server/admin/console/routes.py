"""The paths of the console. Its pages are imported with their first request: few gateways get one."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.typedefs import Handler

if TYPE_CHECKING:
    from bridge.server.admin.console.pages import ConsolePages

ROUTES: Final[Sequence[tuple[str, str, Callable[["ConsolePages"], Handler]]]] = (
    ("GET", "/", lambda pages: pages.overview),
    ("GET", "/builds", lambda pages: pages.builds),
    ("GET", "/builds/{job_id}/{build_no}", lambda pages: pages.build),
    ("GET", "/reports/{id}", lambda pages: pages.report),
    ("GET", "/tests", lambda pages: pages.tests),
    ("GET", "/rejections", lambda pages: pages.rejections),
    ("GET", "/rejections/{id}", lambda pages: pages.rejection),
    ("GET", "/audit", lambda pages: pages.audit),
    ("GET", "/act", lambda pages: pages.ask),
    ("POST", "/act", lambda pages: pages.act),
    ("GET", "/sign-in", lambda pages: pages.sign_in_form),
    ("POST", "/sign-in", lambda pages: pages.sign_in),
    ("POST", "/sign-out", lambda pages: pages.sign_out),
    ("GET", "/static/{name}", lambda pages: pages.static),
)


class Console:
    """Calls the pages that `new_pages` makes. It is called once, in a thread, because it imports them."""

    def __init__(self, new_pages: Callable[[], "ConsolePages"]) -> None:
        self._new_pages = new_pages
        self._opening: asyncio.Task[ConsolePages] | None = None

    def add_routes(self, app: web.Application) -> None:
        """Add the handlers to `app`."""
        app.on_cleanup.append(self._close)
        for method, path, handler_of in ROUTES:
            app.router.add_route(method, path, self._handler(handler_of))

    def _handler(self, handler_of: Callable[["ConsolePages"], Handler]) -> Handler:
        async def show(request: web.Request) -> web.StreamResponse:
            return await handler_of(await self._pages())(request)

        return show

    async def error(self, request: web.Request, status: int, message: str) -> web.Response:
        """Return the page of an error, for browsers."""
        return (await self._pages()).error(request, status, message)

    async def _pages(self) -> "ConsolePages":
        if self._opening is None:
            self._opening = asyncio.create_task(asyncio.to_thread(self._new_pages), name="console")
        return await asyncio.shield(self._opening)  # others may wait for it too

    async def _close(self, _app: web.Application) -> None:
        if self._opening is not None:
            (await self._opening).close()
