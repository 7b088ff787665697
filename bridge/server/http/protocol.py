"""aiohttp's protocol of one connection, which counts the bytes of heads and answers malformed requests."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import hdrs, web
from aiohttp.http_exceptions import InvalidURLError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from bridge.errors import BadParameter, BridgeError
from bridge.server.http.responses import UNEXPECTED, failure_response, next_request_id
from bridge.telemetry.repeated_lines import log_refusal

MAX_HEAD_BYTES: Final = 256 * 1024
"""Of one request line with its headers. IAM tokens are documented up to 100,000 characters, and a request may have two;
aiohttp limits each of 128 headers, not their sum."""

MAX_SEGMENTS: Final = 256
"""Of a path. aiohttp looks up each beginning of a path, so that 32,000 slashes would take a tenth of a second."""

TOO_LONG = "The request's first line or one of its headers is too long. Send less in them."
TOO_LARGE_HEAD = f"The request's headers are larger than {MAX_HEAD_BYTES} bytes together. Send less in them."
TOO_DEEP = f"The request's path has more than {MAX_SEGMENTS} segments. Send fewer."
UNKNOWN_EXPECTATION = "The bridge cannot meet this Expect. Send the request without that header."
BAD_URL = (
    "The request is not well-formed HTTP/1.1: its URL cannot be read, so nothing of it was. "
    "Percent-encode what is not ASCII in it, or send such a value as a form field: curl -F branch=NAME."
)
MALFORMED = (
    "The request is not well-formed HTTP/1.1, so nothing of it was read. "
    "Let an HTTP library write the request line, the headers and the body's length."
)
KNOWN_FAULTS = {LineTooLong: TOO_LONG, InvalidURLError: BAD_URL}

_END_OF_HEAD: Final = b"\r\n\r\n"

_log = structlog.get_logger(__name__)


class UnreadableRequest(Exception):
    """No request can be made of a head: the HTTP status and the text of its answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


RequestFactory = Callable[..., web.BaseRequest]


def checked(make_request: RequestFactory) -> RequestFactory:
    """Return aiohttp's factory of requests, which raises UnreadableRequest before a request is routed."""

    def make(message: RawRequestMessage, *args: Any) -> web.BaseRequest:
        if message.path.partition("?")[0].count("/") > MAX_SEGMENTS:
            raise UnreadableRequest(400, TOO_DEEP)
        if message.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":  # RFC 9110, section 10.1.1
            raise UnreadableRequest(417, UNKNOWN_EXPECTATION)
        try:
            return make_request(message, *args)
        except ValueError as error:  # the host of a URL is no punycode
            raise UnreadableRequest(400, BAD_URL) from error

    return make


