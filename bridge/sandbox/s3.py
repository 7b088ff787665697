"""The stand-in of S3 over HTTP: PUT to a presigned URL, path style, and S3's own errors.

It must not know CodeArts or the bridge. Pages: S3's PutObject, its error responses, presigned URLs.
"""

import asyncio
import uuid
from collections.abc import Mapping
from xml.sax.saxutils import escape

from aiohttp import ClientPayloadError, web

from bridge.sandbox.presign import S3ErrorResponse, check
from bridge.sandbox.state import BUCKET, ObjectReceiver, SandboxState

LARGEST_OBJECT = 5 * 1024**3  # what S3 takes in a single PUT
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
    """Answers for the objects of a world, and tells its TestNod what has come in."""

    def __init__(self, world: SandboxState) -> None:
        self._world = world

    def application(self) -> web.Application:
        over = self._world.observer().over
        app = web.Application()
        app.router.add_put("/{bucket}/{key:.+}", over("s3.put", self._put))
        app.router.add_route("*", "/{path:.*}", over("s3.unknown", _not_allowed))
        return app

    async def _put(self, request: web.Request) -> web.Response:
        denial = self._refused(request)
        if denial is not None:
            return _denied(denial)
        intake = ObjectReceiver(keep_bytes=self._world.behaviour.keep_bytes)
        denial = await self._receive(request, intake)
        if denial is not None:
            return _denied(denial)
        stored, key = intake.done(), request.match_info["key"]
        self._world.objects.put(key, stored)
        self._world.runs.received(key, sha256=stored.sha256, size=stored.size, at=self._world.micros())
        return web.Response(headers={"ETag": stored.etag, **_ids()})

    def _refused(self, request: web.Request) -> S3ErrorResponse | None:
        denial = check(self._world.keys, request.raw_path, request.headers, at=self._world.micros())
        if denial is not None:
            return denial
        if request.match_info["bucket"] != BUCKET:
            return _NO_BUCKET
        if request.content_length is None:
            return _CHUNKED
        return _TOO_LARGE if request.content_length > LARGEST_OBJECT else None

    async def _receive(self, request: web.Request, intake: ObjectReceiver) -> S3ErrorResponse | None:
        idle_seconds = self._world.behaviour.storage_idle_seconds
        try:
            while True:
                async with asyncio.timeout(idle_seconds):
                    piece = await request.content.read(_PIECE)
                if not piece:
                    break
                intake.feed(piece)
        except TimeoutError:
            return _IDLE
        except (ClientPayloadError, ConnectionError):
            return _SHORT
        return None if intake.size == request.content_length else _SHORT


async def _not_allowed(_request: web.Request) -> web.Response:
    return _denied(_METHOD)


def _denied(denial: S3ErrorResponse) -> web.Response:
    ids = _ids()
    entries: Mapping[str, str] = {
        "Code": denial.code,
        "Message": denial.message,
        **denial.extra,
        "RequestId": ids["x-amz-request-id"],
        "HostId": ids["x-amz-id-2"],
    }
    inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in entries.items())
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'
    return web.Response(status=denial.status, text=text, content_type="application/xml", headers=ids)


def _ids() -> dict[str, str]:
    return {"x-amz-request-id": uuid.uuid4().hex[:16].upper(), "x-amz-id-2": uuid.uuid4().hex}
