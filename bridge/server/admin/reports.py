"""The admin API's reports: the copy that the archive keeps of one.

It knows neither tables nor where the archive lies.
"""

from pathlib import Path

from aiohttp import web

from bridge.domain.build import DeliveryState
from bridge.errors import NotFound
from bridge.server.admin.params import read_id
from bridge.server.http.downloads import HEADERS, disposition, file_name
from bridge.server.http.responses import quote_for_display
from bridge.store.archive.base import Archive, ArchiveCopyState, copy_of
from bridge.store.engine.base import Database

REPORT_FILE_PATH = "/api/v1/reports/{id}/file"


class ReportsApi:
    """Handlers below /api/v1/reports; `archive` None: none is set."""

    def __init__(self, *, database: Database, archive: Archive | None) -> None:
        self._database = database
        self._archive = archive

    def add_routes(self, app: web.Application) -> None:
        """Serve the API in `app`."""
        app.router.add_get(REPORT_FILE_PATH, self.file)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Answer with the copy, or send whoever asks to a link that soon expires."""
        report_id = _id(request)
        if self._archive is None:
            raise NotFound("No copies are kept: store.archive is empty. Set it, and later reports are.")
        copy = await self._database.read(copy_of, report_id)
        if copy is None or copy.entry is None or copy.state is not DeliveryState.DELIVERED:
            raise NotFound(_why_not(report_id, copy))
        saved_as = disposition(file_name(f"report-{report_id}", copy.entry.name))
        found = await self._archive.find_copy(copy.entry.key, disposition=saved_as)
        if found is None:
            raise NotFound(f"The copy of report {report_id} is gone from the archive. It was kept for store.keep.")
        if isinstance(found, Path):
            return web.FileResponse(found, headers={**HEADERS, "Content-Disposition": saved_as})
        return web.Response(status=302, headers={"Location": found, "Cache-Control": "no-store"})


def _why_not(report_id: int, copy: ArchiveCopyState | None) -> str:
    if copy is None:
        return f"No copy of report {report_id} is owed to the archive. Look for the report's id in /api/v1/builds."
    if copy.state is DeliveryState.DEAD:
        return f"No copy of report {report_id} was kept. {copy.last_error}"
    if copy.entry is None:
        return f"Report {report_id} is not delivered yet. A copy is kept once TestNod has it."
    tried = f"It was tried: {copy.last_error}" if copy.last_error else "It is kept in a moment."
    return f"The copy of report {report_id} is not kept yet. {tried}"


def _id(request: web.Request) -> int:
    text = request.match_info["id"]
    found = read_id(text)
    if found is None:
        raise NotFound(f"{quote_for_display(text)} is no id of a report. Look for it in /api/v1/builds.")
    return found
