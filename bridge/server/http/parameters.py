"""Read the parameters of an upload: those of CodeArts' reference page, and the metadata that the bridge adds.

Reference: POST /v1/report/junit/report/upload, table 1.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bridge.domain.build import UploadMetadata
from bridge.errors import BadParameter
from bridge.server.http.responses import quote_for_display

MAX_BUILD_NO = 2**31 - 1  # CodeArts counts in a 32-bit integer
MAX_METADATA_CHARACTERS = 1024  # git rejects longer branch names
DEFAULT_NODE = "default"

METADATA_NAMES = frozenset({"branch", "commit", "project_id", "job_name", "complete"})
"""Optional parameters of query or form, beside those that identify the build."""

_BUILD_NAMES = frozenset({"job_id", "build_no", "node_id"})

_NO_METADATA = (UploadMetadata(), False)
_JOB_ID = re.compile(r"[0-9a-zA-Z]{32}", re.ASCII)
_BUILD_NO = re.compile(r"[0-9]{1,10}", re.ASCII)
_BUILDNUMBER = re.compile(r"[0-9]{8}\.[0-9]+", re.ASCII)
_NODE_ID = re.compile(r"[0-9A-Za-z-]{1,32}", re.ASCII)
_UNEXPANDED = re.compile(r"\$\{[^}]*\}|^\$\w+$")
_NOT_STORABLE = re.compile(r"[\x00\ud800-\udfff]")
"""PostgreSQL cannot store NUL or a lone surrogate."""

_COMPLETE = {"": False, "false": False, "true": True}

_JOB_ID_REMEDY = "Take the 32 characters at the end of the build task's page address."
_BUILD_NO_REMEDY = "Use INCREASENUM, the counter of the build task's runs."


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameters:
    """The build, and the node of its build task, that an upload belongs to."""

    job_id: str
    build_no: int
    node_id: str


def read_query(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the known parameters of a query; raise BadParameter if one has two different values."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in _BUILD_NAMES or name in METADATA_NAMES:
            add_parameter(values, name, value)
    return values


def add_parameter(values: dict[str, str], name: str, value: str) -> None:
    """Add a value; raise BadParameter if `name` has another value already, because it is unclear which one is meant."""
    before = values.setdefault(name, value)
    if before.strip() != value.strip():
        raise BadParameter(
            f"{name} is given twice, as {quote_for_display(before)} and as {quote_for_display(value)}. Send it once."
        )


def read_parameters(query: Mapping[str, str]) -> Parameters:
    """Return the query's parameters; raise BadParameter that names the first one that is missing or malformed."""
    return Parameters(job_id=_job_id(query), build_no=_build_no(query), node_id=_node_id(query))


def read_metadata(query: Mapping[str, str], form: Mapping[str, str]) -> tuple[UploadMetadata, bool]:
    """Return the metadata of an upload, and whether the build is complete; the query overrides the form."""
    if METADATA_NAMES.isdisjoint(query) and METADATA_NAMES.isdisjoint(form):
        return _NO_METADATA
    metadata = UploadMetadata(
        branch=_metadata("branch", query, form),
        commit=_metadata("commit", query, form),
        project_id=_metadata("project_id", query, form),
        job_name=_metadata("job_name", query, form),
    )
    value = _metadata("complete", query, form) or ""
    complete = _COMPLETE.get(value.lower())
    if complete is None:
        raise BadParameter(
            f"complete is {quote_for_display(value)}, which is neither true nor false. Omit it, or send true."
        )
    return metadata, complete


def _job_id(query: Mapping[str, str]) -> str:
    value = _expanded("job_id", query)
    if not value:
        raise BadParameter(f"job_id is missing. {_JOB_ID_REMEDY}")
    if not _JOB_ID.fullmatch(value):
        raise BadParameter(f"job_id is {quote_for_display(value)}, not 32 digits and letters. {_JOB_ID_REMEDY}")
    return value


def _build_no(query: Mapping[str, str]) -> int:
    value = _expanded("build_no", query)
    if not value:
        raise BadParameter(f"build_no is missing. {_BUILD_NO_REMEDY}")
    shown = quote_for_display(value)
    if _BUILDNUMBER.fullmatch(value):
        raise BadParameter(f"build_no is {shown}, which is BUILDNUMBER. {_BUILD_NO_REMEDY}")
    if not _BUILD_NO.fullmatch(value) or not 1 <= int(value) <= MAX_BUILD_NO:
        raise BadParameter(f"build_no is {shown}, not a whole number from 1 to {MAX_BUILD_NO}. {_BUILD_NO_REMEDY}")
    return int(value)


def _node_id(query: Mapping[str, str]) -> str:
    value = _expanded("node_id", query) or DEFAULT_NODE
    if not _NODE_ID.fullmatch(value):
        raise BadParameter(
            f"node_id is {quote_for_display(value)}, not 1 to 32 digits, letters and hyphens. "
            "Take node_id from the task's full stages, or omit it."
        )
    return value


def _metadata(name: str, query: Mapping[str, str], form: Mapping[str, str]) -> str | None:
    value = _expanded(name, query) or _expanded(name, form)
    if len(value) > MAX_METADATA_CHARACTERS:
        raise BadParameter(f"{name} is longer than {MAX_METADATA_CHARACTERS} characters. Send only the name.")
    if _NOT_STORABLE.search(value):
        raise BadParameter(f"{name} is {quote_for_display(value)}, with a NUL or a lone surrogate. Remove it.")
    return value or None


def _expanded(name: str, values: Mapping[str, str]) -> str:
    value = values.get(name, "").strip()
    if "$" in value and _UNEXPANDED.search(value):
        raise BadParameter(
            f"{name} is {quote_for_display(value)}, a variable that was not expanded. "
            "Define it for the build task, or correct the quoting in the shell."
        )
    return value
