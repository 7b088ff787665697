"""The admin API's reports: the copy of a report in the archive."""

from pathlib import Path

from aiohttp import web

from bridge.domain.build import DeliveryState
from bridge.errors import NotFound
from bridge.server.admin.access import actor_of
from bridge.server.admin.params import require_id
from bridge.server.http.responses import HEADERS, disposition, file_name
from bridge.store.archive.base import Archive, ArchiveCopyState, copy_of
from bridge.store.engine.base import Database
from bridge.store.operator_actions import record_action

REPORT_FILE_PATH = "/api/v1/reports/{id}/file"


class ReportsApi:
    """Handlers below /api/v1/reports; `archive` is None if it is not configured."""

    def __init__(self, *, database: Database, archive: Archive | None) -> None:
        self._database = database
        self._archive = archive

    def add_routes(self, app: web.Application) -> None:
        """Add the handlers to `app`."""
        app.router.add_get(REPORT_FILE_PATH, self.file)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Return the copy, or a redirect to a link that expires soon."""
        report_id = require_id(request, "report", "/api/v1/builds")
        if self._archive is None:
            raise NotFound("No copies are kept, because store.archive is empty. Set it, and later reports are copied.")
        copy = await self._database.read(copy_of, report_id)
        if copy is None or copy.entry is None or copy.state is not DeliveryState.DELIVERED:
            raise NotFound(_why_not(report_id, copy))
        saved_as = disposition(file_name(f"report-{report_id}", copy.entry.name))
        found = await self._archive.find_copy(copy.entry.key, disposition=saved_as)
        if found is None:
            raise NotFound(
                f"The copy of report {report_id} is no longer in the archive. It was kept for store.retention."
            )
        await self._database.write(record_action, (actor_of(request), "download", f"report {report_id}", ""))
        if isinstance(found, Path):
            return web.FileResponse(found, headers={**HEADERS, "Content-Disposition": saved_as})
        return web.Response(status=302, headers={"Location": found, "Cache-Control": "no-store"})


def _why_not(report_id: int, copy: ArchiveCopyState | None) -> str:
    if copy is None:
        return f"No copy of report {report_id} is pending. Look for the report's id in /api/v1/builds."
    if copy.state is DeliveryState.DEAD:
        return f"No copy of report {report_id} was made. {copy.last_error}"
    if copy.entry is None:
        return f"Report {report_id} is not delivered yet. It is copied once TestNod has it."
    tried = f"The last attempt failed: {copy.last_error}" if copy.last_error else "It will be made in a moment."
    return f"The copy of report {report_id} is not made yet. {tried}"
