"""One upstream to which calls are passed on byte for byte, over connections of its own.

It knows no caller, no path rule and no credential. Connections (pool, names, TLS) and the reading of answers are
aiohttp's; what is sent is written here, because aiohttp's own requests drop an empty query and bytes that are no UTF-8.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
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

CONNECT_SECONDS: Final = 10.0
"""For name, TCP and TLS: an upstream that needs longer is away."""

PIECE_BYTES: Final = 256 * 1024
"""What the event loop reads at once; smaller pieces cost more turns, larger ones more memory for every slow reader."""

MAX_HEADER_BYTES: Final = 128 * 1024
"""IAM hands out tokens of up to 100,000 characters in a header; aiohttp's own limit is 8,190."""

SENT_AGAIN: Final = frozenset({"GET", "HEAD"})
"""Where an idle connection turns out to be closed: once more over a new one, as every proxy does."""

PROXY_WANTS_LOGIN: Final = 407

CLOSED: Final = (aiohttp.ServerDisconnectedError, ConnectionError)
"""What an idle connection fails with when the upstream has closed it meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyRequest:
    """A request as it is written: `target` is path and query, `headers` are all but Host and Transfer-Encoding."""

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: AsyncIterator[bytes] | None = None  # as long as Content-Length says, chunked where there is none


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyResponse:
    """An answer whose head has come; its body follows in `content`, packed as it is, no faster than it is taken."""

    status: int
    reason: str
    headers: Sequence[tuple[bytes, bytes]]
    content: aiohttp.StreamReader

    @property
    def has_length(self) -> bool:
        """Whether Content-Length says where the body ends."""
        return any(name.lower() == b"content-length" for name, _ in self.headers)


class UpstreamConnection:
    """The way to one upstream, for at most `places` calls at once; a path in `endpoint` stands before every target."""

    def __init__(self, endpoint: str, *, max_connections: int, outbound_proxy: OutboundProxy = DIRECT) -> None:
        self._url = URL(endpoint)
        self._host = self._url.host_port_subcomponent or ""
        self.prefix = self._url.raw_path.rstrip("/")
        self._connector = aiohttp.TCPConnector(limit=max_connections, ssl=outbound_proxy.trust or True)
        # Only whom to connect to is read of it, so one serves all calls.
        self._request = ClientRequest(
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
        """The upstream's name, with its port where that is not the scheme's own: what Host says."""
        return self._host

    @asynccontextmanager
    async def exchange(self, outgoing: ProxyRequest) -> AsyncIterator[ProxyResponse]:
        """Send a request and give its answer while the block lasts; the connection is used again after a whole one.

        Raise BadGateway or GatewayTimeout while there is no answer; reading `content` raises ConnectionError when it
        is cut. What the iterator `body` raises comes through, unless the answer was faster.
        """
        try:
            connection, incoming, sending = await self._answered(outgoing)
        except _Unsent as unsent:
            raise unsent.reason from unsent
        try:
            yield incoming
        except BaseException:
            connection.close()
            raise
        finally:
            if sending is not None and not sending.done():  # answered before all was sent
                connection.close()
            await _ended(sending)
            connection.release()

    async def _answered(self, outgoing: ProxyRequest) -> tuple[Connection, ProxyResponse, "asyncio.Task[None] | None"]:
        try:
            return await self._send(outgoing)
        except CLOSED as error:
            if outgoing.body is not None or outgoing.method not in SENT_AGAIN:
                raise self._away(error) from error
        try:
            return await self._send(outgoing)
        except CLOSED as error:
            raise self._away(error) from error

    async def _send(self, outgoing: ProxyRequest) -> tuple[Connection, ProxyResponse, "asyncio.Task[None] | None"]:
        connection = await self._connect()
        sending = None
        try:
            sending = await self._write(connection, outgoing)
            return connection, await self._read_head(connection), sending
        except BaseException:
            connection.close()
            await _ended(sending)
            raise

    async def _connect(self) -> Connection:
        try:
            return await self._connector.connect(self._request, traces=[], timeout=self._timeout)
        except TimeoutError as error:
            raise GatewayTimeout(
                f"CodeArts could not be reached in {CONNECT_SECONDS:g} seconds. Try again in a moment."
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> BadGateway:
        return BadGateway(f"CodeArts gave no answer: {describe_failure(error)}. Try again in a moment.")

    async def _write(self, connection: Connection, outgoing: ProxyRequest) -> "asyncio.Task[None] | None":
        protocol = connection.protocol
        if protocol is None:
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(
            skip_payload=outgoing.method == hdrs.METH_HEAD,
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=PIECE_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        writer = StreamWriter(protocol, asyncio.get_running_loop())
        has_length = any(name.lower() == b"content-length" for name, _ in outgoing.headers)
        is_chunked = outgoing.body is not None and not has_length
        await writer.write(self._head(outgoing, is_chunked=is_chunked))
        if outgoing.body is None:
            return None
        if is_chunked:
            writer.enable_chunking()
        return asyncio.create_task(_send_body(connection, writer, outgoing.body))

    def _head(self, outgoing: ProxyRequest, *, is_chunked: bool) -> bytes:
        target = self.prefix.encode("ascii") + outgoing.target
        lines = [b"Host: " + self._host.encode("ascii")]
        if self._request.proxy is not None and not self._request.is_ssl():
            target = str(self._url.origin()).encode("ascii") + target
            proof = self._request.headers.get(hdrs.PROXY_AUTHORIZATION)
            lines += [b"Proxy-Authorization: " + proof.encode("latin-1")] if proof else []
        lines += [name + b": " + value for name, value in outgoing.headers]
        if is_chunked:
            lines.append(b"Transfer-Encoding: chunked")
        return b"\r\n".join([outgoing.method.encode("ascii") + b" " + target + b" HTTP/1.1", *lines, b"", b""])

    async def _read_head(self, connection: Connection) -> ProxyResponse:
        protocol = connection.protocol
        if protocol is None:
            raise aiohttp.ServerDisconnectedError
        message: RawResponseMessage | None = None
        try:
            while message is None or (message.code < 200 and message.code != 101):
                message, content = await protocol.read()
        except HttpProcessingError as error:
            raise BadGateway("CodeArts answered with what is no HTTP. Try again in a moment.") from error
        if message.code == PROXY_WANTS_LOGIN and self._request.proxy is not None:
            raise BadGateway("The proxy on the way out wants other credentials. Have client.proxy mended.")
        if message.code == 101 or not _is_framed(message):
            raise BadGateway("CodeArts answered in a way that cannot be passed on. Ask CodeArts itself.")
        return ProxyResponse(status=message.code, reason=message.reason, headers=message.raw_headers, content=content)


class _Unsent(Exception):
    """The body could not be read from whoever sends it."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def _send_body(connection: Connection, writer: StreamWriter, body: AsyncIterator[bytes]) -> None:
    """Send the body no faster than the upstream takes it; whoever waits for the answer learns why it cannot come."""
    with suppress(ConnectionError):  # the upstream closed: it may have answered all the same
        async for piece in _told(connection, body):
            await writer.write(piece)
        if connection.protocol is not None and connection.protocol.exception() is None:
            await writer.write_eof()


async def _told(connection: Connection, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for piece in body:
            yield piece
    except Exception as error:  # noqa: BLE001 -- whatever it was, whoever waits for the answer raises it
        if connection.protocol is not None:
            connection.protocol.set_exception(_Unsent(error))


async def _ended(sending: "asyncio.Task[None] | None") -> None:
    if sending is not None:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


def _is_framed(message: RawResponseMessage) -> bool:
    """Whether nothing but chunked was done to the body: what else was would have to be undone."""
    codings = message.headers.getall(hdrs.TRANSFER_ENCODING, [])
    return not codings or [coding.strip().lower() for coding in codings] == ["chunked"]
