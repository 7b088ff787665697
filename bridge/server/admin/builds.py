"""The admin API: builds, and why one of them is not in TestNod, as JSON.

It knows neither tables nor sentences; it asks CodeArts only where nobody ever uploaded.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from bridge.domain.circuit_breaker import CODEARTS
from bridge.domain.clock_trust import Verdict
from bridge.domain.outcomes import OutcomeUnknown, PollOutcome
from bridge.domain.why import why
from bridge.errors import NotFound
from bridge.server.admin.config import BuildInfoClient
from bridge.server.admin.params import read_builds_query, read_id, read_why_query
from bridge.server.http.parameters import Parameters
from bridge.server.http.responses import large_json_answer
from bridge.store.api_types import rejection_view
from bridge.store.engine.base import Database
from bridge.store.queries import WhyInputs, find_why, list_builds, one_build

CODEARTS_SECONDS = 5.0
"""A person waits for the sentence: what CodeArts says is worth a few seconds, not its client's whole patience."""


class BuildsApi:
    """Handlers below /api/v1; `codearts` says whom to ask now, None for nobody."""

    def __init__(
        self, *, database: Database, codearts: Callable[[], BuildInfoClient | None], trust: Callable[[], Verdict]
    ) -> None:
        self._database = database
        self._codearts = codearts
        self._trust = trust

    def add_routes(self, app: web.Application) -> None:
        """Serve the API in `app`."""
        app.router.add_get("/api/v1/builds", self.builds)
        app.router.add_get("/api/v1/builds/{id}", self.build)
        app.router.add_get("/api/v1/why", self.why)

    async def builds(self, request: web.Request) -> web.Response:
        """Answer with a page of builds, newest first; `next` is what `after` of the next page is."""
        page = await self._database.read(list_builds, read_builds_query(request.query))
        following = None if page.next_before_id is None else str(page.next_before_id)
        return await large_json_answer({"builds": page.builds, "next": following})

    async def build(self, request: web.Request) -> web.Response:
        """Answer with the build of this id."""
        build_id = read_id(request.match_info["id"])
        build = None if build_id is None else await self._database.read(one_build, build_id)
        if build is None:
            raise NotFound("The ledger has no build of this id. Look for it in /api/v1/builds.")
        return await large_json_answer(build)

    async def why(self, request: web.Request) -> web.Response:
        """Answer with one sentence, its case, and what it rests on."""
        asked = read_why_query(request.query)
        found = await self._database.read(find_why, asked.job_id, asked.build_no)
        told = why(
            job_id=asked.job_id,
            build_no=asked.build_no,
            build=found.build,
            refusals=found.rejections,
            gates=replace(found.breakers, clock=self._trust()),
            now=self._database.now(),
            codearts_says=await self._ask_codearts(asked, found),
        )
        return await large_json_answer(
            {
                "sentence": told.sentence,
                "case": told.case,
                "job_id": asked.job_id,
                "build_no": asked.build_no,
                "build": found.view,
                "rejections": [rejection_view(refusal) for refusal in found.rejections],
            }
        )

    async def _ask_codearts(self, asked: Parameters, found: WhyInputs) -> PollOutcome | None:
        uploaded = found.rejections or (found.build is not None and found.build.reports)
        codearts = self._codearts()
        if codearts is None or uploaded or found.breakers.closed(CODEARTS):
            return None
        try:
            async with asyncio.timeout(CODEARTS_SECONDS):
                return await codearts.build_info(asked.job_id, asked.build_no)
        except TimeoutError:
            return OutcomeUnknown(message=f"it did not answer within {CODEARTS_SECONDS:.0f} seconds")
