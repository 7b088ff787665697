"""The application of the server listener: uploads, build status, webhook, health, and the proxy for all other paths."""

from collections.abc import Awaitable, Callable
from typing import NoReturn

from aiohttp import web

from bridge.errors import NotFound
from bridge.server.build_status import STATUS_PATH
from bridge.server.config import ServerConfig
from bridge.server.health import Readiness
from bridge.server.http.requests import forwarded, handle_expect
from bridge.server.http.responses import handle_errors, quote_for_display
from bridge.server.upload.handler import UPLOAD_PATH
from bridge.server.webhook import WEBHOOK_PATH

ANY_PATH = "/{path:.*}"
OWN_PATHS = ("/bridge/{path:.*}", "/hooks/{path:.*}")
"""CodeArts has nothing below these, so a mistyped path of the bridge gets 404 and is never forwarded."""


def server_app(config: Callable[[], ServerConfig], readiness: Readiness) -> web.Application:
    """Return the application of the server listener; `config` returns the configuration for each new request."""
    app = web.Application(middlewares=[forwarded(lambda: config().trusted_proxies), handle_errors])

    async def upload(request: web.Request) -> web.StreamResponse:
        return await config().upload.upload(request)

    async def status(request: web.Request) -> web.StreamResponse:
        return await config().build_status.show(request)

    async def webhook(request: web.Request) -> web.StreamResponse:
        return await config().webhook.receive(request)

    async def forward(request: web.Request) -> web.StreamResponse:
        proxy = config().proxy
        return await (_not_found(request) if proxy is None else proxy.forward(request))

    for path in (UPLOAD_PATH, f"{UPLOAD_PATH}/"):  # some servers ignore a final slash
        app.router.add_post(path, upload, expect_handler=handle_expect)
        app.router.add_route("*", path, _only("POST"), expect_handler=handle_expect)
    app.router.add_route("*", WEBHOOK_PATH, webhook, expect_handler=handle_expect)
    for path, handler in (
        (STATUS_PATH, status),
        ("/livez", readiness.livez),
        ("/readyz", readiness.readyz_status),
    ):
        app.router.add_get(path, handler, expect_handler=handle_expect)
        app.router.add_route("*", path, _only("GET", "HEAD"), expect_handler=handle_expect)
    for path in OWN_PATHS:
        app.router.add_route("*", path, _not_found, expect_handler=handle_expect)
    app.router.add_route("*", ANY_PATH, forward, expect_handler=handle_expect)
    return app


def _only(*methods: str) -> Callable[[web.Request], Awaitable[NoReturn]]:
    async def reject(request: web.Request) -> NoReturn:
        raise web.HTTPMethodNotAllowed(request.method, methods)

    return reject


async def _not_found(request: web.Request) -> NoReturn:
    raise NotFound(
        f"The bridge has nothing at {request.method} {quote_for_display(request.path)}. "
        f"Upload reports to {UPLOAD_PATH}, and send other requests to CodeArts itself."
    )
