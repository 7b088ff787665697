"""CodeArts Build (states, records and lists of builds, report upload, summary) and CodeArts Check over HTTP.

Source: the pages of the API reference about these calls, and the definitions in Huawei's API Explorer.
"""

import re

from aiohttp import web

from bridge.sandbox.api_gateway import ApiGateway, answer, error_response, no_such_api
from bridge.sandbox.build_lists import MAX_PAGE_SIZE, job_list, read_window, record_list
from bridge.sandbox.builds import BuildRun, CheckRun, CheckStatus, UploadedReport, read_report, summary
from bridge.sandbox.faults import Handler
from bridge.sandbox.state import SandboxState

MAX_UPLOAD_BYTES = 64 * 1024 * 1024  # of a request's body; CodeArts' own report step accepts files of 10 MB
_BUILD_NO = re.compile(r"[0-9]{1,10}")
_PAGE_NUMBER = re.compile(r"[0-9]{1,9}")
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
            ("GET", "/v1/record/{record_id}/info", "record_details", self._record_details),
            ("GET", "/v1/record/{job_id}/list", "record_list", self._record_list),
            ("GET", "/v1/job/{project_id}/list", "job_list", self._job_list),
            ("GET", "/v1/record/{record_id}/full-stages", "full_stages", self._full_stages),
            ("GET", "/v1/report/{job_id}/summary", "summary", self._summary),
            ("POST", "/v1/report/junit/report/upload", "upload", self._upload),
        )
        for method, path, name, handler in routes:
            call_name = f"codearts.{name}"
            observed = observe(call_name, self._api_gateway.protect(call_name, handler))
            app.router.add_route(method, path, observed)
            if method == "GET":
                app.router.add_route("HEAD", path, observed)
        app.router.add_route("*", "/{path:.*}", observe("codearts.unknown", no_such_api))
        return app

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

    async def _record_details(self, request: web.Request) -> web.Response:
        build = self._state.builds.find_record(request.match_info["record_id"])
        if build is None:
            return _no_such_build()
        return answer(200, {"status": "success", "error": None, "result": build.details()})

    async def _record_list(self, request: web.Request) -> web.Response:
        offset = self._state.behavior.list_utc_offset_hours
        window = read_window(
            request.query.get("start_time", ""), request.query.get("end_time", ""), utc_offset_hours=offset
        )
        page, size = _page(request, default_size="10")
        if window is None or page is None or size is None:
            return _bad_parameter("start_time, end_time, page_index or page_size")
        first, last = window
        builds = [
            build
            for build in self._state.builds.of_job(request.match_info["job_id"])
            if first <= build.started_at <= last
        ]
        result = record_list(builds, page=page, size=size, now=self._state.micros())
        return answer(200, {"status": "success", "error": None, "result": result})

    async def _job_list(self, request: web.Request) -> web.Response:
        page, size = _page(request, default_size="")
        if page is None or size is None:
            return _bad_parameter("page_index or page_size")
        builds = self._state.builds.of_project(request.match_info["project_id"])
        return answer(200, job_list(builds, page=page, size=size))

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


def _page(request: web.Request, *, default_size: str) -> tuple[int | None, int | None]:
    """Return page_index and page_size; None for one that is out of range. The list of jobs requires both."""
    page = request.query.get("page_index", "0" if default_size else "")
    size = request.query.get("page_size", default_size)
    if not _PAGE_NUMBER.fullmatch(page) or not _PAGE_NUMBER.fullmatch(size) or int(size) > MAX_PAGE_SIZE:
        return None, None
    return int(page), int(size)


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
        self._api_gateway = ApiGateway(state, expired=EXPIRED)

    def application(self) -> web.Application:
        observe = self._state.listener().observe
        app = web.Application()
        routes: tuple[tuple[str, str, str, Handler], ...] = (
            ("POST", "/v2/tasks/{task_id}/run", "check.run", self._run),
            ("GET", "/v2/tasks/{task_id}/progress", "check.progress", self._progress),
            ("PUT", "/v1/jobs/{job_id}/result/refresh", "check.refresh", self._refresh),
        )
        for method, path, call_name, handler in routes:
            app.router.add_route(method, path, observe(call_name, self._api_gateway.protect(call_name, handler)))
        app.router.add_route("*", "/{path:.*}", observe("check.unknown", no_such_api))
        return app

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
