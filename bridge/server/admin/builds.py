"""The admin API's builds, and the explanation why one of them is not in TestNod."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from bridge.client.codearts import CodeArts
from bridge.domain.circuit_breaker import CODEARTS
from bridge.domain.clock_trust import Verdict
from bridge.domain.outcomes import OutcomeUnknown, PollOutcome
from bridge.domain.why import SEND_COMMAND, why
from bridge.errors import NotFound
from bridge.server.admin.params import read_builds_query, read_id, read_why_query
from bridge.server.auth.authenticator import presented_token
from bridge.server.http.requests import BuildName
from bridge.server.http.responses import large_json_response
from bridge.store.api_types import rejection_view
from bridge.store.engine.base import Database
from bridge.store.queries import WhyInputs, find_why, list_builds, one_build

CODEARTS_SECONDS = 5.0
"""For CodeArts' answer within `why`: a person waits for it."""

_HOST = re.compile(r"[A-Za-z0-9.\-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")


class BuildsApi:
    """Handlers of /api/v1/builds and /api/v1/why; `codearts` returns the current client, None if not configured."""

    def __init__(
        self, *, database: Database, codearts: Callable[[], CodeArts | None], clock_verdict: Callable[[], Verdict]
    ) -> None:
        self._database = database
        self._codearts = codearts
        self._clock_verdict = clock_verdict

    def add_routes(self, app: web.Application) -> None:
        """Add the handlers to `app`."""
        app.router.add_get("/api/v1/builds", self.builds)
        app.router.add_get("/api/v1/builds/{id}", self.build)
        app.router.add_get("/api/v1/why", self.why)

    async def builds(self, request: web.Request) -> web.Response:
        """Return a page of builds, newest first; `next` is the value of `after` for the next page."""
        page = await self._database.read(list_builds, read_builds_query(request.query))
        following = None if page.next_before_id is None else str(page.next_before_id)
        return await large_json_response({"builds": page.builds, "next": following})

    async def build(self, request: web.Request) -> web.Response:
        """Return the build with this id."""
        build_id = read_id(request.match_info["id"])
        build = None if build_id is None else await self._database.read(one_build, build_id)
        if build is None:
            raise NotFound("The ledger has no build with this id. Look for it in /api/v1/builds.")
        return await large_json_response(build)

    async def why(self, request: web.Request) -> web.Response:
        """Return why a build is not in TestNod, and the facts behind that."""
        wanted = read_why_query(request.query)
        found = await self._database.read(find_why, wanted.job_id, wanted.build_no)
        wanted.require(found=found.build is not None or bool(found.rejections))
        now = self._database.now()
        explanation = why(
            job_id=wanted.job_id,
            build_no=wanted.build_no,
            build=found.build,
            rejections=found.rejections,
            breakers=replace(found.breakers, clock=self._clock_verdict()),
            now=now,
            polled=await poll_codearts(self._codearts(), wanted, found),
            leased=found.lease_until > now,
            send_command=_send_command(request),
        )
        return await large_json_response(
            {
                "case": explanation.case,
                "sentence": explanation.sentence,
                "status": explanation.status,
                "cause": explanation.cause,
                "action": explanation.action,
                "result_mismatch": explanation.result_mismatch,
                "job_id": wanted.job_id,
                "build_no": wanted.build_no,
                "build": found.view,
                "rejections": [rejection_view(rejection) for rejection in found.rejections],
            }
        )


async def poll_codearts(codearts: CodeArts | None, wanted: BuildName, found: WhyInputs) -> PollOutcome | None:
    """Return CodeArts' answer about a build of which no report was accepted; None if it is not asked."""
    accepted = found.build is not None and found.build.reports
    if codearts is None or isinstance(wanted.build_no, str) or accepted or found.breakers.open_breaker(CODEARTS):
        return None
    try:
        async with asyncio.timeout(CODEARTS_SECONDS):
            return await codearts.build_info(wanted.job_id, wanted.build_no)
    except TimeoutError:
        return OutcomeUnknown(message=f"it did not answer within {CODEARTS_SECONDS:.0f} seconds")


def _send_command(request: web.Request) -> str:
    """Return the command that sends a quarantined file to this listener, as the client of this request reaches it."""
    host = request.host if _HOST.fullmatch(request.host) else "localhost:8081"
    command = SEND_COMMAND.format(url=f"{request.scheme}://{host}", id="{id}")
    return f'{command} -H "X-Auth-Token: $BRIDGE_ADMIN_TOKEN"' if presented_token(request) else command
