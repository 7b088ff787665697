"""HTTP responses in CodeArts' format: every rejection and failure is JSON that each of its clients can read.

Of an unexpected failure only the request id is shown.
"""

import asyncio
import itertools
import json
import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from bridge.errors import (
    BadParameter,
    BridgeError,
    CallerError,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unavailable,
    reason_of,
)

REQUEST_ID = web.RequestKey("request_id", str)

SERVER = "bridge"  # aiohttp's default shows its own version and Python's

UNEXPECTED = (
    "The bridge failed unexpectedly, and nothing of this request is certain. Try again; if it persists, give its "
    "operator the X-Request-Id."
)

_FIRST_ID = secrets.randbits(64)
_count = itertools.count(1)
"""Each process starts at another number: an id identifies a request and protects nothing."""

_CODES = {error.status: error.code for error in (BadParameter, NotFound, MethodNotAllowed, TooLarge)}
_PRESERVED_HEADERS = ("Allow", "Location")

_ENCODER = json.JSONEncoder(ensure_ascii=False)

_log = structlog.get_logger(__name__)


def success_response(result: str, **more: object) -> web.Response:
    """Return the answer to an accepted upload, as CodeArts' reference page has it: `result` is a string."""
    return json_response({"status": "success", "result": result, "error": None, **more})


def failure_response(status: int, code: str, message: str, *, reason: str = "", **more: object) -> web.Response:
    """Return an error in all shapes that clients of CodeArts read; `reason` is its short class, if not the code's."""
    return json_response(
        {
            "status": "fail",
            "error_code": code,
            "error_msg": message,
            "error": {"code": code, "message": message, "reason": reason or reason_of(code)},
            "result": None,
            **more,
        },
        status,
    )


def error_response(error: BridgeError, **more: object) -> web.Response:
    """Return the response for `error`: its status, code and message."""
    response = failure_response(error.status, error.code, str(error), reason=error.reason, **more)
    if isinstance(error, Unavailable):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    return response


def next_request_id() -> str:
    """Return an id that no other request of this process has."""
    return f"{_FIRST_ID:016x}{next(_count):016x}"


@web.middleware
async def handle_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, and turn every exception into a response."""
    request_id = request[REQUEST_ID] = next_request_id()
    try:
        response = await handler(request)
    except BridgeError as error:
        response = error_response(error)
    except web.HTTPException as error:
        response = _translated(error)
    except ConnectionError:  # the client is gone
        raise
    except Exception:  # noqa: BLE001 -- the caller gets a response in any case
        _log.exception("request_failed", request_id=request_id, method=request.method, path=request.path)
        response = failure_response(500, BridgeError.code, UNEXPECTED)
    if not response.prepared:
        response.headers["X-Request-Id"] = request_id
        response.headers.setdefault("Server", SERVER)
        if not request.content.is_eof():
            # aiohttp then reads on for a while, so that the response is not lost in a reset, and closes.
            response.force_close()
    return response


def _translated(error: web.HTTPException) -> web.Response:
    code = _CODES.get(error.status, CallerError.code if error.status < 500 else BridgeError.code)
    text = f"{error.reason}. Check the path and the method of this request."
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = " or ".join(sorted(error.allowed_methods))
        text = f"This path does not take the method {error.method}. Send the request with {allowed}."
    response = failure_response(error.status, code, text)
    for name in _PRESERVED_HEADERS:
        if name in error.headers:
            response.headers[name] = error.headers[name]
    return response


def json_response(body: Mapping[str, object], status: int = 200) -> web.Response:
    """Return `body` as JSON in UTF-8, with names unescaped, so that a build log can be read."""
    return _json_response(_ENCODER.encode(body), status)


async def large_json_response(body: Mapping[str, object]) -> web.Response:
    """Return `body`, which may contain thousands of reports, as JSON without blocking the event loop."""
    # `json.dumps` would hold the interpreter's lock until it ends, and with it the event loop.
    pieces = _ENCODER.iterencode(body)
    return _json_response(await asyncio.to_thread("".join, pieces), 200)


def _json_response(text: str, status: int) -> web.Response:
    # A lone surrogate, which UTF-8 cannot encode, becomes the escape that JSON has for it.
    encoded = text.encode("utf-8", "backslashreplace")
    return web.Response(status=status, body=encoded, content_type="application/json", charset="utf-8")


# Headers for downloads of uploaded bytes, so that a browser saves them under a safe name and never renders them.
#
# File names are encoded as in RFC 6266 (https://www.rfc-editor.org/rfc/rfc6266) and RFC 8187.


MAX_FILE_NAME_CHARACTERS: Final = 100  # file systems permit 255 bytes, and the id is in front
SAFE_CHARACTERS: Final = "._- ()"  # beside letters and digits
HEADERS: Final = {
    "Content-Type": "application/octet-stream",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def file_name(prefix: str, name: str) -> str:
    """Return a file name for `name` that cannot act as a path, a header or a command."""
    inner = name.replace("\\", "/").replace("!", "/").rpartition("/")[2]
    safe = "".join(letter if letter.isalnum() or letter in SAFE_CHARACTERS else "_" for letter in inner)
    return f"{prefix}-{safe[-MAX_FILE_NAME_CHARACTERS:]}"


def disposition(name: str) -> str:
    """Return the Content-Disposition that saves a download as `name`, which must come from `file_name`.

    It has both forms of the name, as RFC 6266, appendix D, advises: curl reads only the plain one.
    """
    plain = "".join(letter if letter.isascii() else "_" for letter in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
