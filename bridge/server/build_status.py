"""What became of my build: the API's build object, for callers whose project it belongs to.

It knows neither the ledger's tables nor how a build goes on.
"""

from aiohttp import web

from bridge.domain.callers import Caller
from bridge.errors import NotFound
from bridge.server.auth.authenticator import Authenticator, require
from bridge.server.http.parameters import read_parameters
from bridge.server.http.responses import large_json_answer
from bridge.store.api_types import BuildView
from bridge.store.engine.base import Database
from bridge.store.queries import find_build

STATUS_PATH = "/bridge/v1/builds/{job_id}/{build_no}"


class BuildStatusHandler:
    """Answers GET STATUS_PATH to callers with the scope `status`."""

    def __init__(self, *, database: Database, callers: Authenticator) -> None:
        self._database = database
        self._callers = callers

    async def show(self, request: web.Request) -> web.Response:
        """Answer with the build object; a build of somebody else is one that does not exist."""
        caller = await self._callers.caller_of(request)
        require(caller, "status")
        asked = read_parameters(request.match_info)
        found = await self._database.read(find_build, asked.job_id, asked.build_no)
        build = seen_by(caller, found) if found else None
        if build is None:
            raise NotFound(
                f"The bridge knows no build {asked.build_no} of job {asked.job_id} that you may see. "
                "Check both, or ask its operator why."
            )
        return await large_json_answer(build)


def seen_by(caller: Caller, build: BuildView) -> BuildView | None:
    """Return what `caller` may see of `build`, None for nothing.

    Until the build has a route, a caller that is bound to routes sees it when it uploaded one of its reports. Anybody
    can have an upload refused under any build's name: where nothing was accepted, each sees its own refusals alone.
    """
    if caller.routes is None:
        return build
    if build["route"] is not None:
        return build if build["route"] in caller.routes else None
    if build["reports"]:
        return build if any(report["caller"] == caller.name for report in build["reports"]) else None
    own = [refusal for refusal in build["rejections"] if refusal["caller"] == caller.name]
    return {**build, "rejections": own} if own else None
