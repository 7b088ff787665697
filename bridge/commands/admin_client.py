"""A client of the running gateway's admin API, for commands."""

import json
from http import HTTPStatus
from typing import Any

import aiohttp

from bridge.errors import BridgeError
from bridge.settings.model import AdminSettings

TOTAL_SECONDS = 15.0  # the gateway may call CodeArts before it answers
CONNECT_SECONDS = 3.0  # the gateway is usually on this machine
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""A build with tens of thousands of reports fits. A server that is not a gateway may send without end."""

REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Wildcard addresses, and the address to connect to."""


class GatewayNotRunning(Exception):
    """No gateway listens at the admin address."""


async def request_admin_api(
    admin: AdminSettings, path: str, *, params: dict[str, str | int] | None = None, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the JSON object that GET, or with `body` POST, of `path` answers.

    Raise GatewayNotRunning if the connection is refused, BridgeError with the gateway's message if it rejects the call.
    """
    url = f"{admin_url(admin)}{path}"
    headers = {"Authorization": f"Bearer {admin.token[0].get_secret_value()}"} if admin.token else {}
    timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS, connect=CONNECT_SECONDS)
    method = "GET" if body is None else "POST"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as http,
            http.request(method, url, params=params, json=body, allow_redirects=False) as response,
        ):
            return _object(url, response.status, await _read(response.content))
    except aiohttp.ClientConnectorError:
        raise GatewayNotRunning from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BridgeError(f"The gateway at {url} did not answer ({type(error).__name__}). Look at its log.") from None


def admin_url(admin: AdminSettings) -> str:
    """Return the URL of the admin listener, without a slash at the end."""
    host = REACHABLE.get(admin.host, admin.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{admin.port}"


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            break
    return bytes(body)


def _object(url: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
        if status == HTTPStatus.OK and isinstance(content, dict):
            return content
        message = str(content["error_msg"])
    except (ValueError, KeyError, TypeError):
        raise BridgeError(
            f"The server at {url} is not a gateway (status {status}). Correct admin.host and admin.port."
        ) from None
    raise BridgeError(message)
