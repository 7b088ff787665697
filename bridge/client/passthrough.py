"""Forwards requests to one upstream byte for byte, over connections of its own.

aiohttp supplies connections (pool, DNS, TLS) and parses responses; requests are written here. aiohttp's ClientSession
would not do: it drops an empty query and header bytes that are not UTF-8, adds Content-Length to requests without a
body, repeats PUT and DELETE, and does not expose whether the body is still being sent.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp import hdrs
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage, StreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from bridge.client.outbound_proxy import DIRECT, OutboundProxy
from bridge.client.session import describe_failure
from bridge.errors import BadGateway, GatewayTimeout
from bridge.values import dataclass

CONNECT_SECONDS: Final = 10.0
"""For DNS, TCP and TLS; an upstream that takes longer is treated as unreachable."""

PIECE_BYTES: Final = 256 * 1024
"""How much is read at once; smaller pieces cost CPU, larger ones memory for every slow reader."""

MAX_HEADER_BYTES: Final = 128 * 1024
"""IAM returns tokens of up to 100,000 characters in a header; aiohttp's default limit is 8,190."""

RETRIED_METHODS: Final = frozenset({"GET", "HEAD"})
"""Sent once more over a new connection if an idle one turns out to be closed."""

PROXY_AUTHENTICATION_REQUIRED: Final = 407

