"""A client of the running gateway's admin API, for commands."""

import json
import os
from collections.abc import Mapping
from dataclasses import field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from bridge.domain.text_format import is_web_address
from bridge.errors import BridgeError
from bridge.settings import load
from bridge.settings.model import AdminSettings
from bridge.values import dataclass

TOTAL_SECONDS = 15.0  # the gateway may call CodeArts before it answers
CONNECT_SECONDS = 3.0  # the gateway is usually on this machine
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""A build with tens of thousands of reports fits. A server that is not a gateway may send without end."""

REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Wildcard addresses, and the address to connect to."""


class GatewayNotRunning(Exception):
    """No gateway listens at the admin address."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminAddress:
    """The URL of an admin listener, without a slash at the end, and the token to send there."""

    url: str
    token: str = field(default="", repr=False)
    correct: str = "admin.host and admin.port"  # what names the URL

    @classmethod
    def of(cls, admin: AdminSettings) -> "AdminAddress":
        """Return the address of the gateway that has these settings."""
        host = REACHABLE.get(admin.host, admin.host)
        url = f"http://{f'[{host}]' if ':' in host else host}:{admin.port}"
        return cls(url=url, token=admin.token[0].get_secret_value() if admin.token else "")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "AdminAddress | None":
        """Return the address in BRIDGE_ADMIN_URL and BRIDGE_ADMIN_TOKEN; None if the first one is not set."""
        url = environ.get("BRIDGE_ADMIN_URL", "").rstrip("/")
        if not url:
            return None
        if not is_web_address(url):
            raise BridgeError("BRIDGE_ADMIN_URL is not an address. Use one such as http://127.0.0.1:8081.")
        token = environ.get("BRIDGE_ADMIN_TOKEN", "").strip()
        if not token.isprintable() or not token.isascii():
            raise BridgeError("BRIDGE_ADMIN_TOKEN contains a character that no token has. Copy it again.")
        return cls(url=url, token=token, correct="BRIDGE_ADMIN_URL")

    @classmethod
    def find(cls, config: Path) -> "AdminAddress":
        """Return the address in the environment, or else that in the settings; raise SettingsError if there is none."""
        return cls.from_environment() or cls.of(load(config, os.environ).admin)


async def request_admin_api(
    admin: AdminAddress, path: str, *, params: Mapping[str, str | int] | None = None, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the JSON object that GET, or with `body` POST, of `path` answers.

    Raise GatewayNotRunning if the connection is refused, BridgeError with the gateway's message if it rejects the call.
    """
    url = f"{admin.url}{path}"
    headers = {"Authorization": f"Bearer {admin.token}"} if admin.token else {}
    timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS, connect=CONNECT_SECONDS)
    method = "GET" if body is None else "POST"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as http,
            http.request(method, url, params=params, json=body, allow_redirects=False) as response,
        ):
            return _object(admin, url, response.status, await _read(response.content))
    except aiohttp.ClientConnectorError:
        raise GatewayNotRunning from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BridgeError(f"The gateway at {url} did not answer ({type(error).__name__}). Look at its log.") from None


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            break
    return bytes(body)


def _object(admin: AdminAddress, url: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
        if status == HTTPStatus.OK and isinstance(content, dict):
            return content
        message = str(content["error_msg"])
    except (ValueError, KeyError, TypeError):
        raise BridgeError(f"The server at {url} is not a gateway (status {status}). Correct {admin.correct}.") from None
    raise BridgeError(message)
