"""Read the fields of TestNod's submission API from multipart, urlencoded and JSON bodies; each means the same.

A field of a form such as `test_run[metadata][branch]` is the member `branch` of `metadata` of `test_run` in JSON.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from io import BytesIO
from typing import Any, Final
from urllib.parse import parse_qsl

from multipart import MultipartError, parse_form_data  # type: ignore[import-untyped]  # the package has no type marker

from bridge.domain.build import SubmittedRun
from bridge.domain.text_format import quote_for_display
from bridge.protocols.http_response import Json, read_json
from bridge.server.http.file_names import decode_text
from bridge.values import dataclass

MAX_BODY_BYTES: Final = 64 * 1024  # of fields; the file is not part of a registration
MAX_VALUE_CHARACTERS: Final = 1024
MAX_TAGS: Final = 100

_METADATA: Final = re.compile(r"test_run\[metadata\]\[(\w+)\]", re.ASCII)
_TAG: Final = re.compile(r"tags\[[0-9]*\]\[value\]", re.ASCII)
_UNEXPANDED: Final = re.compile(r"\$\{[^}]*\}|\$\w+|%\w+%", re.ASCII)
_NOT_STORABLE: Final = re.compile(r"[\x00\ud800-\udfff]")
"""PostgreSQL cannot store NUL or a lone surrogate."""


class SubmissionError(Exception):
    """A call of TestNod's API failed: `str(error)` is its `error_message`, `detail` is for people."""

    def __init__(self, message: str, detail: str = "", *, status: int = 422) -> None:
        super().__init__(message)
        self.detail = detail
        self.status = status


NOT_CREATED: Final = "There was a problem creating this test run."
METADATA_BUILD_ID_REQUIRED: Final = "metadata.build_id is required."
BUILD_ID_REQUIRED: Final = "build_id is required."


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """The fields of a call: those at the top, those of `test_run[metadata]`, and the tags.

    `fault` is a sentence on a field that has a form that TestNod does not read.
    """

    top: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    fault: str = ""


def read_fields(body: bytes, content_type: str) -> Fields:
    """Return the fields of a body; raise SubmissionError with status 400 if it is not what its type states."""
    kind = content_type.partition(";")[0].strip().casefold()
    if kind == "application/json" or kind.endswith("+json"):
        return _of_json(body)
    if kind == "multipart/form-data":
        return _of_form(_multipart(body, content_type))
    return _of_form(_urlencoded(body))


def submitted_run(fields: Fields) -> SubmittedRun:
    """Return what a registration states of its run; raise SubmissionError as TestNod's page has it."""
    build_id = fields.metadata.get("build_id", "").strip()
    if not build_id:
        raise SubmissionError(METADATA_BUILD_ID_REQUIRED)
    if fields.fault:
        raise SubmissionError(NOT_CREATED, fields.fault)
    if _UNEXPANDED.fullmatch(build_id):
        shown = quote_for_display(build_id)
        remedy = "Define it for the build, or correct the quoting in the shell."
        raise SubmissionError(NOT_CREATED, f"build_id is {shown}, a variable that was not expanded. {remedy}")
    run = SubmittedRun(
        build_id=build_id,
        branch=fields.metadata.get("branch", "").strip(),
        commit=fields.metadata.get("commit_sha", "").strip(),
        run_url=fields.metadata.get("run_url", "").strip(),
        tags=tuple(dict.fromkeys(tag for tag in fields.tags if tag.strip())),
    )
    for name, value in (
        *(("build_id", run.build_id), ("branch", run.branch), ("commit_sha", run.commit), ("run_url", run.run_url)),
        *(("tags", tag) for tag in run.tags),
    ):
        _require_storable(name, value)
    if len(run.tags) > MAX_TAGS:
        raise SubmissionError(NOT_CREATED, f"The run has more than {MAX_TAGS} tags. Send fewer.")
    return run


def _require_storable(name: str, value: str) -> None:
    if len(value) > MAX_VALUE_CHARACTERS:
        fault = f"{name} is longer than {MAX_VALUE_CHARACTERS} characters. Send a shorter value."
        raise SubmissionError(NOT_CREATED, fault)
    if _NOT_STORABLE.search(value):
        fault = f"{name} is {quote_for_display(value)}, with a NUL or a lone surrogate. Remove it."
        raise SubmissionError(NOT_CREATED, fault)


# -- forms ---------------------------------------------------------------------------------------------------------


def _urlencoded(body: bytes) -> Iterator[tuple[str, str]]:
    try:
        pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1", max_num_fields=1000)
    except ValueError as error:
        raise SubmissionError("The form has too many fields.", status=400) from error
    for name, value in pairs:
        yield _text(name), _text(value)


def _multipart(body: bytes, content_type: str) -> Iterator[tuple[str, str]]:
    environ = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}
    try:
        fields, _ = parse_form_data(
            environ, "latin-1", ignore_errors=False, memory_limit=MAX_BODY_BYTES, disk_limit=MAX_BODY_BYTES
        )
    except (MultipartError, ValueError, LookupError) as error:
        remedy = "Send it like curl -F name=value."
        raise SubmissionError("The body is not a complete multipart/form-data form.", remedy, status=400) from error
    for name, value in fields.iterallitems():
        yield _text(name), _text(value)


def _text(latin_1: str) -> str:
    """Return the text of bytes that were read as Latin-1; their encoding is not stated."""
    try:
        return decode_text(latin_1.encode("latin-1"))
    except UnicodeEncodeError:  # the form stated a charset
        return latin_1


def _of_form(pairs: Iterator[tuple[str, str]]) -> Fields:
    top: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tags: list[str] = []
    fault = ""
    for name, value in pairs:
        if found := _METADATA.fullmatch(name):
            metadata[found[1]] = value
        elif _TAG.fullmatch(name):
            tags.append(value)
        elif name in {"tags", "tags[]"} and value:
            fault = f"Tags are in the field {name}. Send each of them as tags[][value]."
        elif "[" not in name:
            top[name] = value
    return Fields(top=top, metadata=metadata, tags=tuple(tags), fault=fault)


# -- JSON ----------------------------------------------------------------------------------------------------------


def _of_json(body: bytes) -> Fields:
    sent = read_json(body) if body.strip() else {}
    if not isinstance(sent, dict):
        raise SubmissionError("The body is not a JSON object.", "Send one, or another Content-Type.", status=400)
    metadata = _object(_object(sent.get("test_run")).get("metadata"))
    tags = sent.get("tags") or []
    listed = isinstance(tags, list) and all(isinstance(tag, dict) for tag in tags)
    fault = "" if listed else 'The member "tags" is no list of objects with a "value". Send {"tags": [{"value": "…"}]}.'
    return Fields(
        top=_scalars(sent),
        metadata=_scalars(metadata),
        tags=tuple(_scalars(tag).get("value", "") for tag in tags if isinstance(tag, dict)) if listed else (),
        fault=fault,
    )


def _object(value: Json) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _scalars(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the members that are text, numbers or truth values, as a form would send them."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if isinstance(value, str | int | float)
    }
