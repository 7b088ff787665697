"""What became of my build: the API's build object, for callers whose project it belongs to.

It knows neither the ledger's tables nor how a build goes on.
"""

from aiohttp import web

from bridge.clock import Clock
from bridge.errors import NotFound
from bridge.server.callers import Callers, require
from bridge.server.parameters import read_parameters
from bridge.store.database import SqliteDatabase
from bridge.store.views import find_build

STATUS_PATH = "/bridge/v1/builds/{job_id}/{build_no}"


class Status:
    """Answers GET STATUS_PATH to callers with the scope `status`."""

    def __init__(self, *, database: SqliteDatabase, callers: Callers, clock: Clock) -> None:
        self._database = database
        self._callers = callers
        self._clock = clock

    async def show(self, request: web.Request) -> web.Response:
        """Answer with the build object; a build of somebody else's route is one that does not exist."""
        caller = self._callers.identify(request, self._clock.now())
        require(caller, "status")
        asked = read_parameters(request.match_info)
        build = await self._database.read(find_build, asked.job_id, asked.build_no)
        if build is None or (caller.routes is not None and build["route"] not in caller.routes):
            raise NotFound(
                f"The bridge knows no build {asked.build_no} of job {asked.job_id} that you may see. "
                "Check both, or ask its operator why."
            )
        return web.json_response(build)
