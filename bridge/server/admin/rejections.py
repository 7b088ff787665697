"""The admin API's refusals: page by page, the bytes of one, and sending one after all.

It knows neither tables nor how a file is checked.
"""

import json
from collections.abc import Callable
from contextlib import aclosing

import structlog
from aiohttp import web

from bridge.errors import BadParameter, BridgeError, NotFound
from bridge.server.admin.params import read_id, read_rejections_query
from bridge.server.http.body import read_note
from bridge.server.http.downloads import HEADERS, disposition, file_name
from bridge.server.http.responses import json_answer, quote_for_display, success
from bridge.server.upload.resend import QuarantineResender
from bridge.store.api_types import RejectionView, rejection_view
from bridge.store.engine.base import Database
from bridge.store.rejections import QuarantinedBody, RejectedFile, list_rejections

REJECTIONS_PATH = "/api/v1/refusals"
EXAMPLE = '{"repair": true}'
MAX_BODY_BYTES = 1024  # of what is asked: one word and its value

_log = structlog.get_logger(__name__)


class RejectionEntry(RejectionView):
    """A refusal in a list of them: also which build and route it belongs to."""

    job_id: str
    build_no: int
    route: str | None
    node_id: str | None


class RejectionsApi:
    """Handlers below /api/v1/refusals; `sending` is what sends by the settings of now."""

    def __init__(self, *, database: Database, sending: Callable[[], QuarantineResender]) -> None:
        self._database = database
        self._sending = sending

    def add_routes(self, app: web.Application) -> None:
        """Serve the API in `app`."""
        app.router.add_get(REJECTIONS_PATH, self.refusals)
        app.router.add_get(f"{REJECTIONS_PATH}/{{id}}/file", self.file, allow_head=False)
        app.router.add_post(f"{REJECTIONS_PATH}/{{id}}/send", self.send)

    async def refusals(self, request: web.Request) -> web.Response:
        """Answer with a page of refusals, newest first; `next` is what `after` of the next page is."""
        page = await self._database.read(list_rejections, read_rejections_query(request.query))
        following = None if page.next_before_id is None else str(page.next_before_id)
        return json_answer({"refusals": [_entry(refused) for refused in page.rejections], "next": following})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Answer with the bytes of a refused file, as they came but for compression; nothing may take them for more."""
        refused = await self._sending().find(_id(request))
        response = _download(refused)
        try:
            async with aclosing(self._sending().read(refused)) as pieces:
                last = b""
                async for piece in pieces:
                    if last:
                        await _write(request, response, last)
                    last = piece
            await _write(request, response, last)  # only now it is known that they are the bytes that came
            await response.write_eof()
        except BridgeError as error:
            if not response.prepared:
                raise
            _log.warning("download cut off", reason=str(error))
            if request.transport is not None:  # a second answer cannot follow half of one
                request.transport.abort()
            raise ConnectionResetError from error
        return response

    async def send(self, request: web.Request) -> web.Response:
        """Answer as to an upload: success with what became of the file, or why it is still refused."""
        refusal_id, repair = _id(request), await _repair(request)
        return success(await self._sending().send(refusal_id, repair=repair))


def _download(refused: QuarantinedBody) -> web.StreamResponse:
    refusal = refused.file.rejection
    name = file_name(f"refused-{refusal.id}", refusal.name)
    response = web.StreamResponse(headers={**HEADERS, "Content-Disposition": disposition(name)})
    response.content_length = refusal.size
    return response


async def _write(request: web.Request, response: web.StreamResponse, piece: bytes) -> None:
    if not response.prepared:
        await response.prepare(request)
    await response.write(piece)


def _entry(refused: RejectedFile) -> RejectionEntry:
    return {
        **rejection_view(refused.rejection),
        "job_id": refused.job_id,
        "build_no": refused.build_no,
        "route": refused.route or None,
        "node_id": refused.node_id,
    }


def _id(request: web.Request) -> int:
    text = request.match_info["id"]
    found = read_id(text)
    if found is None:
        raise NotFound(f"{quote_for_display(text)} is no id of a refusal. Look for it in {REJECTIONS_PATH}.")
    return found


async def _repair(request: web.Request) -> bool:
    """Return what the body asks for. It must call itself JSON: a page that a browser has open elsewhere cannot."""
    if request.content_type != "application/json":
        raise BadParameter(
            f"The body is {quote_for_display(request.content_type)}. Send {EXAMPLE} as application/json."
        )
    try:
        said = json.loads(await read_note(request.content, max_bytes=MAX_BODY_BYTES, remedy=f"Send {EXAMPLE}."))
    except (ValueError, RecursionError) as error:
        raise BadParameter(f"The body is no JSON. Send {EXAMPLE}.") from error
    if not isinstance(said, dict) or said.keys() - {"repair"} or not isinstance(said.get("repair", False), bool):
        raise BadParameter(f"The body says something else than repair, true or false. Send {EXAMPLE}.")
    return bool(said.get("repair", False))
