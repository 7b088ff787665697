"""How CodeArts' services and the gateway before them answer: JSON with a request id, errors by code.

It must not know what was asked.
"""

import uuid
from collections.abc import Mapping

from aiohttp import web


def answer(status: int, body: Mapping[str, object]) -> web.Response:
    """Return a JSON answer of a service."""
    return web.json_response(body, status=status, headers={"X-Request-Id": uuid.uuid4().hex})


def failure(status: int, code: str, message: str) -> web.Response:
    """Return an error of a service."""
    return answer(status, {"error_code": code, "error_msg": message})


def gateway_failure(status: int, code: str, message: str) -> web.Response:
    """Return an error of the gateway: it alone names the request in the body too."""
    request_id = uuid.uuid4().hex
    body = {"error_code": code, "error_msg": message, "request_id": request_id}
    return web.json_response(body, status=status, headers={"X-Request-Id": request_id})


async def no_such_api(_request: web.Request) -> web.Response:
    """Answer a path that no API has."""
    message = "The API does not exist or has not been published in the environment"
    return gateway_failure(404, "APIGW.0101", message)
