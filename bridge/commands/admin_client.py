"""Asks the running gateway's admin API on behalf of a command.

It must not know what is asked.
"""

import json
from http import HTTPStatus
from typing import Any

import aiohttp

from bridge.errors import BridgeError
from bridge.settings.model import AdminSettings

ASK_SECONDS = 15.0  # the gateway may ask CodeArts first
CONNECT_SECONDS = 3.0  # it is near: usually on this machine
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A build's answer tells of each of its reports, and some have tens of thousands; others may send without end."""

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on, and where one reaches them."""


class GatewayNotRunning(Exception):
    """No gateway listens at its admin address."""


async def ask(
    admin: AdminSettings, path: str, *, params: dict[str, str | int] | None = None, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what GET, or with a `body` POST, of `path` answers (contract: API).

    Raise NobodyThereError where no gateway runs, BridgeError with what it says where it refuses.
    """
    url = f"{admin_url(admin)}{path}"
    headers = {"Authorization": f"Bearer {admin.token[0].get_secret_value()}"} if admin.token else {}
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS, connect=CONNECT_SECONDS)
    method = "GET" if body is None else "POST"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as http,
            http.request(method, url, params=params, json=body, allow_redirects=False) as answer,
        ):
            return _told(url, answer.status, await _read(answer.content))
    except aiohttp.ClientConnectorError:
        raise GatewayNotRunning from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BridgeError(f"The gateway at {url} did not answer ({type(error).__name__}). Look at its log.") from None


def admin_url(admin: AdminSettings) -> str:
    """Return where the admin listener of a gateway with these settings is reached."""
    host = ANYWHERE.get(admin.host, admin.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{admin.port}"


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            break
    return bytes(body)


def _told(url: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
        if status == HTTPStatus.OK and isinstance(answer, dict):
            return answer
        told = str(answer["error_msg"])
    except (ValueError, KeyError, TypeError):
        raise BridgeError(
            f"What answers at {url} is no gateway (status {status}). Correct admin.host and admin.port."
        ) from None
    raise BridgeError(told)