class Connection(web.RequestHandler):
    """aiohttp's protocol, which counts the bytes of heads and answers malformed requests in CodeArts' format."""

    __slots__ = ("_answered", "_arriving_bytes", "_body", "_tail", "_whole_bytes", "on_verified")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._body: StreamReader = EMPTY_PAYLOAD  # of the last request whose head has arrived
        self._whole_bytes = 0  # of that head
        self._arriving_bytes = 0  # of the next head, or since a piece of the body: trailers, extensions of chunks
        self._tail = b""
        self._answered = 0  # requests of this connection
        self.on_verified: Callable[[str], None] = lambda _: None

    async def start(self) -> None:
        """Serve requests, unless the connection was lost before this began: aiohttp asserts that it was not."""
        if self._manager is None:
            return
        try:
            await super().start()
        except UnreadableRequest as error:
            self._refuse(error)

    def _refuse(self, error: UnreadableRequest) -> None:
        """Answer a request that none can be made of, and close."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        response = failure_response(error.status, BadParameter.code, str(error))
        request_id = response.headers["X-Request-Id"] = next_request_id()
        address = self.peername[0] if self.peername else None
        log_refusal(_log.info, "request_malformed", address=address, fault=str(error), request_id=request_id)
        transport.write(raw_response(response, HTTPStatus(error.status).phrase))
        transport.close()

    @property
    def head_bytes(self) -> int:
        """The bytes of heads that are in memory."""
        return self._whole_bytes + self._arriving_bytes

    @property
    def is_reading_head(self) -> bool:
        """Whether a head has begun to arrive, and has not ended."""
        return self._arriving_bytes > 0

    @property
    def is_waiting_for_body(self) -> bool:
        """Whether the body of the last request has not ended, and the bridge has read all that has arrived of it."""
        return not (self._body.is_eof() or self._reading_paused)

    @property
    def owes_answer(self) -> bool:
        """Whether a request whose head has arrived is not answered; its handler may not have begun."""
        return self._request_count > self._answered

    def end_request(self) -> None:
        """Record that a request is answered; its head stays in memory while its body is still arriving."""
        self._answered += 1
        if self._body.is_eof():
            self._whole_bytes = 0

    def has_room(self, data: bytes = b"") -> bool:
        """Return whether what has arrived of a head or trailer, with `data` that follows, is within MAX_HEAD_BYTES."""
        if self._arriving_bytes + len(data) <= MAX_HEAD_BYTES:
            return True
        return self._arriving_bytes + (self._end_of_head(data) if self._body.is_eof() else 0) <= MAX_HEAD_BYTES

    def data_received(self, data: bytes) -> None:
        """Parse `data`, and count what of it belongs to a head."""
        if self._close or self._force_close:  # aiohttp reads nothing more, so the rest of a body is no head
            return
        requests, body_bytes, was_whole = self._request_count, self._body.total_bytes, self._body.is_eof()
        super().data_received(data)
        if self._request_count != requests and self._messages:
            end = self._end_of_head(data)
            self._whole_bytes, self._body = self._arriving_bytes + end, self._messages[-1][1]
            self._arriving_bytes = self._left_over(data, len(data) - end - self._body.total_bytes)
        elif self._body.total_bytes != body_bytes:
            self._arriving_bytes = self._left_over(data, len(data) + body_bytes - self._body.total_bytes)
        elif not self._reading_paused:
            self._arriving_bytes += len(data)
            if self._body.is_eof() and not was_whole and self.has_room():  # these are no part of the next head
                self._arriving_bytes = self._left_over(data, len(data))
        self._tail = (self._tail + data[-3:])[-3:]

    def _left_over(self, data: bytes, size: int) -> int:
        """Return how much of `data` is neither head nor body: at most `size`, which includes the framing of chunks."""
        if size <= 0 or self._reading_paused:  # the parser has not read all of it
            return 0
        if self._body.is_eof():  # a blank line is the last of a head, and of a chunked body
            size = min(size, len(data) - data.rfind(_END_OF_HEAD) - len(_END_OF_HEAD))
        return max(0, size)

    def _end_of_head(self, data: bytes) -> int:
        """Return where a head ends in `data`: its length if it does not."""
        if self._arriving_bytes:
            found = (self._tail + data[:3]).find(_END_OF_HEAD)
            if found >= 0:
                return found + len(_END_OF_HEAD) - len(self._tail)
        found = data.find(_END_OF_HEAD)
        return len(data) if found < 0 else found + len(_END_OF_HEAD)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- aiohttp's message repeats the request, tokens included
    ) -> web.StreamResponse:
        """Return the response to a request that no application can handle; raise ConnectionError if its client left."""
        if isinstance(exc, ConnectionError) and self.transport is None:
            raise exc
        request_id = next_request_id()
        fault = type(exc).__name__
        if status >= 500:
            log_refusal(_log.error, "connection_failed", address=request.remote, fault=fault, request_id=request_id)
        else:
            log_refusal(_log.info, "request_malformed", address=request.remote, fault=fault, request_id=request_id)
        if request.writer.output_size > 0:
            raise ConnectionResetError("A response has begun already, so no other can be sent.")
        if status >= 500:
            response = failure_response(status, BridgeError.code, UNEXPECTED)
        else:
            text = next((text for kind, text in KNOWN_FAULTS.items() if isinstance(exc, kind)), MALFORMED)
            response = failure_response(status, BadParameter.code, text)
        response.headers["X-Request-Id"] = request_id
        response.force_close()
        return response


def mark_verified(request: web.Request, party: str) -> None:
    """Record that the caller of a request is verified, so that its connection is not closed for strangers.

    `party` is what counts as one caller, if connections of verified callers have to make way for others.
    """
    if isinstance(request.protocol, Connection):
        request.protocol.on_verified(party)


def raw_response(response: web.Response, reason: str) -> bytes:
    """Return a response as the bytes that end a connection."""
    body = response.body if isinstance(response.body, bytes) else b""
    request_id = response.headers.get("X-Request-Id") or next_request_id()
    fields = {"Content-Type": "application/json; charset=utf-8", "X-Request-Id": request_id}
    fields |= {name: response.headers[name] for name in ("Retry-After",) if name in response.headers}
    fields |= {"Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {response.status} {reason}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
