"""Where a call wants to go: its request target, read byte for byte, and the upstream that this path belongs to.

It knows no caller and no endpoint. A target that two servers could read in two ways is refused, so that no upstream
and no path rule is ever decided by another path than the one that CodeArts will see.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import unquote_plus

from bridge.errors import BadParameter
from bridge.server.http.responses import quote_for_display


class Upstream(StrEnum):
    """The services of CodeArts, each with an endpoint of its own."""

    BUILD = "build"
    CHECK = "check"
    IAM = "iam"


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestTarget:
    """A request target that has only one reading."""

    raw: str  # path and query as they came
    path: str
    query: str  # without the question mark
    segments: tuple[str, ...]
    upstream: Upstream  # whose path this is


_PLAIN: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,:=@]|%[0-9A-Fa-f]{2})+")
"""A segment as RFC 3986 writes it, but for `;`: what stands behind it is a parameter to some and a name to others."""

_TWO_READINGS: Final = re.compile(
    r"%(?:25)*(?:[01][0-9A-F]|7F|2[DEF]|3[0-9]|4[1-9A-F]|5[0-9ACF]|6[1-9A-F]|7[0-9AE]|25)", re.IGNORECASE
)
"""Quoted without need (`%2e`, `%6A`), a quoted slash, backslash, control character or per cent sign: whoever unquotes
twice, or normalises, sees another path."""

_QUERY: Final = re.compile(r"[!-~]*")
_JOB_ID: Final = re.compile(r"[0-9A-Za-z]{32}")

_IAM_OF_V3: Final = frozenset(
    {"agencies", "auth", "credentials", "domains", "endpoints", "groups", "policies", "projects", "regions", "roles"}
    | {"services", "users"}
)
_OF_CHECK: Final = frozenset({"rules", "ruleset", "rulesets", "task", "tasks"})
_JOB_SECOND: Final = frozenset({"job", "jobs", "log", "report", "template"})
_RECORD_OF_JOB: Final = frozenset({"build-info-record", "list", "record-info"})


def read_target(raw: str) -> RequestTarget:
    """Read a request target in origin form; raise BadParameter for every other form, and for what has two readings."""
    path, _, query = raw.partition("?")
    if not path.startswith("/"):
        raise _refused(raw, "names another host, or no path")
    segments = tuple(path[1:].split("/"))
    for segment in segments[:-1]:
        _require_plain(raw, segment)
    if segments[-1]:  # a slash at the end is one reading
        _require_plain(raw, segments[-1])
    if not _QUERY.fullmatch(query) or "#" in query:
        raise _refused(raw, "holds characters that no query may hold")
    return RequestTarget(raw=raw, path=path, query=query, segments=segments, upstream=_upstream_of(segments))


def _require_plain(raw: str, segment: str) -> None:
    if segment in {"", ".", ".."}:
        raise _refused(raw, "has an empty segment or one of dots")
    if not _PLAIN.fullmatch(segment) or _TWO_READINGS.search(segment):
        raise _refused(raw, "quotes what has to stand plainly, or holds what has to be quoted")


def _refused(raw: str, why: str) -> BadParameter:
    return BadParameter(
        f"The path {quote_for_display(raw)} {why}, so it could be read in two ways. Send it in its plain form."
    )


def _upstream_of(segments: tuple[str, ...]) -> Upstream:
    if _is_of_iam(segments):
        return Upstream.IAM
    return Upstream.CHECK if _is_of_check(segments) else Upstream.BUILD


def _is_of_iam(segments: tuple[str, ...]) -> bool:
    """Follow the API overview of IAM: versions 3, 3.0, 3-ext and 5, of which only 3 is shared with CodeArts."""
    first, second = (*segments, "")[:2]
    if first == "v3":
        return second in _IAM_OF_V3 or second.startswith("OS-")
    return first in {"v3.0", "v3-ext", "v5"}


def _is_of_check(segments: tuple[str, ...]) -> bool:
    """Follow the paths of `huaweicloudsdkcodeartscheck`, and "… Refreshing the Check Report" of its reference."""
    first, second, third = (*segments, "", "")[:3]
    if first == "v1":
        return second == "jobs"
    return first in {"v2", "v3"} and (third in _OF_CHECK or (first == "v2" and second in _OF_CHECK))


def jobs_named(target: RequestTarget) -> frozenset[str]:
    """Return the build tasks that a path of CodeArts Build names, in its query too.

    A record's id in their place names no job, and neither does the id of an execution record of Check.
    """
    if target.upstream is not Upstream.BUILD:
        return frozenset()
    pairs = (pair.partition("=") for pair in target.query.split("&"))
    asked = {unquote_plus(value) for name, _, value in pairs if unquote_plus(name) == "job_id"}
    return frozenset(asked | {segment for segment in _job_places(target.segments) if _JOB_ID.fullmatch(segment)})


def _job_places(segments: tuple[str, ...]) -> tuple[str, ...]:
    """Follow the paths of `huaweicloudsdkcodeartsbuild`."""
    second, third, fourth = (*segments, "", "", "", "")[1:4]
    if second == "record":
        last = segments[-1] or segments[-2]  # to some servers a slash at the end is none
        return (third,) if last in _RECORD_OF_JOB else ()
    if third == "notice":
        return (fourth,)
    return (third,) if second in _JOB_SECOND else ()
