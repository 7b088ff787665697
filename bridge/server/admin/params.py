"""Read and check the query parameters and ids of the admin API."""

import re
from collections.abc import Collection
from datetime import UTC, datetime

from aiohttp import web
from multidict import MultiMapping

from bridge.domain.build import BuildNo, BuildState
from bridge.domain.instants import DAY, SECOND
from bridge.domain.routing import canonical_job_id
from bridge.domain.text_format import quote_for_display
from bridge.errors import BadParameter, NotFound
from bridge.server.http.requests import BuildName, is_job_id, read_build_name
from bridge.store.operator_actions import AuditQuery
from bridge.store.queries import BuildsQuery
from bridge.store.rejections import MAX_ID, RejectionsQuery

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
DEFAULT_TEST_BUILDS = 20  # TestNod compares as many runs
MAX_TEST_BUILDS = 50
MAX_TEXT_CHARACTERS = 128  # of a job or route; the ledger has no longer ones

PAGE_NAMES = ("until", "limit", "after")
BUILDS_NAMES = (
    *("job_id", "build_no", "state", "route", "branch", "commit", "caller", "problems", "mirror_differs"),
    *PAGE_NAMES,
)
REJECTIONS_NAMES = ("job_id", "build_no", "route", *PAGE_NAMES)
TESTS_NAMES = ("job_id", "limit")
WHY_NAMES = ("job_id", "build_no")

_NUMBER = re.compile(r"[0-9]{1,16}", re.ASCII)


def read_builds_query(query: MultiMapping[str]) -> BuildsQuery:
    """Return the parameters of GET /api/v1/builds; raise BadParameter that names the first fault."""
    _require_known(query, BUILDS_NAMES)
    job_id = _filtered_job_id(query)
    return BuildsQuery(
        job_id=job_id,
        build_no=_build_no(query),
        state=_state(query),
        route=_text(query, "route"),
        branch=_text(query, "branch"),
        commit=_text(query, "commit"),
        caller=_text(query, "caller"),
        problems=_flag(query, "problems"),
        mirror_differs=_flag(query, "mirror_differs"),
        until=_until(query),
        limit=_limit(query),
        before_id=_before_id(query),
    )


def read_rejections_query(query: MultiMapping[str]) -> RejectionsQuery:
    """Return the parameters of GET /api/v1/rejections; raise BadParameter that names the first fault."""
    _require_known(query, REJECTIONS_NAMES)
    job_id = _filtered_job_id(query)
    return RejectionsQuery(
        job_id=job_id,
        build_no=_build_no(query),
        route=_text(query, "route"),
        until=_until(query),
        limit=_limit(query),
        before_id=_before_id(query),
    )


def read_why_query(query: MultiMapping[str]) -> BuildName:
    """Return the build that GET /api/v1/why is about; raise BadParameter if it is missing or malformed."""
    _require_known(query, WHY_NAMES)
    return read_build_name(query)


def read_forgotten(query: MultiMapping[str]) -> tuple[str, BuildNo | None]:
    """Return job and number, None for all builds, of POST /api/v1/rejections/forget; raise BadParameter if wrong."""
    _require_known(query, WHY_NAMES)
    if query.get("build_no") == "":  # a variable that is not set must not delete those of all builds
        raise BadParameter("build_no is empty. Send the number of a build, or omit it for all builds of the job.")
    return _require_job_id(query), _build_no(query)


def read_page(query: MultiMapping[str]) -> AuditQuery:
    """Return the parameters of GET /api/v1/audit; raise BadParameter that names the first fault."""
    _require_known(query, PAGE_NAMES)
    return AuditQuery(before_id=_before_id(query), until=_until(query), limit=_limit(query))


def read_tests_query(query: MultiMapping[str]) -> tuple[str, int]:
    """Return job and number of builds of GET /api/v1/tests; raise BadParameter that names the first fault."""
    _require_known(query, TESTS_NAMES)
    return _require_job_id(query), _limit(query, DEFAULT_TEST_BUILDS, MAX_TEST_BUILDS)


def read_id(text: str) -> int | None:
    """Return the id in a path; None if no row can have it."""
    return int(text) if _NUMBER.fullmatch(text) and int(text) < MAX_ID else None


def require_id(request: web.Request, what: str, list_path: str) -> int:
    """Return the id in a request's path; raise NotFound, which names `what` and where ids are listed, if it is none."""
    text = request.match_info["id"]
    found = read_id(text)
    if found is None:
        raise NotFound(f"{quote_for_display(text)} is not the id of a {what}. Look for it in {list_path}.")
    return found


def _require_known(query: MultiMapping[str], names: Collection[str]) -> None:
    for name in query:
        if name not in names:
            raise BadParameter(f"{quote_for_display(name)} is not a parameter of this path. Use {', '.join(names)}.")
        if len(query.getall(name)) > 1:
            raise BadParameter(f"{name} is given more than once. Send it once.")


def _build_no(query: MultiMapping[str]) -> BuildNo | None:
    if not query.get("build_no"):
        return None
    name = read_build_name({"job_id": query.get("job_id", ""), "build_no": query["build_no"]})
    name.require(found=not is_job_id(name.job_id))
    return name.build_no


def _require_job_id(query: MultiMapping[str]) -> str:
    job_id = _filtered_job_id(query)
    if job_id is None:
        raise BadParameter("job_id is missing. Send the id of a job, as in /api/v1/builds.")
    return job_id


def _filtered_job_id(query: MultiMapping[str]) -> str | None:
    job_id = _text(query, "job_id")
    return None if job_id is None else canonical_job_id(job_id)


def _text(query: MultiMapping[str], name: str) -> str | None:
    value = query.get(name, "")
    if len(value) > MAX_TEXT_CHARACTERS or not value.isprintable():
        raise BadParameter(
            f"{name} is {quote_for_display(value)}, which is too long or not printable. "
            f"Send at most {MAX_TEXT_CHARACTERS} printable characters."
        )
    return value or None


def _flag(query: MultiMapping[str], name: str) -> bool:
    value = query.get(name, "")
    if value not in ("", "true", "false"):
        raise BadParameter(f"{name} is {quote_for_display(value)}, neither true nor false. Send one of them.")
    return value == "true"


def _state(query: MultiMapping[str]) -> BuildState | None:
    value = query.get("state", "")
    if value and value not in list(BuildState):
        raise BadParameter(
            f"state is {quote_for_display(value)}, which is not a state. Send one of {', '.join(BuildState)}."
        )
    return BuildState(value) if value else None


def _until(query: MultiMapping[str]) -> int | None:
    """Return the end of the day (UTC) that a page begins with, in microseconds; None if none is given."""
    value = query.get("until", "")
    if not value:
        return None
    try:
        day = datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise BadParameter(f"until is {quote_for_display(value)}, not a day. Send one like 2026-01-31.") from error
    return int(day.timestamp()) * SECOND + DAY


def _limit(query: MultiMapping[str], default: int = DEFAULT_LIMIT, maximum: int = MAX_LIMIT) -> int:
    value = query.get("limit", "") or str(default)
    if not _NUMBER.fullmatch(value) or not 1 <= int(value) <= maximum:
        raise BadParameter(
            f"limit is {quote_for_display(value)}, not a whole number from 1 to {maximum}. Correct or omit it."
        )
    return int(value)


def _before_id(query: MultiMapping[str]) -> int:
    value = query.get("after", "") or str(MAX_ID)
    if not _NUMBER.fullmatch(value) or int(value) > MAX_ID:
        raise BadParameter(
            f'after is {quote_for_display(value)}, which is not from a page. Send "next" of the previous page.'
        )
    return int(value)
