"""The control API of the sandbox: start and end builds, look at runs and calls, order faults. JSON in, JSON out.

It must not know the bridge. Times are microseconds UTC; an error is `{"error": "…"}` with 400 or 404.

POST   /builds {job_id, build_no, record?: {field of record-info: value}}   201, the build, building
POST   /builds/{job_id}/{build_no}/end {build_result? = "SUCCESS"}          200, the build, ended
DELETE /builds/{job_id}/{build_no}      204, CodeArts does not know it any more
POST   /projects {token, name}          201 {id, name}
DELETE /projects/{token}                204, the token opens nothing any more, its runs stay
POST   /runs {token, build_id}          201, a run that no upload is attached to
GET    /runs[?build_id=]                200 {"runs": [run]}, oldest first
GET    /uploads/{upload_id}/bytes       200, the bytes as they were PUT
GET    /calls[?where=]                  200 {"calls": [{where, at, method, path, headers, status}]}; tokens: "present"
POST   /users {name, password, domain, security_admin?}     201, an IAM user, or another password for it
POST   /keys {access_key, secret_key}   201, an access key
DELETE /keys/{access_key}               204, IAM does not know it any more
POST   /tokens/end                      200 {"ended": number}, every token that IAM handed out has ended
POST   /checks {task_id}                201, a task of CodeArts Check, to be run there
POST   /checks/{task_id}/end {task_status? = 2, report?: {field: value}}    200, its latest run has ended
POST   /faults {where, answers: [answer]}       204, the next calls there get these, one each
POST   /faults {where, rate, answer, seed?}     204, each call there gets it with this probability
DELETE /faults                                  204, nothing of either is in force
POST   /settings {url_seconds?, …}              200, all settings: the fields of world.Behaviour

run: {id, build_id, project, status, opened_at, finalized_at, finalize_calls: [at], transitions: [{status, at}],
      uploads: [{upload_id, state, sha256, size, failure_message, registered_at, put_at, puts, metadata, tags}]}
where: a place of faults.PLACES (testnod.register, s3.put, codearts.build_info, iam.log_in, check.refresh, …),
       or a pattern: "testnod.*", "*"
answer: {"status": 503, "body"?, "headers"?}, {"hang": true}, {"cut": true}, {"garbled": true}, {"pass": true}, "pass";
        each with "after"?: true (the work is done, then its answer replaced) and "delay_seconds"?
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
    """Lets tests, demos and people look into a world and change it."""

    def __init__(self, world: SandboxState) -> None:
        self._world = world

    def application(self) -> web.Application:
        app = web.Application(middlewares=[_explained])
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
        asked = await _read(request)
        record = asked.get("record", {})
        if not isinstance(record, Mapping):
            raise ValueError("record is an object of record-info's fields.")  # noqa: TRY004  # a 400 like the others
        build = self._world.builds.start(
            _text(asked, "job_id"), _number(asked, "build_no"), at=self._world.micros(), record=record
        )
        return web.json_response(_build(build), status=201)

    async def _end_build(self, request: web.Request) -> web.Response:
        asked = await _read(request)
        build = self._world.builds.end(
            request.match_info["job_id"],
            _number(request.match_info, "build_no"),
            at=self._world.micros(),
            build_result=_text({"build_result": "SUCCESS", **asked}, "build_result"),
        )
        return web.json_response(_build(build))

    async def _forget_build(self, request: web.Request) -> web.Response:
        self._world.builds.forget(request.match_info["job_id"], _number(request.match_info, "build_no"))
        return web.Response(status=204)

    async def _open_project(self, request: web.Request) -> web.Response:
        asked = await _read(request)
        project = self._world.runs.open_project(_text(asked, "token"), _text(asked, "name"))
        return web.json_response({"id": project.id, "name": project.name}, status=201)

    async def _close_project(self, request: web.Request) -> web.Response:
        self._world.runs.close_project(request.match_info["token"])
        return web.Response(status=204)

    async def _open_run(self, request: web.Request) -> web.Response:
        asked = await _read(request)
        project = self._world.runs.project(_text(asked, "token"))
        if project is None:
            raise LookupError("No project has this token. Open one with POST /projects.")
        at, processing_us = self._world.micros(), self._world.processing_us()
        run = self._world.runs.open_run(project, _text(asked, "build_id"), at=at, processing_us=processing_us)
        return web.json_response(_run(run, at), status=201)

    async def _show_runs(self, request: web.Request) -> web.Response:
        at = self._world.micros()
        runs = self._world.runs.all(request.query.get("build_id"))
        return web.json_response({"runs": [_run(run, at) for run in runs]})

    async def _show_bytes(self, request: web.Request) -> web.Response:
        upload = self._world.runs.upload(_number(request.match_info, "upload_id"))
        stored = self._world.objects.find(upload.key) if upload is not None else None
        if stored is None or stored.body is None:
            raise LookupError(f"No bytes are kept in {BUCKET} for this upload. It was not PUT, or keep_bytes is false.")
        return web.Response(body=stored.body, content_type="application/xml")

    async def _add_user(self, request: web.Request) -> web.Response:
        asked = await _read(request)
        name, password, domain = (_text(asked, key) for key in ("name", "password", "domain"))
        admin = asked.get("security_admin") is True
        user = self._world.accounts.add_user(name, password, domain, security_admin=admin)
        return web.json_response({"id": user.id, "name": user.name, "domain": user.domain}, status=201)

    async def _add_key(self, request: web.Request) -> web.Response:
        asked = await _read(request)
        key = self._world.accounts.add_key(_text(asked, "access_key"), _text(asked, "secret_key"))
        return web.json_response({"access_key": key.access_key}, status=201)

    async def _forget_key(self, request: web.Request) -> web.Response:
        self._world.accounts.forget_key(request.match_info["access_key"])
        return web.Response(status=204)

    async def _end_tokens(self, _request: web.Request) -> web.Response:
        return web.json_response({"ended": self._world.accounts.end_tokens(at=self._world.micros())})

    async def _open_check(self, request: web.Request) -> web.Response:
        task_id = _text(await _read(request), "task_id")
        self._world.checks.open(task_id)
        return web.json_response({"task_id": task_id}, status=201)

    async def _end_check(self, request: web.Request) -> web.Response:
        asked = await _read(request)
        report = asked.get("report", {})
        if not isinstance(report, Mapping):
            raise ValueError("report is an object of a check report's fields.")  # noqa: TRY004  # as above
        status = CheckStatus(_number({"task_status": CheckStatus.SUCCEEDED, **asked}, "task_status"))
        run = self._world.checks.end(request.match_info["task_id"], status, report)
        return web.json_response({"exec_id": run.exec_id, "task_status": int(run.status)})

    async def _show_calls(self, request: web.Request) -> web.Response:
        calls = self._world.calls.at(request.query.get("where", "*"))
        return web.json_response({"calls": [asdict(call) for call in calls]})

    async def _order_faults(self, request: web.Request) -> web.Response:
        asked = await _read(request)
        where, faults = _text(asked, "where"), self._world.faults
        if "rate" in asked:
            rate, answer = asked["rate"], asked.get("answer")
            if not isinstance(rate, int | float) or not isinstance(answer, Mapping):
                raise ValueError("rate is a number and answer an object.")
            faults.sometimes(where, rate=rate, answer=answer, seed=_number({"seed": 0, **asked}, "seed"))
            return web.Response(status=204)
        answers = asked.get("answers")
        if not isinstance(answers, list):
            raise ValueError("answers is a list of answers; or give rate and answer.")  # noqa: TRY004  # as above
        faults.script(where, *answers)
        return web.Response(status=204)

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._world.faults.clear()
        return web.Response(status=204)

    async def _change_settings(self, request: web.Request) -> web.Response:
        self._world.behaviour = self._world.behaviour.changed(await _read(request))
        return web.json_response(asdict(self._world.behaviour))


@web.middleware
async def _explained(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ValueError as error:
        return web.json_response({"error": str(error)}, status=400)
    except LookupError as error:
        return web.json_response({"error": str(error)}, status=404)


async def _read(request: web.Request) -> dict[str, object]:
    body = await request.read()
    asked = json.loads(body) if body else {}
    if not isinstance(asked, dict):
        raise ValueError("The body is not a JSON object.")  # noqa: TRY004  # a 400 like the others
    return asked


def _text(asked: Mapping[str, object], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is missing or not a text.")
    return value


def _number(asked: Mapping[str, object], name: str) -> int:
    value = asked.get(name)
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
