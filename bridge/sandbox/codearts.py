"""CodeArts Build (build-info, record-info, full-stages, report upload, summary) and CodeArts Check over HTTP.

Source: the pages of the API reference about these calls.
"""

import re

from aiohttp import web

from bridge.sandbox.api_gateway import ApiGateway, answer, error_response, gateway_error, no_such_api
from bridge.sandbox.builds import BuildRun, CheckRun, CheckStatus, UploadedReport, read_report, summary
from bridge.sandbox.faults import Handler
from bridge.sandbox.state import SandboxState

MAX_UPLOAD_BYTES = 64 * 1024 * 1024  # of a request's body; CodeArts' own report step accepts files of 10 MB
_BUILD_NO = re.compile(r"[0-9]{1,10}")
_NODE_ID = re.compile(r"[0-9A-Za-z-]{1,32}")


class BuildApi:
    """CodeArts Build for the builds of the sandbox."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._api_gateway = ApiGateway(state)

    def application(self) -> web.Application:
        observe = self._state.listener().observe
        app = web.Application(client_max_size=MAX_UPLOAD_BYTES)
        routes: tuple[tuple[str, str, str, Handler], ...] = (
            ("GET", "/v1/job/{job_id}/{build_no}/build-info", "build_info", self._build_info),
            ("GET", "/v4/jobs/{job_id}/{build_no}/record-info", "record_info", self._record_info),
            ("GET", "/v1/record/{job_id}/{build_no}/record-info", "record_info", self._record_info),
            ("GET", "/v1/record/{record_id}/full-stages", "full_stages", self._full_stages),
            ("GET", "/v1/report/{job_id}/summary", "summary", self._summary),
            ("POST", "/v1/report/junit/report/upload", "upload", self._upload),
        )
        for method, path, name, handler in routes:
            app.router.add_route(method, path, observe(f"codearts.{name}", self._authenticated(handler)))
            if method == "GET":
                app.router.add_route("HEAD", path, observe(f"codearts.{name}", self._authenticated(handler)))
        app.router.add_route("*", "/{path:.*}", observe("codearts.unknown", no_such_api))
        return app

    def _authenticated(self, handler: Handler) -> Handler:
        async def authenticated(request: web.Request) -> web.StreamResponse:
            rejection = await self._api_gateway.rejection(request)
            if rejection is not None:
                return gateway_error(401, rejection.code, rejection.message)
            return await handler(request)

        return authenticated

    async def _build_info(self, request: web.Request) -> web.Response:
        build = self._find(request.match_info["job_id"], request.match_info["build_no"])
        if build is None:
            return _no_such_build()
        info = build.info()
        result = [info] if self._state.behavior.result_shape == "array" else info
        return answer(200, {"result": result, "error": None, "status": "success"})

    async def _record_info(self, request: web.Request) -> web.Response:
        build = self._find(request.match_info["job_id"], request.match_info["build_no"])
        return _no_such_build() if build is None else answer(200, {"status": "success", "result": build.record()})

    async def _full_stages(self, request: web.Request) -> web.Response:
        build = self._state.builds.find_record(request.match_info["record_id"])
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
        result = summary(build, self._state.reports.of(build))
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
            report = read_report(file.filename, node_id, file.file.read(), at=self._state.micros())
            if report is None:
                return _bad_parameter("files")
            reports.append(report)
        self._state.reports.add(build, reports)
        return answer(200, {"status": "success", "error": None, "result": None})

    def _find(self, job_id: str, build_no: str) -> BuildRun | None:
        return self._state.builds.find(job_id, int(build_no)) if _BUILD_NO.fullmatch(build_no) else None


def _no_such_build() -> web.Response:
    return error_response(422, "DEVCB.00031006", "The build record does not exist.")


def _bad_parameter(name: str) -> web.Response:
    return error_response(400, "CB.00060200", f"Invalid parameter: {name}.")


BAD_PARAMETER = (
    "CC.00070400.400",
    "Verify request parameter failed. Check whether the request parameters are correct.",
)
BUSY = ("CC.00000000", "The network is busy. Please try again later.")
EXPIRED = ("CC.00000003", "Authentication information expired.")


class CheckApi:
    """CodeArts Check for the check tasks of the sandbox."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._api_gateway = ApiGateway(state)

    def application(self) -> web.Application:
        observe = self._state.listener().observe
        app = web.Application()
        app.router.add_post("/v2/tasks/{task_id}/run", observe("check.run", self._authenticated(self._run)))
        app.router.add_get(
            "/v2/tasks/{task_id}/progress", observe("check.progress", self._authenticated(self._progress))
        )
        app.router.add_put(
            "/v1/jobs/{job_id}/result/refresh", observe("check.refresh", self._authenticated(self._refresh))
        )
        app.router.add_route("*", "/{path:.*}", observe("check.unknown", no_such_api))
        return app

    def _authenticated(self, handler: Handler) -> Handler:
        async def authenticated(request: web.Request) -> web.StreamResponse:
            rejection = await self._api_gateway.rejection(request)
            if rejection is None:
                return await handler(request)
            if rejection.code == "APIGW.0307":
                return error_response(401, *EXPIRED)
            return gateway_error(401, rejection.code, rejection.message)

        return authenticated

    async def _run(self, request: web.Request) -> web.Response:
        run = self._state.checks.run(request.match_info["task_id"])
        return error_response(400, *BAD_PARAMETER) if run is None else answer(200, {"exec_id": run.exec_id})

    async def _progress(self, request: web.Request) -> web.Response:
        job_id = request.query.get("job_id", "")
        checks = self._state.checks
        run = checks.find(job_id) if job_id else checks.latest(request.match_info["task_id"])
        if run is None or run.task_id != request.match_info["task_id"]:
            return error_response(400, *BUSY)
        body: dict[str, object] = {"task_status": int(run.status)}
        if run.status is CheckStatus.CHECKING:  # other statuses have no progress
            body["progress"] = {"ratio": "50%", "info": "Performing the check..."}
        return answer(200, body)

    async def _refresh(self, request: web.Request) -> web.Response:
        in_background = request.query.get("async", "true")
        run = self._wanted(request)
        if run is None or run.status is not CheckStatus.SUCCEEDED or in_background not in ("true", "false"):
            return error_response(400, *BAD_PARAMETER)
        done: dict[str, object] = {"httpStatus": "OK", "status": "success"}
        return answer(200, done if in_background == "true" else {**done, "result": dict(run.report)})

    def _wanted(self, request: web.Request) -> CheckRun | None:
        task_id = request.query.get("task_id", "")
        if task_id:
            return self._state.checks.latest(task_id, succeeded=True)
        return self._state.checks.find(request.match_info["job_id"])
