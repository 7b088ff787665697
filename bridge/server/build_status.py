"""GET /bridge/v1/builds/{job_id}/{build_no}: the build object, for callers that may see the build."""

from aiohttp import web

from bridge.domain.callers import Caller
from bridge.errors import NotFound
from bridge.server.auth.authenticator import Authenticator, require
from bridge.server.http.requests import read_build_name
from bridge.server.http.responses import large_json_response
from bridge.store.api_types import BuildView
from bridge.store.engine.base import Database
from bridge.store.queries import find_build

STATUS_PATH = "/bridge/v1/builds/{job_id}/{build_no}"


class BuildStatusHandler:
    """Answers GET STATUS_PATH to callers with the scope `status`."""

    def __init__(self, *, database: Database, authenticator: Authenticator) -> None:
        self._database = database
        self._authenticator = authenticator

    async def show(self, request: web.Request) -> web.Response:
        """Return the build object, or 404 if the caller may not see the build."""
        caller = await self._authenticator.identify_caller(request)
        require(caller, "status")
        wanted = read_build_name(request.match_info)
        found = await self._database.read(find_build, wanted.job_id, wanted.build_no)
        wanted.require(found=found is not None)
        build = visible_to(caller, found) if found else None
        if build is None:
            raise NotFound(
                f"The bridge has no build {wanted.build_no} of job {wanted.job_id} that you may see. "
                "Check both, or ask its operator."
            )
        return await large_json_response(build)


def visible_to(caller: Caller, build: BuildView) -> BuildView | None:
    """Return what `caller` may see of `build`, or None.

    A caller that is bound to routes sees builds of these routes, and of builds without a route its own reports and
    rejections, and nothing that others state of it: any caller can upload under the number of any build.
    """
    if caller.routes is None:
        return build
    if build["route"] is not None:
        return build if build["route"] in caller.routes else None
    reports = [report for report in build["reports"] if report["caller"] == caller.name]
    rejections = [rejection for rejection in build["rejections"] if rejection["caller"] == caller.name]
    if not (reports or rejections):
        return None
    own: BuildView = {**build, "reports": reports, "rejections": rejections}
    own["branch"] = own["commit"] = own["metadata_mismatch"] = None
    return own
