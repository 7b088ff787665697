"""The control API of the sandbox: starts and ends builds, shows runs and calls, sets faults. All bodies are JSON.

Times are microseconds UTC; an error is `{"error": "…"}` with 400 or 404.

POST   /builds {job_id, build_no, record?: {field of record-info: value},
                details?: {field of /v1/record/{record_id}/info: value}}    201, the build, running
POST   /builds/{job_id}/{build_no}/end {build_result? = "SUCCESS"}          200, the build, ended
DELETE /builds/{job_id}/{build_no}      204, CodeArts does not find it any more
POST   /projects {token, name}          201 {id, name}
DELETE /projects/{token}                204, the token is revoked, its runs stay
POST   /runs {token, build_id}          201, a run without uploads
GET    /runs[?build_id=]                200 {"runs": [run]}, oldest first
GET    /uploads/{upload_id}/bytes       200, the bytes as they were PUT
GET    /calls[?where=]                  200 {"calls": [{where, at, method, path, headers, status}]}; tokens: "present"
POST   /users {name, password, domain, security_admin?}     201, an IAM user, or another password for it
POST   /keys {access_key, secret_key}   201, an access key
DELETE /keys/{access_key}               204, the key is removed
POST   /tokens/end                      200 {"ended": number}, all tokens of IAM have expired
POST   /checks {task_id}                201, a task of CodeArts Check, to be run there
POST   /checks/{task_id}/end {task_status? = 2, report?: {field: value}}    200, its latest run has ended
POST   /faults {where, answers: [answer]}       204, queued for the next calls, one each
POST   /faults {where, rate, answer, seed?}     204, given to each call with this probability
DELETE /faults                                  204, all faults are removed
POST   /settings {url_seconds?, …}              200, all settings: the fields of state.Behavior

run: {id, build_id, project, status, opened_at, finalized_at, finalize_calls: [at], transitions: [{status, at}],
      uploads: [{upload_id, state, sha256, size, failure_message, registered_at, put_at, puts, metadata, tags}]}
where: one of faults.CALL_NAMES (testnod.register, s3.put, codearts.build_info, iam.log_in, check.refresh, …),
       or a pattern: "testnod.*", "*"
answer: {"status": 503, "body"?, "headers"?}, {"hang": true}, {"cut": true}, {"garbled": true}, {"pass": true}, "pass";
        each with "after"?: true (the call is executed, then its response replaced) and "delay_seconds"?
"""

import json
from collections.abc import Mapping
from dataclasses import asdict

from aiohttp import web

from bridge.sandbox.builds import BuildRun, CheckStatus
from bridge.sandbox.faults import Handler
from bridge.sandbox.runs import SandboxRun, Upload
from bridge.sandbox.state import BUCKET, SandboxState


