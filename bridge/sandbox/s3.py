"""S3 over HTTP: PUT to a presigned URL, path style, with S3's own errors."""

import asyncio
import uuid
from collections.abc import Mapping
from xml.sax.saxutils import escape

from aiohttp import ClientPayloadError, web

from bridge.sandbox.presign import S3ErrorResponse, check
from bridge.sandbox.state import BUCKET, ObjectReceiver, SandboxState

MAX_OBJECT_BYTES = 5 * 1024**3  # limit of S3 for a single PUT
_PIECE = 256 * 1024

_CHUNKED = S3ErrorResponse(
    status=411, code="MissingContentLength", message="You must provide the Content-Length HTTP header."
)
_TOO_LARGE = S3ErrorResponse(
    status=400, code="EntityTooLarge", message="Your proposed upload exceeds the maximum allowed object size."
)
_SHORT = S3ErrorResponse(
    status=400,
    code="IncompleteBody",
    message="You did not provide the number of bytes specified by the Content-Length HTTP header.",
)
_IDLE = S3ErrorResponse(
    status=400,
    code="RequestTimeout",
    message="Your socket connection to the server was not read from or written to within the timeout period. "
    "Idle connections will be closed.",
)
_NO_BUCKET = S3ErrorResponse(status=404, code="NoSuchBucket", message="The specified bucket does not exist")
_METHOD = S3ErrorResponse(
    status=405, code="MethodNotAllowed", message="The specified method is not allowed against this resource."
)


class StorageApi:
    """Stores objects in the sandbox and notifies its TestNod of them."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state

    def application(self) -> web.Application:
        observe = self._state.listener().observe
        app = web.Application()
        app.router.add_put("/{bucket}/{key:.+}", observe("s3.put", self._put))
        app.router.add_route("*", "/{path:.*}", observe("s3.unknown", _not_allowed))
        return app

    async def _put(self, request: web.Request) -> web.Response:
        rejection = self._rejection(request)
        if rejection is not None:
            return _error_response(rejection)
        receiver = ObjectReceiver(keep_bytes=self._state.behavior.keep_bytes)
        rejection = await self._receive(request, receiver)
        if rejection is not None:
            return _error_response(rejection)
        stored, key = receiver.done(), request.match_info["key"]
        self._state.objects.put(key, stored)
        self._state.runs.received(key, sha256=stored.sha256, size=stored.size, at=self._state.micros())
        return web.Response(headers={"ETag": stored.etag, **_ids()})

    def _rejection(self, request: web.Request) -> S3ErrorResponse | None:
        rejection = check(self._state.keys, request.raw_path, request.headers, at=self._state.micros())
        if rejection is not None:
            return rejection
        if request.match_info["bucket"] != BUCKET:
            return _NO_BUCKET
        if request.content_length is None:
            return _CHUNKED
        return _TOO_LARGE if request.content_length > MAX_OBJECT_BYTES else None

    async def _receive(self, request: web.Request, receiver: ObjectReceiver) -> S3ErrorResponse | None:
        idle_seconds = self._state.behavior.storage_idle_seconds
        try:
            while True:
                async with asyncio.timeout(idle_seconds):
                    piece = await request.content.read(_PIECE)
                if not piece:
                    break
                receiver.feed(piece)
        except TimeoutError:
            return _IDLE
        except (ClientPayloadError, ConnectionError):
            return _SHORT
        return None if receiver.size == request.content_length else _SHORT


async def _not_allowed(_request: web.Request) -> web.Response:
    return _error_response(_METHOD)


def _error_response(rejection: S3ErrorResponse) -> web.Response:
    ids = _ids()
    entries: Mapping[str, str] = {
        "Code": rejection.code,
        "Message": rejection.message,
        **rejection.extra,
        "RequestId": ids["x-amz-request-id"],
        "HostId": ids["x-amz-id-2"],
    }
    inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in entries.items())
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'
    return web.Response(status=rejection.status, text=text, content_type="application/xml", headers=ids)


def _ids() -> dict[str, str]:
    return {"x-amz-request-id": uuid.uuid4().hex[:16].upper(), "x-amz-id-2": uuid.uuid4().hex}
