"""Trace the requests to the server listener. Without a tracer its application does not have this middleware."""

from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from bridge.telemetry.traces import HttpRequest

if TYPE_CHECKING:
    from bridge.telemetry.otel import Tracer

UNTRACED: Final = frozenset({"/livez", "/readyz"})
"""Health checks come every few seconds and are part of no upload."""

ANY_PATH: Final = "/{path}"


def traced(tracer: "Tracer") -> Middleware:
    """Return the middleware that makes a span of each request; it needs the client's address in `request.remote`."""

    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in UNTRACED:
            return await handler(request)
        resource = request.match_info.route.resource
        route = "" if resource is None or resource.canonical == ANY_PATH else resource.canonical
        headers = request.headers
        host, port = _host_and_port(request.host)
        seen = HttpRequest(
            method=request.method,
            route=route,
            path=request.rel_url.raw_path,
            scheme=request.scheme,
            host=host,
            port=port,
            client=request.remote or "",
            user_agent=headers.get("User-Agent", ""),
            traceparent=headers.getall("traceparent", ()),
            tracestate=headers.getall("tracestate", ()),
        )
        with tracer.request(seen) as span:
            response = await handler(request)
            span.set_status(response.status)
            return response

    return trace


def _host_and_port(header: str) -> tuple[str, int | None]:
    """Return name and port of a Host header, which may be anything."""
    name, colon, port = header.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        return header, None
    return name, int(port[:5])
