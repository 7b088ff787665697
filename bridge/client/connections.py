"""Requests over aiohttp's connections, without its ClientSession.

aiohttp supplies the pool, DNS, TLS, the tunnel through a proxy, and the parser of responses; requests are written here.
A ClientSession takes twice as long for a call: it prepares cookies, redirects and retries, and starts a task for each
body. What is used below aiohttp's public API is in this module and in `passthrough.py`.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterable, Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp
from aiohttp import hdrs
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.http import StreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

MAX_ADDRESSES: Final = 64
"""Upstreams that are remembered: storage may have a host for each bucket."""

MAX_WRITE_BYTES: Final = 64 * 1024
"""A body of at most this size is written at once, with its head: a transport buffers as much without a pause."""

END_SECONDS: Final = 5.0
"""For which a success waits until the body has ended too: its last read may take a moment on a busy machine."""

SCHEMES: Final = ("http", "https")
BODILESS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
"""Methods whose requests have no Content-Length if they have no body."""

FAILURES: Final = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)
"""What `connect` and `call` raise if there is no response; `describe_failure` has texts for them."""

Body = bytes | AsyncIterable[bytes] | None


class UnusableResponse(Exception):
    """A response with this HTTP status came, but cannot be used."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Response(NamedTuple):
    """A whole response; the names of headers are in lower case, the body is as it was sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """Connections to any upstreams, at most `limit` at once, all of them through `proxy` if it is given.

    `guard` makes the sockets, and may refuse an address. A header line of a response has at most `max_header_bytes`.
    """

    def __init__(
        self,
        *,
        limit: int,
        max_header_bytes: int,
        trust: ssl.SSLContext | None = None,
        proxy: URL | None = None,
        guard: Callable[[aiohttp.AddrInfoType], socket.socket] | None = None,
    ) -> None:
        self._connector = aiohttp.TCPConnector(limit=limit, ssl=trust or True, socket_factory=guard)
        self._max_header_bytes = max_header_bytes
        self._proxy = proxy
        self._addresses: dict[tuple[str, str | None, int | None], ClientRequest] = {}

    async def close(self) -> None:
        """Close all connections."""
        await self._connector.close()

    async def connect(self, url: URL, *, seconds: float) -> Connection:
        """Return a connection to the host of `url`, for `call`; `seconds` includes waiting for a free one."""
        try:
            return await self._connector.connect(self._address_of(url), traces=[], timeout=_timeout(seconds))
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error

    def _address_of(self, url: URL) -> ClientRequest:
        """Return what the connector reads the host's address from: one object for all calls."""
        key = (url.scheme, url.raw_host, url.port)
        address = self._addresses.get(key)
        if address is None:
            if url.scheme not in SCHEMES or not url.raw_host:
                raise aiohttp.InvalidURL(url)
            if len(self._addresses) >= MAX_ADDRESSES:
                self._addresses.clear()
            address = ClientRequest("GET", url.origin(), loop=asyncio.get_running_loop(), proxy=self._proxy)
            self._addresses[key] = address
        return address

    async def call(  # noqa: PLR0913 -- a request and its limits
        self,
        connection: Connection,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: Body,
        *,
        give_up_at: float,
        read_seconds: float,
        max_answer_bytes: int,
    ) -> Response:
        """Send a request and return its response; `connection` is then free for other calls, or closed.

        `headers` are without line breaks, and all that is sent but Host and, for bytes, Content-Length. Raise
        TimeoutError if the response is not complete at `give_up_at` (time of the event loop), or a piece of it takes
        longer than `read_seconds`; UnusableResponse if its body is larger than `max_answer_bytes`.
        """
        protocol = connection.protocol
        if protocol is None or protocol.transport is None or protocol.transport.is_closing():
            connection.close()
            raise aiohttp.ServerDisconnectedError
        watch = _Watch(protocol, give_up_at, read_seconds)
        try:
            protocol.set_response_params(
                skip_payload=method == hdrs.METH_HEAD,
                read_until_eof=True,
                auto_decompress=False,
                max_field_size=self._max_header_bytes,
            )
            head = self._head(method, url, headers, body)
            if body is None or (isinstance(body, bytes) and len(body) <= MAX_WRITE_BYTES):
                protocol.transport.write(head + body if body else head)
                watch.await_piece()
                return await _receive(protocol, max_answer_bytes, watch)
            sending = asyncio.create_task(_send(protocol, head, body, watch))
            try:
                response = await _receive(protocol, max_answer_bytes, watch)
                if response.status < 300:  # all has arrived, most probably, and the sender has still to see its end
                    await asyncio.wait((sending,), timeout=END_SECONDS)
                if not sending.done():  # the response came before the whole body was sent
                    connection.close()
                return response
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        except BaseException as error:
            connection.close()
            if watch.has_ended and isinstance(error, Exception):
                raise TimeoutError from error
            raise
        finally:
            watch.stop()
            connection.release()

    def _head(self, method: str, url: URL, headers: Mapping[str, str], body: Body) -> bytes:
        target = url.raw_path_qs
        lines = [] if hdrs.HOST in headers else [f"Host: {url.host_port_subcomponent}"]
        if self._proxy is not None and url.scheme == "http":
            target = f"{url.origin()}{target}"
            authorization = self._address_of(url).headers.get(hdrs.PROXY_AUTHORIZATION)
            lines += [f"Proxy-Authorization: {authorization}"] if authorization else []
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if hdrs.CONTENT_LENGTH not in headers and (body is not None or method not in BODILESS):
            if not isinstance(body, bytes | None):
                raise ValueError("An iterable body needs its own Content-Length header.")
            lines.append(f"Content-Length: {len(body or b'')}")
        return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode()


