"""The application that CI reaches: the upload, what became of it, the hook, and whether the gateway is well.

It knows no handler's inside.
"""

from collections.abc import Awaitable, Callable
from typing import NoReturn

from aiohttp import web

from bridge.errors import NotFound
from bridge.server.build_status import STATUS_PATH
from bridge.server.handlers import Handlers
from bridge.server.health import Readiness
from bridge.server.http.forwarded import forwarded
from bridge.server.http.listener import meet_expectation
from bridge.server.http.responses import answer_errors, quote_for_display
from bridge.server.proxy.handler import defer_100_continue
from bridge.server.upload.handler import UPLOAD_PATH
from bridge.server.webhook import WEBHOOK_PATH

ANY_PATH = "/{path:.*}"
OWN_PATHS = ("/bridge/{path:.*}", "/hooks/{path:.*}")
"""Nothing of CodeArts stands there: a slip in a path of the bridge's own is told, and never passed on."""


def server_app(counter: Callable[[], Handlers], readiness: Readiness) -> web.Application:
    """Return the application of the server listener; `counter` says for each request who answers it."""
    app = web.Application(middlewares=[forwarded(lambda: counter().trusted_proxies), answer_errors])

    async def upload(request: web.Request) -> web.StreamResponse:
        return await counter().intake.upload(request)

    async def show(request: web.Request) -> web.StreamResponse:
        return await counter().status.show(request)

    async def hear(request: web.Request) -> web.StreamResponse:
        return await counter().hook.hear(request)

    async def pass_on(request: web.Request) -> web.StreamResponse:
        proxy = counter().proxy
        return await (_not_here(request) if proxy is None else proxy.forward(request))

    for path in (UPLOAD_PATH, f"{UPLOAD_PATH}/"):  # to some servers a slash at the end is none
        app.router.add_post(path, upload, expect_handler=meet_expectation)
        app.router.add_route("*", path, _only("POST"), expect_handler=meet_expectation)
    app.router.add_route("*", WEBHOOK_PATH, hear, expect_handler=meet_expectation)
    for path, handler in (
        (STATUS_PATH, show),
        ("/livez", readiness.livez),
        ("/readyz", readiness.readyz_status),
    ):
        app.router.add_get(path, handler, expect_handler=meet_expectation)
        app.router.add_route("*", path, _only("GET", "HEAD"), expect_handler=meet_expectation)
    for path in OWN_PATHS:
        app.router.add_route("*", path, _not_here, expect_handler=meet_expectation)
    app.router.add_route("*", ANY_PATH, pass_on, expect_handler=defer_100_continue)
    return app


def _only(*methods: str) -> Callable[[web.Request], Awaitable[NoReturn]]:
    async def refuse(request: web.Request) -> NoReturn:
        raise web.HTTPMethodNotAllowed(request.method, methods)

    return refuse


async def _not_here(request: web.Request) -> NoReturn:
    raise NotFound(
        f"The bridge has nothing at {request.method} {quote_for_display(request.path)}. "
        f"Reports are uploaded to {UPLOAD_PATH}; ask CodeArts itself for the rest."
    )
