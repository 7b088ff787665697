"""The admin API's rejections: list them, download the bytes of one, send one again."""

import json
from collections.abc import Callable
from contextlib import aclosing

import structlog
from aiohttp import web

from bridge.domain.build import BuildNo
from bridge.domain.text_format import quote_for_display
from bridge.errors import BadParameter, BridgeError
from bridge.server.admin.access import actor_of
from bridge.server.admin.params import read_rejections_query, require_id
from bridge.server.http.requests import media_type, read_small_body
from bridge.server.http.responses import HEADERS, disposition, file_name, json_response, success_response
from bridge.server.upload.resender import QuarantineResender
from bridge.store.api_types import RejectionView, rejection_view
from bridge.store.engine.base import Database
from bridge.store.operator_actions import record_action
from bridge.store.rejections import QuarantinedBody, RejectedFile, list_rejections

REJECTIONS_PATH = "/api/v1/rejections"
EXAMPLE = '{"repair": true}'
MAX_BODY_BYTES = 1024  # for one name and its value

_log = structlog.get_logger(__name__)


class RejectionEntry(RejectionView):
    """A rejection in a list, with the build and route it belongs to."""

    job_id: str
    build_no: BuildNo
    route: str | None
    node_id: str | None


class RejectionsApi:
    """Handlers below /api/v1/rejections; `resender` returns the current one."""

    def __init__(self, *, database: Database, resender: Callable[[], QuarantineResender]) -> None:
        self._database = database
        self._resender = resender

    def add_routes(self, app: web.Application) -> None:
        """Add the handlers to `app`."""
        app.router.add_get(REJECTIONS_PATH, self.rejections)
        app.router.add_get(f"{REJECTIONS_PATH}/{{id}}/file", self.file, allow_head=False)
        app.router.add_post(f"{REJECTIONS_PATH}/{{id}}/send", self.send)

    async def rejections(self, request: web.Request) -> web.Response:
        """Return a page of rejections, newest first; `next` is the value of `after` for the next page."""
        page = await self._database.read(list_rejections, read_rejections_query(request.query))
        following = None if page.next_before_id is None else str(page.next_before_id)
        return json_response({"rejections": [_entry(rejected) for rejected in page.rejections], "next": following})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Return the bytes of a rejected file, decompressed, as a download that no browser renders."""
        rejection_id = _id(request)
        rejected = await self._resender().find(rejection_id)
        await self._database.write(record_action, (actor_of(request), "download", f"rejection {rejection_id}", ""))
        response = _download(rejected)
        try:
            async with aclosing(self._resender().read(rejected)) as pieces:
                last = b""
                async for piece in pieces:
                    if last:
                        await _write(request, response, last)
                    last = piece
            await _write(request, response, last)  # the digest was verified only after the last piece
            await response.write_eof()
        except BridgeError as error:
            if not response.prepared:
                raise
            _log.warning("download_aborted", reason=str(error))
            if request.transport is not None:  # another response cannot follow half of one
                request.transport.abort()
            raise ConnectionResetError from error
        return response

    async def send(self, request: web.Request) -> web.Response:
        """Send a rejected file again; answer as to an upload."""
        rejection_id, repair = _id(request), await _read_repair(request)
        result = await self._resender().send(rejection_id, repair=repair)
        action = "send-repaired" if repair else "send-as-is"
        await self._database.write(record_action, (actor_of(request), action, f"rejection {rejection_id}", ""))
        return success_response(result)


def _download(rejected: QuarantinedBody) -> web.StreamResponse:
    rejection = rejected.file.rejection
    name = file_name(f"rejected-{rejection.id}", rejection.name)
    response = web.StreamResponse(headers={**HEADERS, "Content-Disposition": disposition(name)})
    response.content_length = rejection.size
    return response


async def _write(request: web.Request, response: web.StreamResponse, piece: bytes) -> None:
    if not response.prepared:
        await response.prepare(request)
    await response.write(piece)


def _entry(rejected: RejectedFile) -> RejectionEntry:
    return {
        **rejection_view(rejected.rejection),
        "job_id": rejected.job_id,
        "build_no": rejected.build_no,
        "route": rejected.route or None,
        "node_id": rejected.node_id,
    }


def _id(request: web.Request) -> int:
    return require_id(request, "rejection", REJECTIONS_PATH)


async def _read_repair(request: web.Request) -> bool:
    """Return `repair` of the body, False without a body.

    A body must be JSON, which a page of another site in a browser cannot send. If there is no body, such a page is
    recognized by `Origin`.
    """
    if not request.body_exists or request.content_length == 0:
        if "Origin" in request.headers:
            raise BadParameter(f"A browser must send a body. Send {EXAMPLE} as application/json.")
        return False
    if (kind := media_type(request)) != "application/json":
        raise BadParameter(f"The body is {quote_for_display(kind)}. Send {EXAMPLE} as application/json.")
    try:
        body = json.loads(await read_small_body(request.content, max_bytes=MAX_BODY_BYTES, remedy=f"Send {EXAMPLE}."))
    except (ValueError, RecursionError) as error:
        raise BadParameter(f"The body is not JSON. Send {EXAMPLE}.") from error
    if not isinstance(body, dict) or body.keys() - {"repair"} or not isinstance(body.get("repair", False), bool):
        raise BadParameter(f"The body must contain only repair, true or false. Send {EXAMPLE}.")
    return bool(body.get("repair", False))
