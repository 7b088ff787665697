"""How many requests are under way, so that whoever wants to stop can wait until all have their answers.

It knows no handler. A listener that shuts down reads nothing more (aiohttp drops what still arrives), so uploads that
have begun must have ended before.
"""

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware


class UnderWay:
    """Counts the requests of one application, by its outermost middleware."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def watch(self, app: web.Application) -> None:
        """Count every request of `app` from now on; it must not be served yet."""
        app.middlewares.insert(0, self._counted())

    async def ended(self) -> None:
        """Return when no request is under way."""
        await self._none.wait()

    def _counted(self) -> Middleware:
        @web.middleware
        async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._count += 1
            self._none.clear()
            try:
                return await handler(request)
            finally:
                self._count -= 1
                if not self._count:
                    self._none.set()

        return counted
