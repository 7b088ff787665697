"""The application of the server listener: uploads, build status, webhook, health, and the proxy for all other paths.

`/upload.sh` is a script that uploads with curl, for build machines without Python. It is the same for every caller and
needs no token. docs/upload.md has its digest.
"""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NoReturn

from aiohttp import ETag, web

from bridge.domain.text_format import quote_for_display
from bridge.errors import MethodNotAllowed, NotFound, WrongPath
from bridge.server.build_status import STATUS_PATH
from bridge.server.config import ServerConfig
from bridge.server.health import Readiness
from bridge.server.http.requests import UPLOAD_PATH, claimed_build, forwarded, handle_expect, resembles_upload_path
from bridge.server.http.responses import handle_errors
from bridge.server.http.tracing import traced
from bridge.server.submission.addresses import FILE_PATH
from bridge.server.submission.api import API_PATH
from bridge.server.webhook import WEBHOOK_PATH

if TYPE_CHECKING:
    from bridge.telemetry.otel import Tracer

UPLOAD_SCRIPT_PATH: Final = "/upload.sh"
ANY_PATH = "/{path:.*}"
OWN_PATHS = ("/bridge/{path:.*}", "/hooks/{path:.*}", "/integrations/{path:.*}")
"""CodeArts has nothing below these, so a mistyped path of the bridge gets 404 and is never forwarded."""


def server_app(
    config: Callable[[], ServerConfig], readiness: Readiness, tracer: "Tracer | None" = None
) -> web.Application:
    """Return the application of the server listener; `config` returns the configuration for each new request."""
    tracing = [] if tracer is None else [traced(tracer)]
    app = web.Application(middlewares=[forwarded(lambda: config().trusted_proxies), *tracing, handle_errors])
    handlers = _Handlers(config)
    for path in (UPLOAD_PATH, f"{UPLOAD_PATH}/"):  # some servers ignore a final slash
        app.router.add_post(path, handlers.upload, expect_handler=handle_expect)
        app.router.add_route("*", path, handlers.reject_method, expect_handler=handle_expect)
    for call, handler in (
        ("upload", handlers.register),
        ("finalize", handlers.finalize),
        ("upload_failed", handlers.upload_failed),
    ):
        app.router.add_post(f"{API_PATH}/{call}", handler, expect_handler=handle_expect)
        app.router.add_route("*", f"{API_PATH}/{call}", _only("POST"), expect_handler=handle_expect)
    app.router.add_put(f"{FILE_PATH}/{{id}}", handlers.put_file, expect_handler=handle_expect)
    app.router.add_route("*", f"{FILE_PATH}/{{id}}", handlers.reject_file, expect_handler=handle_expect)
    app.router.add_route("*", WEBHOOK_PATH, handlers.receive_notice, expect_handler=handle_expect)
    for path, shows in (
        (STATUS_PATH, handlers.show_status),
        ("/livez", readiness.livez),
        ("/readyz", readiness.readyz_status),
        (UPLOAD_SCRIPT_PATH, _serving(read_upload_script())),
    ):
        app.router.add_get(path, shows, expect_handler=handle_expect)
        app.router.add_route("*", path, _only("GET", "HEAD"), expect_handler=handle_expect)
    for path in OWN_PATHS:
        app.router.add_route("*", path, handlers.reject_path, expect_handler=handle_expect)
    app.router.add_route("*", ANY_PATH, handlers.forward, expect_handler=handle_expect)
    return app


class _Handlers:
    """Passes each request to the handler of the configuration that is current when it arrives."""

    def __init__(self, config: Callable[[], ServerConfig]) -> None:
        self._config = config

    async def upload(self, request: web.Request) -> web.StreamResponse:
        return await self._config().upload.upload(request)

    async def register(self, request: web.Request) -> web.StreamResponse:
        return await self._config().submission.register(request)

    async def finalize(self, request: web.Request) -> web.StreamResponse:
        return await self._config().submission.finalize(request)

    async def upload_failed(self, request: web.Request) -> web.StreamResponse:
        return await self._config().submission.upload_failed(request)

    async def put_file(self, request: web.Request) -> web.StreamResponse:
        return await self._config().storage.put(request)

    async def reject_file(self, request: web.Request) -> web.StreamResponse:
        return await self._config().storage.reject_method(request)

    async def show_status(self, request: web.Request) -> web.StreamResponse:
        return await self._config().build_status.show(request)

    async def receive_notice(self, request: web.Request) -> web.StreamResponse:
        return await self._config().webhook.receive(request)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        proxy = self._config().proxy
        if proxy is None or resembles_upload_path(request):
            return await self.reject_path(request)
        return await proxy.forward(request)

    async def reject_path(self, request: web.Request) -> web.StreamResponse:
        found = f"The bridge has nothing at {request.method} {quote_for_display(request.path)}"
        if not resembles_upload_path(request):
            raise NotFound(f"{found}. Upload reports to {UPLOAD_PATH}, and send other requests to CodeArts itself.")
        error = WrongPath(f"{found}, so nothing was stored. Upload reports with POST to {UPLOAD_PATH}.")
        return await self._config().upload.reject(request, error)

    async def reject_method(self, request: web.Request) -> web.StreamResponse:
        if None in claimed_build(request.query):
            raise web.HTTPMethodNotAllowed(request.method, ("POST",))
        error = MethodNotAllowed(f"{request.method} is not the method of an upload. Send the reports with POST.")
        response = await self._config().upload.reject(request, error)
        response.headers["Allow"] = "POST"
        return response


def read_upload_script() -> bytes:
    """Return the script that is served at UPLOAD_SCRIPT_PATH."""
    return (files("bridge.server") / "upload.sh").read_bytes()


def _serving(script: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that answers with the script, or 304 if the client has it; the ETag is its digest."""
    digest = sha256(script).hexdigest()

    async def show(request: web.Request) -> web.Response:
        known = {tag.value for tag in request.if_none_match or ()}
        if known & {digest, "*"}:
            response = web.Response(status=304)
        else:
            response = web.Response(body=script, content_type="text/x-shellscript", charset="utf-8")
        response.etag = ETag(digest)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return show


def _only(*methods: str) -> Callable[[web.Request], Awaitable[NoReturn]]:
    async def reject(request: web.Request) -> NoReturn:
        raise web.HTTPMethodNotAllowed(request.method, methods)

    return reject