@lru_cache(maxsize=16)
def _timeout(connect_seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_seconds, sock_connect=connect_seconds)


class _Watch:
    """Aborts a connection at `give_up_at`, or if a piece of the response takes longer than `read_seconds`.

    One timer for a call: `asyncio.timeout` takes three times as long, and ResponseHandler's own limit has another.
    """

    def __init__(self, protocol: "ResponseHandler", give_up_at: float, read_seconds: float) -> None:
        self.has_ended = False  # too late for the call
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._give_up_at = give_up_at
        self._read_seconds = read_seconds
        self._timer: asyncio.TimerHandle | None = None

    def await_end(self) -> None:
        """Wait until the end for what comes next."""
        self._set(self._give_up_at)

    def await_piece(self) -> None:
        """Wait for the next piece of the response."""
        self._set(min(self._give_up_at, self._loop.time() + self._read_seconds))

    def stop(self) -> None:
        """Wait for nothing."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, at: float) -> None:
        self.stop()
        self._timer = self._loop.call_at(at, self._end)

    def _end(self) -> None:
        self.has_ended = True
        if self._protocol.transport is not None:
            self._protocol.transport.abort()


async def _send(protocol: "ResponseHandler", head: bytes, body: bytes | AsyncIterable[bytes], watch: _Watch) -> None:
    """Send a request as fast as the upstream reads it; a failure is raised where the response is awaited."""
    writer = StreamWriter(protocol, asyncio.get_running_loop())
    watch.await_end()
    try:
        await writer.write(head)
        if isinstance(body, bytes):
            await writer.write(body)
        else:
            async for piece in body:
                await writer.write(piece)
        await writer.write_eof()
    except OSError as error:
        protocol.set_exception(error)
    except Exception as error:  # noqa: BLE001 -- whatever a body raises ends its call
        protocol.set_exception(aiohttp.ClientConnectionError(f"the body failed ({type(error).__name__})"), error)
    else:
        watch.await_piece()


async def _receive(protocol: "ResponseHandler", max_bytes: int, watch: _Watch) -> Response:
    message, content = await protocol.read()
    while message.code < 200 and message.code != 101:  # informational (RFC 9110, section 15.2)
        message, content = await protocol.read()
    body = bytearray()
    while not content.at_eof():
        if not content.is_eof():
            watch.await_piece()
        body += await content.readany()
        if len(body) > max_bytes:
            fault = f"the response (HTTP {message.code}) is larger than {max_bytes // 1024} KiB"
            raise UnusableResponse(fault, status=message.code)
    return Response(message.code, {name.lower(): value for name, value in message.headers.items()}, bytes(body))
