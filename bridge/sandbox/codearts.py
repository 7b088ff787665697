"""x"""

import re

from aiohttp import web

from bridge.sandbox.api_gateway import ApiGateway, answer, failure, gateway_failure, no_such_api
from bridge.sandbox.builds import BuildRun, CheckRun, CheckStatus, UploadedReport, read_report, summary
from bridge.sandbox.faults import Handler
from bridge.sandbox.state import SandboxState

LARGEST_UPLOAD = 64 * 1024 * 1024  # a request's whole body; CodeArts' own report step takes files of 10 MB
_BUILD_NO = re.compile(r"[0-9]{1,10}")
_NODE_ID = re.compile(r"[0-9A-Za-z-]{1,32}")


class BuildApi:
    """Answers for the builds of a world."""

    def __init__(self, world: SandboxState) -> None:
        self._world = world
        self._gatekeeper = ApiGateway(world)

    def application(self) -> web.Application:
        over = self._world.observer().over
        app = web.Application(client_max_size=LARGEST_UPLOAD)
        routes: tuple[tuple[str, str, str, Handler], ...] = (
            ("GET", "/v1/job/{job_id}/{build_no}/build-info", "build_info", self._build_info),
            ("GET", "/v4/jobs/{job_id}/{build_no}/record-info", "record_info", self._record_info),
            ("GET", "/v1/record/{job_id}/{build_no}/record-info", "record_info", self._record_info),
            ("GET", "/v1/record/{record_id}/full-stages", "full_stages", self._full_stages),
            ("GET", "/v1/report/{job_id}/summary", "summary", self._summary),
            ("POST", "/v1/report/junit/report/upload", "upload", self._upload),
        )
        for method, path, name, handler in routes:
            app.router.add_route(method, path, over(f"codearts.{name}", self._guarded(handler)))
            if method == "GET":
                app.router.add_route("HEAD", path, over(f"codearts.{name}", self._guarded(handler)))
        app.router.add_route("*", "/{path:.*}", over("codearts.unknown", no_such_api))
        return app

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            refused = await self._gatekeeper.refusal(request)
            if refused is not None:
                return gateway_failure(401, refused.code, refused.message)
            return await handler(request)

        return guarded

    async def _build_info(self, request: web.Request) -> web.Response:
        build = self._find(request.match_info["job_id"], request.match_info["build_no"])
        if build is None:
            return _no_such_build()
        info = build.info()
        result = [info] if self._world.behaviour.result_shape == "array" else info
        return answer(200, {"result": result, "error": None, "status": "success"})

    async def _record_info(self, request: web.Request) -> web.Response:
        build = self._find(request.match_info["job_id"], request.match_info["build_no"])
        return _no_such_build() if build is None else answer(200, {"status": "success", "result": build.record()})

    async def _full_stages(self, request: web.Request) -> web.Response:
        build = self._world.builds.find_record(request.match_info["record_id"])
        if build is None:
            return _no_such_build()
        return answer(200, {"status": "success", "error": None, "result": {"build_stages": build.stages()}})

    async def _summary(self, request: web.Request) -> web.Response:
        build_no = request.query.get("build_no", "")
        if not _BUILD_NO.fullmatch(build_no):
            return _bad_parameter("build_no")
        build = self._find(request.match_info["job_id"], build_no)
        if build is None:
            return _no_such_build()
        result = summary(build, self._world.reports.of(build))
        return answer(200, {"status": "success", "error": None, "result": result})

    async def _upload(self, request: web.Request) -> web.Response:
        node_id = request.query.get("node_id", "")
        if not _NODE_ID.fullmatch(node_id):
            return _bad_parameter("node_id")
        build = self._find(request.query.get("job_id", ""), request.query.get("build_no", ""))
        if build is None:
            return _no_such_build()
        reports: list[UploadedReport] = []
        try:
            form = await request.post()
        except ValueError:
            return _bad_parameter("files")
        for name, file in form.items():
            if name != "files" or not isinstance(file, web.FileField):
                continue
            report = read_report(file.filename, node_id, file.file.read(), at=self._world.micros())
            if report is None:
                return _bad_parameter("files")
            reports.append(report)
        self._world.reports.add(build, reports)
        return answer(200, {"status": "success", "error": None, "result": None})

    def _find(self, job_id: str, build_no: str) -> BuildRun | None:
        return self._world.builds.find(job_id, int(build_no)) if _BUILD_NO.fullmatch(build_no) else None


def _no_such_build() -> web.Response:
    return failure(422, "DEVCB.00031006", "The build record does not exist.")


def _bad_parameter(name: str) -> web.Response:
    return failure(400, "CB.00060200", f"Invalid parameter: {name}.")


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
