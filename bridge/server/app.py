"""The application that CI reaches: the upload, what became of it, the hook, and whether the gateway is well.

It knows no handler's inside.
"""

from collections.abc import Sequence
from typing import NoReturn

from aiohttp import web

from bridge.errors import NotFound
from bridge.server.answers import answer_errors
from bridge.server.connection import meet_expectation
from bridge.server.forwarded import forwarded
from bridge.server.hook import HOOK_PATH, Hook
from bridge.server.intake import UPLOAD_PATH, Intake
from bridge.server.proxy.proxy import Proxy, expected
from bridge.server.readiness import Readiness
from bridge.server.status import STATUS_PATH, Status

ANY_PATH = "/{path:.*}"


def server_app(
    intake: Intake,
    status: Status,
    hook: Hook,
    readiness: Readiness,
    proxy: Proxy | None,
    trusted_proxies: Sequence[str] = (),
) -> web.Application:
    """Return the application of the server listener; without a `proxy`, other paths are answered 404.

    `trusted_proxies` as in the settings.
    """
    app = web.Application(middlewares=[forwarded(trusted_proxies), answer_errors])
    app.router.add_post(UPLOAD_PATH, intake.upload, expect_handler=meet_expectation)
    app.router.add_route("*", UPLOAD_PATH, _only_post, expect_handler=meet_expectation)
    app.router.add_get(STATUS_PATH, status.show, expect_handler=meet_expectation)
    app.router.add_route("*", HOOK_PATH, hook.hear, expect_handler=meet_expectation)
    app.router.add_get("/livez", readiness.livez)
    app.router.add_get("/readyz", readiness.readyz_status)
    if proxy is None:
        app.router.add_route("*", ANY_PATH, _not_here, expect_handler=meet_expectation)
    else:
        app.router.add_route("*", ANY_PATH, proxy.pass_on, expect_handler=expected)
    return app


async def _only_post(request: web.Request) -> NoReturn:
    raise web.HTTPMethodNotAllowed(request.method, ["POST"])


async def _not_here(request: web.Request) -> NoReturn:
    raise NotFound(
        f"The bridge has nothing at {request.method} {request.path}. "
        f"Reports are uploaded to {UPLOAD_PATH}; ask CodeArts itself for the rest."
    )
