"""The application that CI reaches: the upload, what became of it, the hook, and whether the gateway is well.

It knows no handler's inside.
"""

from collections.abc import Callable
from typing import NoReturn

from aiohttp import web

from bridge.errors import NotFound
from bridge.server.counter import Counter
from bridge.server.hook import HOOK_PATH
from bridge.server.http.answers import answer_errors
from bridge.server.http.connection import meet_expectation
from bridge.server.http.forwarded import forwarded
from bridge.server.proxy.proxy import expected
from bridge.server.readiness import Readiness
from bridge.server.status import STATUS_PATH
from bridge.server.upload.intake import UPLOAD_PATH

ANY_PATH = "/{path:.*}"


def server_app(counter: Callable[[], Counter], readiness: Readiness) -> web.Application:
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
        return await (_not_here(request) if proxy is None else proxy.pass_on(request))

    app.router.add_post(UPLOAD_PATH, upload, expect_handler=meet_expectation)
    app.router.add_route("*", UPLOAD_PATH, _only_post, expect_handler=meet_expectation)
    app.router.add_get(STATUS_PATH, show, expect_handler=meet_expectation)
    app.router.add_route("*", HOOK_PATH, hear, expect_handler=meet_expectation)
    app.router.add_get("/livez", readiness.livez)
    app.router.add_get("/readyz", readiness.readyz_status)
    app.router.add_route("*", ANY_PATH, pass_on, expect_handler=expected)
    return app


async def _only_post(request: web.Request) -> NoReturn:
    raise web.HTTPMethodNotAllowed(request.method, ["POST"])


async def _not_here(request: web.Request) -> NoReturn:
    raise NotFound(
        f"The bridge has nothing at {request.method} {request.path}. "
        f"Reports are uploaded to {UPLOAD_PATH}; ask CodeArts itself for the rest."
    )
