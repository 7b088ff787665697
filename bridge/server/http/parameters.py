"""What an upload says of its build: the reference page's parameters, checked, and what the bridge reads beside them.

It knows neither HTTP nor the form. Reference: POST /v1/report/junit/report/upload, table 1.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bridge.domain.build import UploadMetadata
from bridge.errors import BadParameter
from bridge.server.http.responses import quote_for_display

MAX_BUILD_NO = 2**31 - 1  # CodeArts counts in a 32-bit integer
MAX_SAID_CHARACTERS = 1024  # git refuses longer branch names; the ledger shows them
DEFAULT_NODE = "default"

SAID_NAMES = frozenset({"branch", "commit", "project_id", "job_name", "complete"})
"""What query and form may say beside the build's own identity."""

_BUILD_NAMES = frozenset({"job_id", "build_no", "node_id"})

_NOTHING_SAID = (UploadMetadata(), False)
_JOB_ID = re.compile(r"[0-9a-zA-Z]{32}", re.ASCII)
_BUILD_NO = re.compile(r"[0-9]{1,10}", re.ASCII)
_BUILDNUMBER = re.compile(r"[0-9]{8}\.[0-9]+", re.ASCII)
_NODE_ID = re.compile(r"[0-9A-Za-z-]{1,32}", re.ASCII)
_UNEXPANDED = re.compile(r"\$\{[^}]*\}|^\$\w+$")
_UNKEPT = re.compile(r"[\x00\ud800-\udfff]")
"""PostgreSQL keeps neither NUL nor half a character: a build whose record disagrees with one was never described."""

_COMPLETE = {"": False, "false": False, "true": True}


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameters:
    """Which build and which of its actions an upload is for."""

    job_id: str
    build_no: int
    node_id: str


def read_query(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what is read here of a query; raise BadParameter where it says two things under one name."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in _BUILD_NAMES or name in SAID_NAMES:
            note(values, name, value)
    return values


def note(values: dict[str, str], name: str, value: str) -> None:
    """Add what is said under `name`; raise BadParameter where something else was: nobody could say which is meant."""
    before = values.setdefault(name, value)
    if before.strip() != value.strip():
        raise BadParameter(
            f"{name} is given twice, as {quote_for_display(before)} and as {quote_for_display(value)}. Send it once."
        )


def read_parameters(query: Mapping[str, str]) -> Parameters:
    """Return the query's parameters; raise BadParameter that names the first which is missing or malformed."""
    return Parameters(job_id=_job_id(query), build_no=_build_no(query), node_id=_node_id(query))


def read_said(query: Mapping[str, str], form: Mapping[str, str]) -> tuple[UploadMetadata, bool]:
    """Return what query and form (the query first) say beside, and whether the build is complete."""
    if SAID_NAMES.isdisjoint(query) and SAID_NAMES.isdisjoint(form):
        return _NOTHING_SAID
    said = UploadMetadata(
        branch=_said("branch", query, form),
        commit=_said("commit", query, form),
        project_id=_said("project_id", query, form),
        job_name=_said("job_name", query, form),
    )
    word = _said("complete", query, form) or ""
    complete = _COMPLETE.get(word.lower())
    if complete is None:
        raise BadParameter(
            f"complete is {quote_for_display(word)}, which is neither true nor false. Leave it out, or send true."
        )
    return said, complete


def _job_id(query: Mapping[str, str]) -> str:
    value = _expanded("job_id", query)
    if not value:
        raise BadParameter("job_id is missing. Take the 32 characters at the end of the build task's page address.")
    if not _JOB_ID.fullmatch(value):
        raise BadParameter(
            f"job_id is {quote_for_display(value)}, not 32 digits and letters. "
            "Take the 32 characters at the end of the build task's page address."
        )
    return value


def _build_no(query: Mapping[str, str]) -> int:
    value = _expanded("build_no", query)
    if not value:
        raise BadParameter("build_no is missing. Use INCREASENUM, the counter of the build task's runs.")
    if _BUILDNUMBER.fullmatch(value):
        raise BadParameter(
            f"build_no is {quote_for_display(value)}, which is BUILDNUMBER. Use INCREASENUM, the counter of the build task's runs."
        )
    if not _BUILD_NO.fullmatch(value) or not 1 <= int(value) <= MAX_BUILD_NO:
        raise BadParameter(
            f"build_no is {quote_for_display(value)}, not a whole number from 1 to {MAX_BUILD_NO}. "
            "Use INCREASENUM, the counter of the build task's runs."
        )
    return int(value)


def _node_id(query: Mapping[str, str]) -> str:
    value = _expanded("node_id", query) or DEFAULT_NODE
    if not _NODE_ID.fullmatch(value):
        raise BadParameter(
            f"node_id is {quote_for_display(value)}, not 1 to 32 digits, letters and hyphens. "
            "Take node_id from the task's full stages, or leave it out."
        )
    return value


def _said(name: str, query: Mapping[str, str], form: Mapping[str, str]) -> str | None:
    value = _expanded(name, query) or _expanded(name, form)
    if len(value) > MAX_SAID_CHARACTERS:
        raise BadParameter(f"{name} is longer than {MAX_SAID_CHARACTERS} characters. Send the name alone.")
    if _UNKEPT.search(value):
        raise BadParameter(
            f"{name} is {quote_for_display(value)}, which holds what no text may hold. Send the name alone."
        )
    return value or None


def _expanded(name: str, values: Mapping[str, str]) -> str:
    value = values.get(name, "").strip()
    if "$" in value and _UNEXPANDED.search(value):
        raise BadParameter(
            f"{name} is {quote_for_display(value)}, a variable that nothing has expanded. "
            "Define it for the build task, or mend how the shell quotes it."
        )
    return value
