"""The stand-in of CodeArts Build over HTTP: build-info and both record-infos.

It must not know TestNod, S3 or the bridge. Pages: codearts-build-info, codearts-record-info-v4.
"""

import hmac
import re
import uuid

from aiohttp import web

from bridge.sandbox.builds import BuildRun
from bridge.sandbox.world import World

_BUILD_NO = re.compile(r"[0-9]{1,10}")


class BuildApi:
    """Answers for the builds of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def application(self) -> web.Application:
        over = self._world.observer().over
        build_info = over("codearts.build_info", self._build_info)
        record_info = over("codearts.record_info", self._record_info)
        app = web.Application()
        app.router.add_get("/v1/job/{job_id}/{build_no}/build-info", build_info)
        app.router.add_get("/v4/jobs/{job_id}/{build_no}/record-info", record_info)
        app.router.add_get("/v1/record/{job_id}/{build_no}/record-info", record_info)
        app.router.add_route("*", "/{path:.*}", over("codearts.unknown", _no_such_api))
        return app

    async def _build_info(self, request: web.Request) -> web.Response:
        build = self._wanted(request)
        if isinstance(build, web.Response):
            return build
        info = build.info()
        result = [info] if self._world.behaviour.result_shape == "array" else info
        return _answer(200, {"result": result, "error": None, "status": "success"})

    async def _record_info(self, request: web.Request) -> web.Response:
        build = self._wanted(request)
        if isinstance(build, web.Response):
            return build
        return _answer(200, {"status": "success", "result": build.record()})

    def _wanted(self, request: web.Request) -> BuildRun | web.Response:
        if not self._allowed(request.headers.get("X-Auth-Token", "")):
            return _gateway_error(401, "APIGW.0301", "Incorrect IAM authentication information: decrypt token fail")
        job_id, build_no = request.match_info["job_id"], request.match_info["build_no"]
        build = self._world.builds.find(job_id, int(build_no)) if _BUILD_NO.fullmatch(build_no) else None
        if build is None:
            message = f"The build record {job_id}/{build_no} does not exist."
            return _answer(422, {"error_code": "DEVCB.00031006", "error_msg": message})
        return build

    def _allowed(self, token: str) -> bool:
        tokens = self._world.behaviour.codearts_tokens
        return not tokens or any(hmac.compare_digest(token.encode(), known.encode()) for known in tokens)


async def _no_such_api(_request: web.Request) -> web.Response:
    message = "The API does not exist or has not been published in the environment"
    return _gateway_error(404, "APIGW.0101", message)


def _gateway_error(status: int, code: str, message: str) -> web.Response:
    return _answer(status, {"error_code": code, "error_msg": message}, names_request=True)


def _answer(status: int, body: dict[str, object], *, names_request: bool = False) -> web.Response:
    request_id = uuid.uuid4().hex
    if names_request:
        body = {**body, "request_id": request_id}
    return web.json_response(body, status=status, headers={"X-Request-Id": request_id})