CONNECTION_CLOSED: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError)
"""How a request over an idle connection fails if the upstream has closed it meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyRequest:
    """A request as it is written: `target` is path and query; `headers` are all but Host and Transfer-Encoding."""

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: AsyncIterator[bytes] | None = None  # of Content-Length bytes; chunked if that header is missing


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyResponse:
    """A response whose head was received; the body is read from `content`, still encoded, as fast as it is consumed."""

    status: int
    reason: str
    headers: Sequence[tuple[bytes, bytes]]
    content: aiohttp.StreamReader

    @property
    def has_length(self) -> bool:
        """Return whether Content-Length states where the body ends."""
        return any(name.lower() == b"content-length" for name, _ in self.headers)


class UpstreamConnection:
    """Connections to one upstream, at most `max_connections`; a path in `endpoint` precedes every target."""

    def __init__(self, endpoint: str, *, max_connections: int, outbound_proxy: OutboundProxy = DIRECT) -> None:
        self._url = URL(endpoint)
        self._host = self._url.host_port_subcomponent or ""
        self.prefix = self._url.raw_path.rstrip("/")
        self._connector = aiohttp.TCPConnector(limit=max_connections, ssl=outbound_proxy.trust or True)
        # The connector reads only the address from it, so one object serves all calls.
        self._connect_request = ClientRequest(
            "GET", self._url, loop=asyncio.get_running_loop(), proxy=outbound_proxy.proxy_for(self._url)
        )
        self._timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connector.close()

    @property
    def host(self) -> str:
        """Return the value of Host: the upstream's name, with its port if that is not the default."""
        return self._host

    @property
    def origin(self) -> URL:
        """Return scheme, host and port of the upstream."""
        return self._url.origin()

    @asynccontextmanager
    async def exchange(self, request: ProxyRequest) -> AsyncIterator[ProxyResponse]:
        """Send a request and yield its response; the connection is reused if both were complete.

        Raises BadGateway or GatewayTimeout if there is no response. Reading `content` raises ConnectionError if the
        connection is closed early. Errors of the iterator `body` are raised, unless the response came first.
        """
        try:
            connection, response, sending = await self._send_with_retry(request)
        except _BodyFailed as error:
            raise error.reason from error
        try:
            yield response
        except BaseException:
            connection.close()
            raise
        finally:
            if sending is not None and not sending.done():  # the response came before the whole body was sent
                connection.close()
            await _cancel(sending)
            connection.release()

    async def _send_with_retry(
        self, request: ProxyRequest
    ) -> tuple[Connection, ProxyResponse, "asyncio.Task[None] | None"]:
        try:
            return await self._send(request)
        except CONNECTION_CLOSED as error:
            if request.body is not None or request.method not in RETRIED_METHODS:
                raise self._bad_gateway(error) from error
        try:
            return await self._send(request)
        except CONNECTION_CLOSED as error:
            raise self._bad_gateway(error) from error

    async def _send(self, request: ProxyRequest) -> tuple[Connection, ProxyResponse, "asyncio.Task[None] | None"]:
        connection = await self._connect()
        sending = None
        try:
            sending = await self._write(connection, request)
            return connection, await self._read_head(connection), sending
        except BaseException:
            connection.close()
            await _cancel(sending)
            raise

    async def _connect(self) -> Connection:
        try:
            return await self._connector.connect(self._connect_request, traces=[], timeout=self._timeout)
        except TimeoutError as error:
            raise GatewayTimeout(
                f"CodeArts could not be reached in {CONNECT_SECONDS:g} seconds. Try again in a moment."
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._bad_gateway(error) from error

    def _bad_gateway(self, error: Exception) -> BadGateway:
        return BadGateway(f"CodeArts did not respond: {describe_failure(error)}. Try again in a moment.")

    async def _write(self, connection: Connection, request: ProxyRequest) -> "asyncio.Task[None] | None":
        protocol = connection.protocol
        if protocol is None:
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(
            skip_payload=request.method == hdrs.METH_HEAD,
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=PIECE_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        writer = StreamWriter(protocol, asyncio.get_running_loop())
        has_length = any(name.lower() == b"content-length" for name, _ in request.headers)
        is_chunked = request.body is not None and not has_length
        await writer.write(self._head(request, is_chunked=is_chunked))
        if request.body is None:
            return None
        if is_chunked:
            writer.enable_chunking()
        return asyncio.create_task(_send_body(connection, writer, request.body))

    def _head(self, request: ProxyRequest, *, is_chunked: bool) -> bytes:
        target = self.prefix.encode("ascii") + request.target
        lines = [b"Host: " + self._host.encode("ascii")]
        if self._connect_request.proxy is not None and not self._connect_request.is_ssl():
            target = str(self._url.origin()).encode("ascii") + target
            proxy_authorization = self._connect_request.headers.get(hdrs.PROXY_AUTHORIZATION)
            lines += [b"Proxy-Authorization: " + proxy_authorization.encode("latin-1")] if proxy_authorization else []
        lines += [name + b": " + value for name, value in request.headers]
        if is_chunked:
            lines.append(b"Transfer-Encoding: chunked")
        return b"\r\n".join([request.method.encode("ascii") + b" " + target + b" HTTP/1.1", *lines, b"", b""])

    async def _read_head(self, connection: Connection) -> ProxyResponse:
        protocol = connection.protocol
        if protocol is None:
            raise aiohttp.ServerDisconnectedError
        message: RawResponseMessage | None = None
        try:
            while message is None or (message.code < 200 and message.code != 101):
                message, content = await protocol.read()
        except HttpProcessingError as error:
            raise BadGateway("CodeArts sent a response that is not HTTP. Try again in a moment.") from error
        if message.code == PROXY_AUTHENTICATION_REQUIRED and self._connect_request.proxy is not None:
            raise BadGateway("The outbound proxy rejected its credentials. Have outbound.http_proxy fixed.")
        if message.code == 101 or not _is_framed(message):
            raise BadGateway("CodeArts sent a response that cannot be forwarded. Call CodeArts directly.")
        return ProxyResponse(status=message.code, reason=message.reason, headers=message.raw_headers, content=content)


class _BodyFailed(Exception):
    """The body could not be read from the caller."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def _send_body(connection: Connection, writer: StreamWriter, body: AsyncIterator[bytes]) -> None:
    """Send the body as fast as the upstream reads it; its errors are raised where the response is awaited."""
    with suppress(ConnectionError):  # closed by the upstream, which may have responded before
        async for piece in _forward_errors(connection, body):
            await writer.write(piece)
        if connection.protocol is not None and connection.protocol.exception() is None:
            await writer.write_eof()


async def _forward_errors(connection: Connection, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for piece in body:
            yield piece
    except Exception as error:  # noqa: BLE001 -- raised where the response is awaited
        if connection.protocol is not None:
            connection.protocol.set_exception(_BodyFailed(error))


async def _cancel(sending: "asyncio.Task[None] | None") -> None:
    if sending is not None:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


def _is_framed(message: RawResponseMessage) -> bool:
    """Return whether the only transfer coding is chunked; others would have to be decoded."""
    codings = message.headers.getall(hdrs.TRANSFER_ENCODING, [])
    return not codings or [coding.strip().lower() for coding in codings] == ["chunked"]
