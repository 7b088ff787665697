"""HTTP calls to a gateway, with the standard library: importing aiohttp would take longer than a usual upload.

A call ends at its deadline whatever the server does, because its socket is closed then. HTTP proxies are taken from the
environment, as other programs do, and redirects are not followed.
"""

import http.client
import json
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, Final
from urllib.parse import SplitResult, unquote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

from bridge import __version__
from bridge.domain.text_format import is_web_address
from bridge.errors import BridgeError
from bridge.values import dataclass

UPLOAD_PATH: Final = "/v1/report/junit/report/upload"
STATUS_PATH: Final = "/bridge/v1/builds/{job_id}/{build_no}"

CONNECT_SECONDS: Final = 10.0
STALL_SECONDS: Final = 60.0
"""Without a byte in either direction: a gateway validates a large upload in a few seconds."""

MAX_ANSWER_BYTES: Final = 16 << 20  # 5,000 files with their reasons take some MiB
SEND_BYTES: Final = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A complete HTTP response."""

    status: int
    content: dict[str, Any] | None  # None: not a JSON object, so it is not a gateway's
    retry_after: float | None = None  # seconds
    location: str = ""
    what: str = ""  # its type and length, for messages


class GatewayAway(BridgeError):
    """No complete answer arrived; the reports may have been accepted. If `final`, another attempt fails as well."""

    final = False


class GatewayClient:
    """Makes calls to the gateway at `url`. The token is in a header, and never in a message."""

    def __init__(self, url: str, token: str) -> None:
        url = url if "://" in url else f"https://{url}"
        if not is_web_address(url):
            raise BridgeError("BRIDGE_URL is not the address of a gateway. Use one such as https://bridge.example.com.")
        parts = urlsplit(url)
        try:
            self._port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise BridgeError("BRIDGE_URL has an invalid port. Use one such as https://bridge.example.com.") from None
        if not token.isascii() or not token.isprintable():
            raise BridgeError("The token contains a line break or a character that no token has. Copy it again.")
        self._host = parts.hostname or ""
        self._secure = parts.scheme == "https"
        self._netloc = parts.netloc
        self._prefix = parts.path.rstrip("/").removesuffix(UPLOAD_PATH)
        self._token = token
        self._context = ssl.create_default_context() if self._secure else None
        self._proxy = None if proxy_bypass(self._host) else _proxy_for(parts.scheme)
        self.url = f"{parts.scheme}://{parts.netloc}{self._prefix}"

    def post(
        self, parameters: Mapping[str, str], body: BinaryIO | None, headers: Mapping[str, str], *, deadline: float
    ) -> Answer:
        """Upload a body, from its current position; raise GatewayAway if no answer comes before `deadline`."""
        return self._call(
            "POST", f"{UPLOAD_PATH}?{urlencode(parameters, errors='surrogateescape')}", body, headers, deadline
        )

    def build(self, job_id: str, build_no: str, *, deadline: float) -> Answer:
        """Ask for the state of a build."""
        return self._call("GET", STATUS_PATH.format(job_id=job_id, build_no=build_no), None, {}, deadline)

    def without_token(self, text: str) -> str:
        """Return a server's text without the token, which it might repeat."""
        return text.replace(self._token, "…") if self._token else text

    def _call(
        self, method: str, target: str, body: BinaryIO | None, headers: Mapping[str, str], deadline: float
    ) -> Answer:
        left = deadline - time.monotonic()
        if left <= 0:
            raise GatewayAway("the time is over")
        connection, target = self._connection(f"{self._prefix}{target}", min(left, CONNECT_SECONDS))
        timer = threading.Timer(left, _shut, [connection])
        timer.daemon = True
        timer.start()
        try:
            connection.connect()
            connection.sock.settimeout(STALL_SECONDS)
            self._send(connection, method, target, body, headers)
            return _read(connection.getresponse(), deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = "the time is over" if time.monotonic() >= deadline else _reason(error)
            away = GatewayAway(reason)
            away.final = isinstance(error, ssl.SSLCertVerificationError)
            raise away from error
        finally:
            timer.cancel()
            connection.close()

    def _connection(self, target: str, timeout: float) -> tuple[http.client.HTTPConnection, str]:
        proxy = self._proxy
        host, port = (proxy.hostname or "", proxy.port or 80) if proxy else (self._host, self._port)
        if self._context is None:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
            return connection, f"http://{self._netloc}{target}" if proxy else target
        secure = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._context)
        if proxy:
            secure.set_tunnel(self._host, self._port, headers=_proxy_headers(proxy.username, proxy.password))
        return secure, target

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        body: BinaryIO | None,
        headers: Mapping[str, str],
    ) -> None:
        connection.putrequest(method, target, skip_accept_encoding=True)
        own = {"User-Agent": f"bridge-upload/{__version__}", "Accept": "application/json", "Connection": "close"}
        if self._token:
            own["X-Auth-Token"] = self._token
        if self._context is None and self._proxy:
            own |= _proxy_headers(self._proxy.username, self._proxy.password)
        if method == "POST" and body is None:
            own["Content-Length"] = "0"
        for name, value in (own | dict(headers)).items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            while body is not None and (chunk := body.read(SEND_BYTES)):
                connection.send(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may have answered already, for example that the body is too large


def _proxy_for(scheme: str) -> SplitResult | None:
    """Return the proxy that the environment names for a scheme; raise BridgeError if it is no address."""
    named = getproxies().get(scheme)
    if not named:
        return None
    try:
        proxy = urlsplit(named if "://" in named else f"http://{named}")
        is_address = bool(proxy.hostname) and proxy.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise BridgeError(f"The variable {scheme}_proxy is not the address of a proxy. Correct it, or remove it.")
    return proxy


def _proxy_headers(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    credentials = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {b64encode(credentials).decode()}"}


def _shut(connection: http.client.HTTPConnection) -> None:
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):  # it has been closed
            sock.shutdown(socket.SHUT_RDWR)


def _read(response: http.client.HTTPResponse, deadline: float) -> Answer:
    body = bytearray()
    while len(body) <= MAX_ANSWER_BYTES and (chunk := response.read1(SEND_BYTES)):
        body += chunk
    if time.monotonic() >= deadline or len(body) > MAX_ANSWER_BYTES:
        raise http.client.HTTPException("the answer did not end")
    if response.length:
        raise http.client.IncompleteRead(bytes(body), response.length)
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    return Answer(
        status=response.status,
        content=content if isinstance(content, dict) else None,
        retry_after=_retry_after(response.getheader("Retry-After", "")),
        location=response.getheader("Location", ""),
        what=f"{response.getheader('Content-Type', 'no type')}, {len(body)} bytes",
    )


def _retry_after(value: str) -> float | None:
    """Return the seconds in a Retry-After header, which has a number or a date."""
    if value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _reason(error: Exception) -> str:
    """Return a clause for people."""
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is not trusted ({error.verify_message}); name the authority's file in SSL_CERT_FILE"
            )
        case TimeoutError():
            return "it did not answer in time"
        case socket.gaierror():
            return "its name is not known"
        case ConnectionRefusedError():
            return "the connection was refused"
        case ConnectionError() | http.client.RemoteDisconnected() | http.client.IncompleteRead():
            return "the connection broke"
        case OSError():
            return f"the connection failed ({error.strerror or error})"
        case _:
            return f"its answer is not HTTP ({type(error).__name__})"
