"""TestNod's Submission API over HTTP, with JSON bodies as TestNod's own uploader sends them."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import field
from functools import partial
from typing import Any

from aiohttp import web

from bridge.sandbox.presign import presign
from bridge.sandbox.runs import (
    BUILD_ID_REQUIRED,
    METADATA_BUILD_ID_REQUIRED,
    NOT_CREATED,
    PROJECT_NOT_FOUND,
    UPLOAD_NOT_FOUND,
    Project,
    RegisteredUpload,
    RegisterRejection,
    Runs,
    State,
    Upload,
)
from bridge.sandbox.state import BUCKET, SandboxState
from bridge.values import dataclass

MAX_BODY_BYTES = 1024 * 1024  # fields have a few hundred bytes; files are sent to storage
_ID = re.compile(r"[0-9]{1,18}")

_json = partial(web.json_response, dumps=partial(json.dumps, separators=(",", ":")))
"""JSON without blanks, as TestNod's: the worked example of its page reads the URL with grep."""

METADATA = ("build_id", "branch", "commit_sha", "run_url")


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmissionFields:
    """The fields of a call, regardless of the encoding: top-level ones, `test_run[metadata]`, `tags[]`."""

    top: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] | None = ()  # None: tags that are no list of objects with a `value`


class SubmissionApi:
    """TestNod for the runs of the sandbox."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state

    @property
    def _runs(self) -> Runs:
        return self._state.runs

    def application(self) -> web.Application:
        observe = self._state.listener().observe
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/integrations/test_runs/upload", observe("testnod.register", self._register))
        app.router.add_post("/integrations/test_runs/finalize", observe("testnod.finalize", self._finalize))
        app.router.add_post(
            "/integrations/test_runs/upload_failed", observe("testnod.upload_failed", self._upload_failed)
        )
        return app

    async def _register(self, request: web.Request) -> web.Response:
        project = self._project(request)
        if project is None:
            return _rejected(PROJECT_NOT_FOUND)
        fields = await _fields(request)
        build_id = fields.metadata.get("build_id", "").strip()
        if not build_id:
            return _rejected(METADATA_BUILD_ID_REQUIRED)
        if fields.tags is None:
            return _rejected(NOT_CREATED)
        registered = RegisteredUpload(build_id=build_id, metadata=fields.metadata, tags=fields.tags or ("Default",))
        with self._runs.opening(project, build_id) as conflict:
            await asyncio.sleep(self._state.behavior.register_latency_seconds)
            if conflict is not None:
                return _rejected(conflict)
            at, processing_us = self._state.micros(), self._state.processing_us()
            upload = self._runs.register(project, registered, at=at, processing_us=processing_us)
        return _json(self._registration(project, upload), status=201)

    def _registration(self, project: Project, upload: Upload) -> dict[str, object]:
        metadata = {"project-id": project.id, "test-run-id": str(upload.run_id), "upload-id": str(upload.id)}
        url = presign(
            self._state.keys,
            f"{self._state.s3_url}/{BUCKET}/{upload.key}",
            metadata=metadata,
            at=upload.registered_at,
            expires_seconds=self._state.behavior.url_seconds,
        )
        return {
            "id": upload.external_id,
            "project_id": project.id,
            "test_run_id": upload.run_id,
            "upload_id": upload.id,
            "test_run_url": f"{self._state.testnod_url}/projects/{project.id}/test_runs/{upload.run_id}",
            "presigned_url": url,
        }

    async def _finalize(self, request: web.Request) -> web.Response:
        project = self._project(request)
        if project is None:
            return _rejected(PROJECT_NOT_FOUND)
        build_id = (await _fields(request)).top.get("build_id", "").strip()
        if not build_id:
            return _rejected(BUILD_ID_REQUIRED)
        return _status(self._runs.finalize(project, build_id, at=self._state.micros()))

    async def _upload_failed(self, request: web.Request) -> web.Response:
        project = self._project(request)
        if project is None:
            return _rejected(PROJECT_NOT_FOUND)
        top = (await _fields(request)).top
        run_id, upload_id = top.get("test_run_id", ""), top.get("upload_id", "")
        if not _ID.fullmatch(run_id) or not _ID.fullmatch(upload_id):
            return _rejected(UPLOAD_NOT_FOUND)
        outcome = self._runs.upload_failed(
            project,
            int(run_id),
            int(upload_id),
            message=top.get("failure_message", ""),
            at=self._state.micros(),
        )
        return _status(outcome)

    def _project(self, request: web.Request) -> Project | None:
        return self._runs.project(request.headers.get("Project-Token", ""))


def _status(outcome: State | RegisterRejection) -> web.Response:
    return _rejected(outcome) if isinstance(outcome, RegisterRejection) else _json({"status": outcome})


def _rejected(rejection: RegisterRejection) -> web.Response:
    return _json({"error_message": rejection.message}, status=rejection.status)


async def _fields(request: web.Request) -> SubmissionFields:
    if request.content_type == "application/json":
        return _json_fields(await request.read())
    form = await request.post()
    texts = [(name, value) for name, value in form.items() if isinstance(value, str)]
    tags = tuple(value for name, value in texts if name == "tags[][value]" and value)
    flat = any(name in {"tags", "tags[]"} and value for name, value in texts)
    nested = {f"test_run[metadata][{name}]": name for name in METADATA}
    return SubmissionFields(
        top={name: value for name, value in texts if "[" not in name},
        metadata={nested[name]: value for name, value in texts if name in nested},
        tags=None if flat else tags,
    )


def _json_fields(body: bytes) -> SubmissionFields:
    try:
        sent: Any = json.loads(body)
    except ValueError:
        raise web.HTTPBadRequest(text="The body is not JSON.") from None
    top = _mapping(sent)
    metadata = _mapping(_mapping(top.get("test_run")).get("metadata"))
    tags = top.get("tags") or []
    values = [_mapping(tag).get("value") for tag in tags] if isinstance(tags, list) else []
    listed = isinstance(tags, list) and all(isinstance(tag, Mapping) for tag in tags)
    return SubmissionFields(
        top={name: str(value) for name, value in top.items() if isinstance(value, str | int)},
        metadata={name: str(metadata[name]) for name in METADATA if metadata.get(name) is not None},
        tags=tuple(str(value) for value in values if value) if listed else None,
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
