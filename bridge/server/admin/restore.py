"""The admin API of the restore pause: its uncertain reports, and its end."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from aiohttp import web

from bridge.domain.text_format import counted, rfc3339
from bridge.errors import BadParameter
from bridge.server.admin.access import actor_of
from bridge.server.http.requests import media_type, read_small_body
from bridge.server.http.responses import json_response, large_json_response
from bridge.store.engine.base import Database
from bridge.store.operator_actions import record_action
from bridge.store.restore_pause import Resumption, UncertainDeliveries, UncertainReport, restore_pause, resume

MAX_BODY_BYTES: Final = 1024
CHOICES: Final = 'Send {"uncertain": "assume-delivered"}, redeliver or null as application/json.'
RESULTS = {
    UncertainDeliveries.ASSUME_DELIVERED: "taken as delivered",
    UncertainDeliveries.REDELIVER: "sent again",
}


class RestoreApi:
    """Handlers of /api/v1/paused and /api/v1/resume.

    `max_finalize_delay_us()` returns how long builds wait for earlier builds of their job after the pause, in
    microseconds.
    """

    def __init__(self, *, database: Database, max_finalize_delay_us: Callable[[], int]) -> None:
        self._database = database
        self._max_finalize_delay_us = max_finalize_delay_us

    def add_routes(self, app: web.Application) -> None:
        """Add the handlers to `app`."""
        app.router.add_get("/api/v1/paused", self.paused)
        app.router.add_post("/api/v1/resume", self.resume)

    async def paused(self, _request: web.Request) -> web.Response:
        """Respond with the number of reports that may have been delivered since the copy, and the oldest of them."""
        pause = await self._database.read(restore_pause)
        if pause is None:
            return json_response({"paused": False, "since": None, "uncertain": 0, "reports": []})
        return await large_json_response(
            {
                "paused": True,
                "since": rfc3339(pause.since),
                "uncertain": pause.count,
                "reports": [_view(report) for report in pause.reports],
            }
        )

    async def resume(self, request: web.Request) -> web.Response:
        """End the pause; respond with 409 if there is none, or a decision about uncertain reports is missing."""
        uncertain = await _read_decision(request)
        count = await self._database.write(
            resume, Resumption(uncertain=uncertain, max_finalize_delay_us=self._max_finalize_delay_us())
        )
        action = "resume" if uncertain is None else f"resume-{uncertain}"
        await self._database.write(record_action, (actor_of(request), action, "ledger", ""))
        reports = "" if uncertain is None else f": {counted(count, 'uncertain report')} {RESULTS[uncertain]}"
        return json_response({"result": f"Resumed{reports}.", "uncertain": count})


def _view(report: UncertainReport) -> dict[str, Any]:
    return {**asdict(report), "accepted_at": rfc3339(report.accepted_at)}


async def _read_decision(request: web.Request) -> UncertainDeliveries | None:
    """Return the decision in the body. The content type must be JSON: a web page of another origin cannot send that."""
    if media_type(request) != "application/json":
        raise BadParameter(f"The body is not JSON. {CHOICES}")
    try:
        body = json.loads(await read_small_body(request.content, max_bytes=MAX_BODY_BYTES, remedy=CHOICES))
        value = body["uncertain"]
        return None if value is None else UncertainDeliveries(value)
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise BadParameter(f"The body has no valid decision about uncertain reports. {CHOICES}") from error