class ControlApi:
    """Lets tests, the demo and people inspect and change the sandbox."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state

    def application(self) -> web.Application:
        app = web.Application(middlewares=[_errors_as_json])
        routes: tuple[tuple[str, str, Handler], ...] = (
            ("POST", "/builds", self._start_build),
            ("POST", "/builds/{job_id}/{build_no}/end", self._end_build),
            ("DELETE", "/builds/{job_id}/{build_no}", self._forget_build),
            ("POST", "/projects", self._open_project),
            ("DELETE", "/projects/{token}", self._close_project),
            ("POST", "/runs", self._open_run),
            ("GET", "/runs", self._show_runs),
            ("GET", "/uploads/{upload_id}/bytes", self._show_bytes),
            ("POST", "/users", self._add_user),
            ("POST", "/keys", self._add_key),
            ("DELETE", "/keys/{access_key}", self._forget_key),
            ("POST", "/tokens/end", self._end_tokens),
            ("POST", "/checks", self._open_check),
            ("POST", "/checks/{task_id}/end", self._end_check),
            ("GET", "/calls", self._show_calls),
            ("POST", "/faults", self._order_faults),
            ("DELETE", "/faults", self._clear_faults),
            ("POST", "/settings", self._change_settings),
        )
        for method, path, handler in routes:
            app.router.add_route(method, path, handler)
        return app

    async def _start_build(self, request: web.Request) -> web.Response:
        fields = await _read(request)
        build = self._state.builds.start(
            _text(fields, "job_id"),
            _number(fields, "build_no"),
            at=self._state.micros(),
            record=_object(fields, "record"),
            details=_object(fields, "details"),
        )
        return web.json_response(_build(build), status=201)

    async def _end_build(self, request: web.Request) -> web.Response:
        fields = await _read(request)
        build = self._state.builds.end(
            request.match_info["job_id"],
            _number(request.match_info, "build_no"),
            at=self._state.micros(),
            build_result=_text({"build_result": "SUCCESS", **fields}, "build_result"),
        )
        return web.json_response(_build(build))

    async def _forget_build(self, request: web.Request) -> web.Response:
        self._state.builds.forget(request.match_info["job_id"], _number(request.match_info, "build_no"))
        return web.Response(status=204)

    async def _open_project(self, request: web.Request) -> web.Response:
        fields = await _read(request)
        project = self._state.runs.open_project(_text(fields, "token"), _text(fields, "name"))
        return web.json_response({"id": project.id, "name": project.name}, status=201)

    async def _close_project(self, request: web.Request) -> web.Response:
        self._state.runs.close_project(request.match_info["token"])
        return web.Response(status=204)

    async def _open_run(self, request: web.Request) -> web.Response:
        fields = await _read(request)
        project = self._state.runs.project(_text(fields, "token"))
        if project is None:
            raise LookupError("No project has this token. Open one with POST /projects.")
        at, processing_us = self._state.micros(), self._state.processing_us()
        run = self._state.runs.open_run(project, _text(fields, "build_id"), at=at, processing_us=processing_us)
        return web.json_response(_run(run, at), status=201)

    async def _show_runs(self, request: web.Request) -> web.Response:
        at = self._state.micros()
        runs = self._state.runs.all(request.query.get("build_id"))
        return web.json_response({"runs": [_run(run, at) for run in runs]})

    async def _show_bytes(self, request: web.Request) -> web.Response:
        upload = self._state.runs.upload(_number(request.match_info, "upload_id"))
        stored = self._state.objects.find(upload.key) if upload is not None else None
        if stored is None or stored.body is None:
            raise LookupError(f"No bytes are kept in {BUCKET} for this upload. It was not PUT, or keep_bytes is false.")
        return web.Response(body=stored.body, content_type="application/xml")

    async def _add_user(self, request: web.Request) -> web.Response:
        fields = await _read(request)
        name, password, domain = (_text(fields, key) for key in ("name", "password", "domain"))
        admin = fields.get("security_admin") is True
        user = self._state.accounts.add_user(name, password, domain, security_admin=admin)
        return web.json_response({"id": user.id, "name": user.name, "domain": user.domain}, status=201)

    async def _add_key(self, request: web.Request) -> web.Response:
        fields = await _read(request)
        key = self._state.accounts.add_key(_text(fields, "access_key"), _text(fields, "secret_key"))
        return web.json_response({"access_key": key.access_key}, status=201)

    async def _forget_key(self, request: web.Request) -> web.Response:
        self._state.accounts.forget_key(request.match_info["access_key"])
        return web.Response(status=204)

    async def _end_tokens(self, _request: web.Request) -> web.Response:
        return web.json_response({"ended": self._state.accounts.end_tokens(at=self._state.micros())})

    async def _open_check(self, request: web.Request) -> web.Response:
        task_id = _text(await _read(request), "task_id")
        self._state.checks.open(task_id)
        return web.json_response({"task_id": task_id}, status=201)

    async def _end_check(self, request: web.Request) -> web.Response:
        fields = await _read(request)
        status = CheckStatus(_number({"task_status": CheckStatus.SUCCEEDED, **fields}, "task_status"))
        run = self._state.checks.end(request.match_info["task_id"], status, _object(fields, "report"))
        return web.json_response({"exec_id": run.exec_id, "task_status": int(run.status)})

    async def _show_calls(self, request: web.Request) -> web.Response:
        calls = self._state.calls.at(request.query.get("where", "*"))
        return web.json_response({"calls": [asdict(call) for call in calls]})

    async def _order_faults(self, request: web.Request) -> web.Response:
        fields = await _read(request)
        where, faults = _text(fields, "where"), self._state.faults
        if "rate" in fields:
            rate, answer = fields["rate"], fields.get("answer")
            if not isinstance(rate, int | float) or not isinstance(answer, Mapping):
                raise ValueError("rate must be a number and answer an object.")
            faults.at_random(where, rate=rate, answer=answer, seed=_number({"seed": 0, **fields}, "seed"))
            return web.Response(status=204)
        answers = fields.get("answers")
        if not isinstance(answers, list):
            raise ValueError("answers must be a list; or use rate and answer.")  # noqa: TRY004  # as above
        faults.script(where, *answers)
        return web.Response(status=204)

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._state.faults.clear()
        return web.Response(status=204)

    async def _change_settings(self, request: web.Request) -> web.Response:
        self._state.behavior = self._state.behavior.changed(await _read(request))
        return web.json_response(asdict(self._state.behavior))


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ValueError as error:
        return web.json_response({"error": str(error)}, status=400)
    except LookupError as error:
        return web.json_response({"error": str(error)}, status=404)


async def _read(request: web.Request) -> dict[str, object]:
    body = await request.read()
    fields = json.loads(body) if body else {}
    if not isinstance(fields, dict):
        raise ValueError("The body is not a JSON object.")  # noqa: TRY004  # a 400 like the others
    return fields


def _object(fields: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = fields.get(name, {})
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an object of fields and values.")  # noqa: TRY004  # a 400 like the others
    return value


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is missing or not a string.")
    return value


def _number(fields: Mapping[str, object], name: str) -> int:
    value = fields.get(name)
    if isinstance(value, int | str) and not isinstance(value, bool):
        return int(value)
    raise ValueError(f"{name} is missing or not a whole number.")


def _build(build: BuildRun) -> dict[str, object]:
    return {"job_id": build.job_id, "build_no": build.build_no, **build.info()}


def _run(run: SandboxRun, at: int) -> dict[str, object]:
    return {
        "id": run.id,
        "build_id": run.build_id,
        "project": run.project.name,
        "status": run.status_at(at),
        "opened_at": run.opened_at,
        "finalized_at": run.finalize_calls[0] if run.finalize_calls else None,
        "finalize_calls": run.finalize_calls,
        "transitions": [{"status": state, "at": since} for state, since in run.transitions(at)],
        "uploads": [_upload(upload, at) for upload in run.uploads],
    }


def _upload(upload: Upload, at: int) -> dict[str, object]:
    return {
        "upload_id": upload.id,
        "state": upload.state_at(at),
        "sha256": upload.sha256,
        "size": upload.size,
        "failure_message": upload.failure_message,
        "registered_at": upload.registered_at,
        "put_at": upload.put_at,
        "puts": upload.puts,
        "metadata": dict(upload.registered.metadata),
        "tags": list(upload.registered.tags),
    }
