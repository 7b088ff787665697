"""Answers in CodeArts' shape: every refusal and failure as JSON that each of its clients can read.

It knows neither what was asked nor the ledger. Nothing of an unexpected failure is told but its request id.
"""

import asyncio
import itertools
import json
import secrets
from collections.abc import Mapping

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from bridge.errors import BadParameter, BridgeError, CallerError, MethodNotAllowed, NotFound, TooLarge, Unavailable

REQUEST_ID = web.RequestKey("request_id", str)

MAX_SHOWN_CHARACTERS = 120
"""Of one name or value in an answer: enough to find it again, too little to flood a build log."""

SERVER = "bridge"  # aiohttp would tell everybody its version and Python's

UNEXPECTED = (
    "The bridge failed unexpectedly, and nothing of this request is certain. Try again, and tell its operator "
    "the X-Request-Id if it stays."
)

_FIRST_ID = secrets.randbits(64)
_count = itertools.count(1)
"""Each process begins elsewhere and counts: an id names a request and guards nothing."""

_CODES = {error.status: error.code for error in (BadParameter, NotFound, MethodNotAllowed, TooLarge)}
_KEPT_HEADERS = ("Allow", "Location")

_log = structlog.get_logger(__name__)


def quote_for_display(text: str) -> str:
    """Return foreign text in quotes, cut, on one line, without anything that a terminal or page would obey."""
    return f'"{legible(text)}"'


def legible(text: str) -> str:
    """Return foreign text cut and with everything escaped that does not print as itself."""
    cut = text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "…"
    if cut.isprintable():
        return cut
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in cut
    )


def success(result: str) -> web.Response:
    """Answer an upload as the reference page does: status, result as a string, no error."""
    return json_answer({"status": "success", "result": result, "error": None})


def failure(status: int, code: str, message: str) -> web.Response:
    """Answer with every shape of error that a CodeArts client was seen to read (facts: Errors)."""
    return json_answer(
        {
            "status": "fail",
            "error_code": code,
            "error_msg": message,
            "error": {"code": code, "message": message, "reason": message},
            "result": None,
        },
        status,
    )


def refusal(error: BridgeError) -> web.Response:
    """Answer with what the error says of itself."""
    response = failure(error.status, error.code, str(error))
    if isinstance(error, Unavailable):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    return response


def next_request_id() -> str:
    """Return an id that no other request of this process has."""
    return f"{_FIRST_ID:016x}{next(_count):016x}"


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, and turn whatever was raised into an answer."""
    request_id = request[REQUEST_ID] = next_request_id()
    try:
        response = await handler(request)
    except BridgeError as error:
        response = refusal(error)
    except web.HTTPException as error:
        response = _translated(error)
    except ConnectionError:  # nobody is left to answer
        raise
    except Exception:  # noqa: BLE001 -- whatever it was, the caller gets an answer
        _log.exception("request_failed", request_id=request_id, method=request.method, path=request.path)
        response = failure(500, BridgeError.code, UNEXPECTED)
    if not response.prepared:
        response.headers["X-Request-Id"] = request_id
        response.headers.setdefault("Server", SERVER)
        if not request.content.is_eof():
            # aiohttp then reads on for a while, so that the answer is not lost in a reset, and closes.
            response.force_close()
    return response


def _translated(error: web.HTTPException) -> web.Response:
    code = _CODES.get(error.status, CallerError.code if error.status < 500 else BridgeError.code)
    remedy = "Look at the path and the method of this request."
    if isinstance(error, web.HTTPMethodNotAllowed):
        remedy = f"Send this request with {' or '.join(sorted(error.allowed_methods))}."
    response = failure(error.status, code, f"{error.reason}. {remedy}")
    for name in _KEPT_HEADERS:
        if name in error.headers:
            response.headers[name] = error.headers[name]
    return response


def json_answer(body: Mapping[str, object], status: int = 200) -> web.Response:
    """Return `body` as JSON in UTF-8: a build log shows names as people wrote them."""
    return _json_response(json.dumps(body, ensure_ascii=False), status)


async def large_json_answer(body: Mapping[str, object]) -> web.Response:
    """Return `body`, which may hold thousands of reports, as JSON, and let others have their turns meanwhile."""
    # Encoded at one go it would hold the interpreter's lock, and with it the event loop, to its end.
    pieces = json.JSONEncoder(ensure_ascii=False).iterencode(body)
    return _json_response(await asyncio.to_thread("".join, pieces), 200)


def _json_response(text: str, status: int) -> web.Response:
    # A half of a character, which UTF-8 cannot hold, becomes the escape that JSON has for it.
    encoded = text.encode("utf-8", "backslashreplace")
    return web.Response(status=status, body=encoded, content_type="application/json", charset="utf-8")
