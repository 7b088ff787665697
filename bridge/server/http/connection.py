"""One connection of a client: what is said to a request that is no HTTP, or HTTP that nobody should rely on.

It knows no application: what is well-formed goes to whichever listens.
"""

import structlog
from aiohttp import hdrs, web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import LineTooLong

from bridge.errors import BadParameter, BridgeError
from bridge.server.http.answers import UNEXPECTED, failure, next_request_id

TOO_LONG = "The request's first line or one of its headers is longer than the bridge takes. Send less in them."
MALFORMED = (
    "The request is not well-formed HTTP/1.1, so nothing of it was read. "
    "Let an HTTP library write the request line, the headers and the body's length."
)

_log = structlog.get_logger(__name__)


class Connection(web.RequestHandler):
    """Answers malformed requests in CodeArts' shape and closes; aiohttp would say plainly what it stumbled over."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- aiohttp's words repeat what came, tokens and all
    ) -> web.StreamResponse:
        """Answer where no application can, in our own words."""
        request_id = next_request_id()
        fault = type(exc).__name__
        if status >= 500:
            _log.error("connection_failed", fault=fault, request_id=request_id, address=request.remote)
        else:
            _log.info("request_malformed", fault=fault, request_id=request_id, address=request.remote)
        if request.writer.output_size > 0:
            raise ConnectionResetError("An answer has begun already, so no other can be sent.")
        answer = _answer(status, exc)
        answer.headers["X-Request-Id"] = request_id
        answer.force_close()
        return answer


class NoAccessLog(AbstractAccessLogger):
    """Writes nothing: the rooms log what they do, and know what must not be shown."""

    enabled = False

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write nothing."""


async def meet_expectation(request: web.Request) -> web.StreamResponse | None:
    """Ask for the body where the client waits for that, and refuse to promise anything else (RFC 9110, 10.1.1)."""
    if request.headers[hdrs.EXPECT].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # aiohttp takes what was written for the answer's beginning
        return None
    answer = failure(
        417, BadParameter.code, "The bridge cannot meet this Expect. Send the request without that header."
    )
    answer.headers["X-Request-Id"] = next_request_id()
    answer.force_close()
    return answer


def _answer(status: int, exc: BaseException | None) -> web.Response:
    if status >= 500:
        return failure(status, BridgeError.code, UNEXPECTED)
    return failure(status, BadParameter.code, TOO_LONG if isinstance(exc, LineTooLong) else MALFORMED)
