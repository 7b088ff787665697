"""Parse the request target of a proxied call (RFC 9112, section 3.2), and find the service that its path belongs to.

A target that servers could read in two ways is rejected, so that the bridge authorizes the path that CodeArts sees.
"""

import re
import unicodedata
from enum import StrEnum
from typing import Final
from urllib.parse import unquote_plus

from bridge.domain.routing import canonical_job_id
from bridge.domain.text_format import quote_for_display
from bridge.errors import BadParameter, Forbidden
from bridge.values import dataclass


class Upstream(StrEnum):
    """The services of CodeArts, each with its own endpoint."""

    BUILD = "build"
    CHECK = "check"
    IAM = "iam"


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestTarget:
    """A request target with only one reading."""

    raw: str  # path and query as received
    path: str
    query: str  # without the question mark
    segments: tuple[str, ...]
    upstream: Upstream


_PLAIN: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,:=@]|%[0-9A-Fa-f]{2})+")
"""A segment by RFC 3986 without `;`, after which some servers read a parameter and others the name."""

_TWO_READINGS: Final = re.compile(
    r"%(?:25)*(?:[01][0-9A-F]|7F|2[DEF]|3[0-9]|4[1-9A-F]|5[0-9ACF]|6[1-9A-F]|7[0-9AE]|25)", re.IGNORECASE
)
"""Needless quoting (`%2e`, `%6A`), or a quoted slash, backslash, control character or percent sign: servers that
unquote twice, or normalize, see another path."""

_QUERY: Final = re.compile(r"[!-~]*")
_JOB_ID: Final = re.compile(r"[0-9A-Za-z]{32}")

_IAM_V3: Final = frozenset(
    {"agencies", "auth", "credentials", "domains", "endpoints", "groups", "policies", "projects", "regions", "roles"}
    | {"services", "users"}
)
_CHECK_SEGMENTS: Final = frozenset({"rules", "ruleset", "rulesets", "task", "tasks"})
_BEFORE_JOB_ID: Final = frozenset({"job", "jobs", "log", "report", "template"})
_OF_RECORD_ID: Final = frozenset({"build-script", "flow-graph", "full-stages", "info", "records", "statistics"})
_WORD: Final = re.compile(r"[a-z]+(?:-[a-z]+)*")
_JOB_ID_LENGTH: Final = 32
_MAX_WORD_LENGTH: Final = 24
_MAX_QUOTED: Final = 4  # times, one inside of the other; servers unquote once or twice
_NO_LETTERS: Final = re.compile(r"[^a-z]+")


def parse_target(raw: str) -> RequestTarget:
    """Parse a target in origin form; raise BadParameter for any other form, and if it has two readings."""
    path, _, query = raw.partition("?")
    if not path.startswith("/"):
        raise _ambiguous(raw, "names another host, or no path")
    segments = tuple(path[1:].split("/"))
    for segment in segments[:-1]:
        _require_plain(raw, segment)
    if segments[-1]:  # a slash at the end is not ambiguous
        _require_plain(raw, segments[-1])
    if not _QUERY.fullmatch(query) or "#" in query:
        raise _ambiguous(raw, "contains characters that are not allowed in a query")
    return RequestTarget(raw=raw, path=path, query=query, segments=segments, upstream=_upstream_of(segments))


def _require_plain(raw: str, segment: str) -> None:
    if segment in {"", ".", ".."}:
        raise _ambiguous(raw, "has an empty segment or one of dots")
    if not _PLAIN.fullmatch(segment) or _TWO_READINGS.search(segment):
        raise _ambiguous(raw, "quotes characters that must not be quoted, or the reverse")


def _ambiguous(raw: str, why: str) -> BadParameter:
    return BadParameter(
        f"The path {quote_for_display(raw)} {why}, so it could be read in two ways. Send it in its normal form."
    )


def _upstream_of(segments: tuple[str, ...]) -> Upstream:
    if _is_iam(segments):
        return Upstream.IAM
    return Upstream.CHECK if _is_check(segments) else Upstream.BUILD


def _is_iam(segments: tuple[str, ...]) -> bool:
    """Return whether this is an IAM path by its API overview: versions 3, 3.0, 3-ext, 5; CodeArts also has a v3."""
    first, second = (*segments, "")[:2]
    if first == "v3":
        return second in _IAM_V3 or second.startswith("OS-")
    return first in {"v3.0", "v3-ext", "v5"}


def _is_check(segments: tuple[str, ...]) -> bool:
    """Return whether this is a path of `huaweicloudsdkcodeartscheck`, or of "… Refreshing the Check Report"."""
    first, second, third = (*segments, "", "")[:3]
    if first == "v1":
        return second == "jobs"
    return first in {"v2", "v3"} and (third in _CHECK_SEGMENTS or (first == "v2" and second in _CHECK_SEGMENTS))


def job_ids_in(target: RequestTarget) -> frozenset[str]:
    """Return the ids of build tasks in a target of CodeArts Build, in its query too.

    Ids of records, and of execution records of CodeArts Check, are not ids of build tasks. Raise Forbidden if something
    else is where an id belongs, because a server may read an id in it, and BadParameter for a query with `;`.
    """
    if ";" in target.query:  # separates parameters for some servers
        raise _ambiguous(target.raw, "has a semicolon in its query")
    if target.upstream is not Upstream.BUILD:
        return frozenset()
    pairs = (pair.partition("=") for pair in target.query.split("&"))
    found = [unquote_plus(value) for name, _, value in pairs if "jobid" in _letters(name)]
    found += [segment for segment in _job_id_segments(target.segments) if not _is_word(segment)]
    for job_id in found:
        if not _JOB_ID.fullmatch(job_id):
            raise Forbidden(
                f"{quote_for_display(job_id)} is not the id of a job, which has {_JOB_ID_LENGTH} letters and digits. "
                "Send the id as CodeArts shows it, or use an IAM token of your own."
            )
    return frozenset(canonical_job_id(job_id) for job_id in found)


def _is_word(segment: str) -> bool:
    """Return whether a segment is a word of the API, such as `default-parameters`, that no server reads as an id."""
    return not segment or (_WORD.fullmatch(segment) is not None and len(segment) <= _MAX_WORD_LENGTH)


def _letters(name: str) -> str:
    """Return the letters of a name, for servers that ignore case, punctuation and repeated quoting."""
    for _ in range(_MAX_QUOTED):
        name = unquote_plus(name)
    return _NO_LETTERS.sub("", unicodedata.normalize("NFKC", name).casefold())


def _job_id_segments(segments: tuple[str, ...]) -> tuple[str, ...]:
    """Return the segments that may be a job id, by the paths of `huaweicloudsdkcodeartsbuild`."""
    _, second, third, fourth = (*segments, "", "", "", "")[:4]
    kind = _letters(second)
    if kind == "record":
        last = segments[-1] or segments[-2]  # some servers ignore a slash at the end
        return () if last in _OF_RECORD_ID else (third,)
    if _letters(third) == "notice":
        return (fourth,)
    return (third,) if kind in _BEFORE_JOB_ID else ()
