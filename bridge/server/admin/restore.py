"""The admin API of a held ledger: what is doubtful in it, and letting it go.

It knows neither tables nor what a visit does then.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from bridge.domain.text_format import counted, rfc3339
from bridge.errors import BadParameter
from bridge.server.http.body import read_small_body
from bridge.server.http.responses import json_response, large_json_response
from bridge.store.engine.base import Database
from bridge.store.restore_hold import Resumption, UncertainDeliveries, UncertainReport, restore_hold, resume

MAX_BODY_BYTES = 1024  # of what is asked: one word
EXAMPLE = '{"uncertain": "assume-delivered"}'
CHOICES = f"Send {EXAMPLE}, redeliver or null as application/json."


class RestoreApi:
    """Handlers of /api/v1/paused and /api/v1/resume; `max_finalize_delay_us` limits how long builds wait."""

    def __init__(self, *, database: Database, max_finalize_delay_us: Callable[[], int]) -> None:
        self._database = database
        self._hold_run_us = max_finalize_delay_us

    def add_routes(self, app: web.Application) -> None:
        """Serve the API in `app`."""
        app.router.add_get("/api/v1/paused", self.paused)
        app.router.add_post("/api/v1/resume", self.resume)

    async def paused(self, _request: web.Request) -> web.Response:
        """Answer with what may have been delivered since the ledger was copied: all counted, the oldest named."""
        found = await self._database.read(restore_hold)
        if found is None:
            return json_response({"paused": False, "since": None, "uncertain": 0, "reports": []})
        return await large_json_response(
            {
                "paused": True,
                "since": rfc3339(found.since),
                "uncertain": found.count,
                "reports": [_view(report) for report in found.reports],
            }
        )

    async def resume(self, request: web.Request) -> web.Response:
        """Let the ledger go; 409 where it is not held, or nothing is said of what is doubtful."""
        doubtful = await _doubtful(request)
        said = Resumption(doubtful=doubtful, max_finalize_delay_us=self._hold_run_us())
        count = await self._database.write(resume, said)
        became = {
            UncertainDeliveries.ASSUME_DELIVERED: "taken as delivered",
            UncertainDeliveries.REDELIVER: "sent again",
        }
        result = (
            "Resumed." if doubtful is None else f"Resumed: {counted(count, 'uncertain report')} {became[doubtful]}."
        )
        return json_response({"result": result, "uncertain": count})


def _view(report: UncertainReport) -> dict[str, Any]:
    return {**asdict(report), "accepted_at": rfc3339(report.accepted_at)}


async def _doubtful(request: web.Request) -> UncertainDeliveries | None:
    """Return what the body says. It must call itself JSON: a page that a browser has open elsewhere cannot."""
    if request.content_type != "application/json":
        raise BadParameter(f"The body is not JSON. {CHOICES}")
    try:
        said = json.loads(await read_small_body(request.content, max_bytes=MAX_BODY_BYTES, remedy=CHOICES))
        word = said["uncertain"]
        return None if word is None else UncertainDeliveries(word)
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise BadParameter(f"The body says nothing that is known. {CHOICES}") from error
