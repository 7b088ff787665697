"""The stand-in of CodeArts Check over HTTP: run a task, ask how far it is, refresh and read its report.

It must not know CodeArts Build or the bridge. Pages: codearts-check-refresh-report, "Executing a Check Task", "Querying
the Status of a Task".
"""

from aiohttp import web

from bridge.sandbox.api_gateway import ApiGateway
from bridge.sandbox.calls import Handler
from bridge.sandbox.check_tasks import CheckRun, CheckStatus
from bridge.sandbox.responses import answer, failure, gateway_failure, no_such_api
from bridge.sandbox.state import SandboxState

BAD_PARAMETER = (
    "CC.00070400.400",
    "Verify request parameter failed. Check whether the request parameters are correct.",
)
BUSY = ("CC.00000000", "The network is busy. Please try again later.")
EXPIRED = ("CC.00000003", "Authentication information expired.")


class CheckApi:
    """Answers for the check tasks of a world."""

    def __init__(self, world: SandboxState) -> None:
        self._world = world
        self._gatekeeper = ApiGateway(world)

    def application(self) -> web.Application:
        over = self._world.observer().over
        app = web.Application()
        app.router.add_post("/v2/tasks/{task_id}/run", over("check.run", self._guarded(self._run)))
        app.router.add_get("/v2/tasks/{task_id}/progress", over("check.progress", self._guarded(self._progress)))
        app.router.add_put("/v1/jobs/{job_id}/result/refresh", over("check.refresh", self._guarded(self._refresh)))
        app.router.add_route("*", "/{path:.*}", over("check.unknown", no_such_api))
        return app

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            refused = await self._gatekeeper.refusal(request)
            if refused is None:
                return await handler(request)
            if refused.code == "APIGW.0307":
                return failure(401, *EXPIRED)
            return gateway_failure(401, refused.code, refused.message)

        return guarded

    async def _run(self, request: web.Request) -> web.Response:
        run = self._world.checks.run(request.match_info["task_id"])
        return failure(400, *BAD_PARAMETER) if run is None else answer(200, {"exec_id": run.exec_id})

    async def _progress(self, request: web.Request) -> web.Response:
        job_id = request.query.get("job_id", "")
        checks = self._world.checks
        run = checks.find(job_id) if job_id else checks.latest(request.match_info["task_id"])
        if run is None or run.task_id != request.match_info["task_id"]:
            return failure(400, *BUSY)
        body: dict[str, object] = {"task_status": int(run.status)}
        if run.status is CheckStatus.CHECKING:  # only then there is a progress
            body["progress"] = {"ratio": "50%", "info": "Performing the check..."}
        return answer(200, body)

    async def _refresh(self, request: web.Request) -> web.Response:
        in_background = request.query.get("async", "true")
        run = self._wanted(request)
        if run is None or run.status is not CheckStatus.SUCCEEDED or in_background not in ("true", "false"):
            return failure(400, *BAD_PARAMETER)
        done: dict[str, object] = {"httpStatus": "OK", "status": "success"}
        return answer(200, done if in_background == "true" else {**done, "result": dict(run.report)})

    def _wanted(self, request: web.Request) -> CheckRun | None:
        task_id = request.query.get("task_id", "")
        if task_id:
            return self._world.checks.latest(task_id, succeeded=True)
        return self._world.checks.find(request.match_info["job_id"])
