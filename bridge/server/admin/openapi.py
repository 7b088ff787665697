"""The description of the API at /api/v1/openapi.json: OpenAPI 3.1, made from the objects that the handlers return.

https://spec.openapis.org/oas/v3.1.0
"""

import types
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Final, Union, get_args, get_origin, get_type_hints, is_typeddict

from aiohttp import web

from bridge import __version__
from bridge.domain.build import BuildState
from bridge.domain.why import WhyCase
from bridge.server.admin.actions import AuditView, RouteView
from bridge.server.admin.job_tests import JobTestsView
from bridge.server.admin.params import (
    DEFAULT_LIMIT,
    DEFAULT_TEST_BUILDS,
    MAX_LIMIT,
    MAX_TEST_BUILDS,
    MAX_TEXT_CHARACTERS,
)
from bridge.server.admin.rejections import RejectionEntry
from bridge.server.http.responses import json_response
from bridge.store.api_types import BuildView, RejectionView
from bridge.store.rejections import MAX_ID

OPENAPI_PATH: Final = "/api/v1/openapi.json"

Parameters = Mapping[str, dict[str, Any]]

_PLAIN: Final[Mapping[object, dict[str, Any]]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}
_TEXT: Final[dict[str, Any]] = {"type": "string", "maxLength": MAX_TEXT_CHARACTERS}
_JOB_ID: Final[dict[str, Any]] = {"type": "string", "pattern": "^([0-9A-Za-z]{32})?$"}
_NUMBER: Final[dict[str, Any]] = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_FLAG: Final[dict[str, Any]] = {"type": "string", "enum": ["true", "false", ""]}
_PAGE: Final[Parameters] = {
    "until": {
        "type": "string",
        "pattern": "^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8]))?$",
        "description": "a day (UTC), which is the newest shown",
    },
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "after": {"type": "string", "pattern": "^[0-9]{0,16}$", "description": "`next` of the page before"},
}
_ROW_ID: Final = {"type": "integer", "minimum": 1, "maximum": MAX_ID - 1}
_TIME_OR_NULL: Final = {"type": ["string", "null"]}


