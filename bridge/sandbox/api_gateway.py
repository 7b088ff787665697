"""The API gateway before CodeArts' services: responses with a request id, and authentication by token or signature.

Source: "API request signing guide", and "Common errors related to IAM authentication information".
"""

import hmac
import uuid
from collections.abc import Mapping
from hashlib import sha256

from aiohttp import web

from bridge.protocols import aksk_signing
from bridge.sandbox.call_limits import limit_of
from bridge.sandbox.faults import Handler
from bridge.sandbox.state import KEY_LOCK_US, MAX_KEY_FAILURES, SandboxKey, SandboxState
from bridge.values import dataclass


def answer(status: int, body: Mapping[str, object]) -> web.Response:
    """Return a JSON response of a service."""
    return web.json_response(body, status=status, headers={"X-Request-Id": uuid.uuid4().hex})


def error_response(status: int, code: str, message: str) -> web.Response:
    """Return an error of a service."""
    return answer(status, {"error_code": code, "error_msg": message})


def gateway_error(status: int, code: str, message: str) -> web.Response:
    """Return an error of the gateway, which has the request id in the body too."""
    request_id = uuid.uuid4().hex
    body = {"error_code": code, "error_msg": message, "request_id": request_id}
    return web.json_response(body, status=status, headers={"X-Request-Id": request_id})


async def no_such_api(_request: web.Request) -> web.Response:
    """Return the response for an unknown path."""
    message = "The API does not exist or has not been published in the environment"
    return gateway_error(404, "APIGW.0101", message)


EXPIRED_CODE = "APIGW.0307"
WRONG = "Incorrect IAM authentication information: "


@dataclass(frozen=True, kw_only=True, slots=True)
class Unauthorized:
    """Why a request is rejected; always HTTP 401."""

    code: str
    message: str


class ApiGateway:
    """Authenticates requests by the accounts of the sandbox, and limits the calls of each API.

    `expired` is code and message of a service for a token that has expired, if it does not leave that to the gateway.
    """

    def __init__(self, state: SandboxState, *, expired: tuple[str, str] | None = None) -> None:
        self._state = state
        self._expired = expired

    def protect(self, call_name: str, handler: Handler) -> Handler:
        """Return `handler` wrapped: calls without valid credentials or above the limit do not reach it."""

        async def protected(request: web.Request) -> web.StreamResponse:
            rejection = await self.rejection(request)
            if rejection is not None:
                if rejection.code == EXPIRED_CODE and self._expired is not None:
                    return error_response(401, *self._expired)
                return gateway_error(401, rejection.code, rejection.message)
            return self._throttled(call_name) or await handler(request)

        return protected

    def _throttled(self, call_name: str) -> web.Response | None:
        behavior = self._state.behavior
        limit = limit_of(call_name, behavior.calls_per_minute)
        seconds = self._state.limits.seconds_to_wait(call_name, limit, at=self._state.micros())
        if not seconds:
            return None
        message = f"The throttling threshold has been reached: policy user over ratelimit,limit:{limit},time:1 minute"
        response = gateway_error(429, "APIGW.0308", message)
        if behavior.retry_after:
            response.headers["Retry-After"] = str(seconds)
        return response

    async def rejection(self, request: web.Request) -> Unauthorized | None:
        """Return why the request is rejected.

        A signature is always verified, a token only if one is required.
        """
        if aksk_signing.ALGORITHM in request.headers.get("Authorization", ""):
            return await self._signature(request)
        behavior = self._state.behavior
        if not (behavior.credentials_wanted or behavior.codearts_tokens):
            return None
        return self._token(request.headers.get("X-Auth-Token", ""))

    def _token(self, value: str) -> Unauthorized | None:
        if not value:
            return _wrong("x-auth-token not found")
        if any(hmac.compare_digest(value.encode(), known.encode()) for known in self._state.behavior.codearts_tokens):
            return None
        token = self._state.accounts.token(value)
        if token is None or token.project is None:  # "Global tenant tokens are not supported."
            return _wrong("decrypt token fail")
        if self._state.micros() >= token.expires_at:
            return Unauthorized(code=EXPIRED_CODE, message="The token must be updated.")
        return None

    async def _signature(self, request: web.Request) -> Unauthorized | None:
        given = aksk_signing.read_authorization(request.headers["Authorization"])
        if given is None:
            return _wrong("verify aksk signature fail")
        key = self._state.accounts.key(given.access_key)
        if key is None:
            return _wrong(f"Get secretKey failed,ak:{given.access_key},err:ak not exist")
        if self._state.micros() < key.failures.locked_until:
            return _wrong("AK access failed to reach the limit,forbidden.")
        if await self._is_signed(request, given, key):
            key.failures.count = 0
            return None
        key.failures.add(self._state.micros(), lock_at=MAX_KEY_FAILURES + 1, lock_us=KEY_LOCK_US)
        return _wrong("verify aksk signature fail")

    async def _is_signed(self, request: web.Request, given: aksk_signing.Authorization, key: SandboxKey) -> bool:
        path, _, query = request.raw_path.partition("?")
        raw = aksk_signing.RawRequest(
            method=request.method, path=path, query=query, headers=tuple(request.headers.items())
        )
        unread = aksk_signing.possible_payload_hashes(raw, None) and request.content_length != 0
        digest = None if unread else sha256(await request.read()).hexdigest()
        return aksk_signing.is_timely(raw, self._state.micros()) and aksk_signing.is_signed_with(
            raw, given, key.secret_key, digest
        )


def _wrong(reason: str) -> Unauthorized:
    return Unauthorized(code="APIGW.0301", message=WRONG + reason)