async def openapi(_request: web.Request) -> web.Response:
    """Return the description of the API."""
    return json_response(document())


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bridge: admin API",
            "version": __version__,
            "description": "Builds, reports, rejections and routes of one gateway. Fields are only ever added.",
        },
        "security": [{"token": []}, {"bearer": []}, {}],
        "paths": _paths(),
        "components": {
            "schemas": {
                "Error": _object(
                    {"status": {"const": "fail"}, "error_code": {"type": "string"}, "error_msg": _PLAIN[str]}
                ),
                **{
                    view.__name__: _schema_of(view)
                    for view in (BuildView, RejectionEntry, RouteView, AuditView, JobTestsView)
                },
            },
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _paths() -> dict[str, Any]:
    builds: Parameters = {
        "job_id": _TEXT,
        "build_no": {**_NUMBER, "description": "only together with job_id"},
        "state": {"type": "string", "enum": [*BuildState, ""]},
        "route": _TEXT,
        "branch": _TEXT,
        "commit": _TEXT,
        "caller": {**_TEXT, "description": "of one of its reports; a page may have no build and a next page"},
        "problems": _FLAG,
        "mirror_differs": {**_FLAG, "description": "only builds whose mirror does not agree"},
        **_PAGE,
    }
    build: Parameters = {"job_id": _JOB_ID, "build_no": _NUMBER}
    rejections: Parameters = {"job_id": _TEXT, "build_no": _NUMBER, "route": _TEXT, **_PAGE}
    tests: Parameters = {
        "job_id": _TEXT,
        "limit": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_TEST_BUILDS,
            "default": DEFAULT_TEST_BUILDS,
            "description": "newest builds",
        },
    }
    result = _object({"result": {"type": "string", "description": "what happened, as a sentence"}})
    why = _object(
        {
            "case": {"type": "string", "enum": list(WhyCase)},
            **dict.fromkeys(("sentence", "status", "cause", "action"), _PLAIN[str]),
            "result_mismatch": _TIME_OR_NULL,
            "job_id": _PLAIN[str],
            "build_no": {"type": ["integer", "string"]},
            "build": {"anyOf": [_ref(BuildView), _PLAIN[type(None)]]},
            "rejections": {"type": "array", "items": _schema_of(RejectionView)},
        }
    )
    return {
        "/api/v1/builds": {"get": _call("List builds, newest first", _page_of("builds", BuildView), builds)},
        "/api/v1/builds/{id}": {"get": _call("Show one build", _ref(BuildView), row="id")},
        "/api/v1/builds/{id}/retry": {"post": _call("Send the dead reports of a build again", result, row="id")},
        "/api/v1/builds/{id}/finalize": {"post": _call("End a build now", result, row="id")},
        "/api/v1/builds/{id}/forget": {"post": _call("Delete a build and all its files", result, row="id")},
        "/api/v1/callers/{name}/forget": {
            "post": _call("Replace the name of a caller, and its addresses, in all uploads", result, row="name")
        },
        "/api/v1/deliveries/{id}/retry": {"post": _call("Send a dead report again", result, row="id")},
        "/api/v1/why": {"get": _call("Explain why a build is, or is not, in TestNod", why, build, needed=build)},
        "/api/v1/rejections": {
            "get": _call("List rejections, newest first", _page_of("rejections", RejectionEntry), rejections)
        },
        "/api/v1/rejections/forget": {
            "post": _call(
                "Delete the rejections of a job, or of one of its builds, with their files",
                _object({**result["properties"], "rejections": _PLAIN[int]}),
                {
                    "job_id": {**_TEXT, "minLength": 1},
                    "build_no": {**_TEXT, "minLength": 1, "description": "only of this build; a number, or a build_id"},
                },
                needed=("job_id",),
            )
        },
        "/api/v1/routes": {
            "get": _call("List routes in file order", _object({"routes": {"type": "array", "items": _ref(RouteView)}}))
        },
        "/api/v1/tests": {
            "get": _call("Show flaky, slow and renamed tests of a job", _ref(JobTestsView), tests, needed=("job_id",))
        },
        "/api/v1/audit": {
            "get": _call("List what operators did, newest first", _page_of("audit", AuditView), dict(_PAGE))
        },
        **{
            f"/api/v1/routes/{{name}}/{action}": {"post": _call(summary, result, row="name")}
            for action, summary in (
                ("pause", "Accept reports of a route, and send nothing"),
                ("resume", "Resume a paused route"),
                ("retry", "Send all dead reports of a route again"),
            )
        },
    }


# -- parts -------------------------------------------------------------------------------------------------------


def _call(
    summary: str,
    schema: dict[str, Any],
    query: Parameters | None = None,
    *,
    row: str = "",
    needed: Collection[str] = (),
) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "query", "required": name in needed, "schema": type_}
        for name, type_ in (query or {}).items()
    ]
    return _operation(summary, schema, [*_row(row), *parameters])


def _row(name: str) -> list[dict[str, Any]]:
    if not name:
        return []
    return [{"name": name, "in": "path", "required": True, "schema": _ROW_ID if name == "id" else _TEXT}]


def _operation(summary: str, schema: dict[str, Any], parameters: list[dict[str, Any]]) -> dict[str, Any]:
    error = {"description": "why not, and what to do", "content": _json({"$ref": "#/components/schemas/Error"})}
    return {
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "done", "content": _json(schema)},
            **dict.fromkeys(("400", "401", "403", "404", "503"), error),
        },
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _page_of(name: str, view: type) -> dict[str, Any]:
    return _object({name: {"type": "array", "items": _ref(view)}, "next": _TIME_OR_NULL})


def _ref(view: type) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{view.__name__}"}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _schema_of(type_: Any) -> dict[str, Any]:
    """Return the JSON schema of a type that a handler returns."""
    if type_ in _PLAIN:
        return _PLAIN[type_]
    if is_typeddict(type_):
        return _object({name: _schema_of(hint) for name, hint in get_type_hints(type_).items()})
    if get_origin(type_) is list:
        return {"type": "array", "items": _schema_of(get_args(type_)[0])}
    if get_origin(type_) in (Union, types.UnionType):
        return {"anyOf": [_schema_of(member) for member in get_args(type_)]}
    raise TypeError(f"{type_} has no schema. Add it here.")
