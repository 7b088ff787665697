"""Which build an upload belongs to: from options, and from the variables that CI systems set.

CodeArts has no variable with the id of a build task, so JOB_ID must be set for the task. Other CI systems have no such
id: theirs is a digest of the pipeline's name, so every build of a pipeline has the same one.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import field
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Final

from bridge.values import dataclass

CHINA: Final = timezone(timedelta(hours=8))
"""The wall clock of CodeArts' TIMESTAMP."""

MAX_METADATA_CHARACTERS: Final = 1024
MAX_NODE_CHARACTERS: Final = 32

_METADATA: Final = ("branch", "commit", "project_id", "job_name")
_PARAMETERS: Final = ("job_id", "build_no", "node_id", *_METADATA)

_JOB_ID: Final = re.compile(r"[0-9a-zA-Z]{32}", re.ASCII)
_BUILD_NO: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_NODE_ID: Final = re.compile(r"[0-9A-Za-z-]{1,32}", re.ASCII)
_UNEXPANDED: Final = re.compile(r"\$\{[^}]*\}|^\$\w+$")
_TIMESTAMP: Final = re.compile(r"[0-9]{14}", re.ASCII)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,200})?", re.ASCII)
_TRACESTATE: Final = re.compile(r"[ -~]{1,512}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class CiBuild:
    """The build, and what is known of it; an empty text is not known."""

    job_id: str = ""
    build_no: str = ""
    node_id: str = ""
    branch: str = ""
    commit: str = ""
    project_id: str = ""
    job_name: str = ""
    started_at: float | None = None  # seconds since 1970
    ci: str = ""  # whose variables were read
    trace_headers: Mapping[str, str] = field(default_factory=dict)  # of the trace that the build belongs to

    def parameters(self) -> dict[str, str]:
        """Return the parameters of the upload's query."""
        return {name: value for name in _PARAMETERS if (value := getattr(self, name))}

    def require_valid(self) -> None:
        """Raise BadParameter, with the gateway's own words, if the gateway would reject a parameter."""
        if (
            _JOB_ID.fullmatch(self.job_id)
            and _BUILD_NO.fullmatch(self.build_no)
            and _NODE_ID.fullmatch(self.node_id or "default")
            and all(is_sendable(value) for value in (self.branch, self.commit, self.project_id, self.job_name))
        ):
            return
        from bridge.server.http.requests import read_metadata, read_parameters  # noqa: PLC0415 -- imports aiohttp

        parameters = self.parameters()
        read_parameters(parameters)
        read_metadata(parameters, {})


def is_sendable(value: str) -> bool:
    """Return whether a gateway accepts a text as metadata of an upload."""
    return len(value) <= MAX_METADATA_CHARACTERS and value.isprintable() and not _UNEXPANDED.search(value)


def read_build(environ: Mapping[str, str], given: Mapping[str, str | None]) -> CiBuild:
    """Return the build that the variables of CI name, with the values of `given` options in their place.

    Raise BadParameter if a given value, or the job or the number of the build, is missing or malformed.
    """
    known = next((read(environ) for is_set, read in _SYSTEMS if is_set(environ)), CiBuild())
    fields = {name: getattr(known, name) for name in _PARAMETERS}
    unusable = {name: "" for name in _METADATA if not is_sendable(fields[name])}
    build = CiBuild(
        **(fields | unusable | {name: value.strip() for name, value in given.items() if value is not None}),
        started_at=known.started_at,
        ci=known.ci,
        trace_headers=read_trace(environ),
    )
    build.require_valid()
    return build


def read_trace(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of the trace that the caller of this process has in TRACEPARENT and TRACESTATE.

    Source: https://opentelemetry.io/docs/specs/otel/context/env-carriers/. What is not valid is left out.
    """
    if not _TRACEPARENT.fullmatch(traceparent := environ.get("TRACEPARENT", "").strip()):
        return {}
    tracestate = environ.get("TRACESTATE", "").strip()
    return {"traceparent": traceparent} | ({"tracestate": tracestate} if _TRACESTATE.fullmatch(tracestate) else {})


def _codearts(environ: Mapping[str, str]) -> CiBuild:
    return CiBuild(
        job_id=environ.get("JOB_ID", ""),
        build_no=environ.get("INCREASENUM", ""),
        node_id=environ.get("NODE_ID", ""),
        branch=environ.get("codeBranch", ""),
        commit=environ.get("COMMIT_ID", ""),
        project_id=environ.get("PROJECT_ID", ""),
        job_name=environ.get("JOB_NAME", ""),
        started_at=_china_time(environ.get("TIMESTAMP", "")),
        ci="CodeArts Build",
    )


def _github(environ: Mapping[str, str]) -> CiBuild:
    return _derived(
        "GitHub Actions",
        f"{environ.get('GITHUB_REPOSITORY', '')}/{environ.get('GITHUB_WORKFLOW', '')}",
        build_no=environ.get("GITHUB_RUN_NUMBER", ""),
        node_id=environ.get("GITHUB_JOB", ""),
        branch=environ.get("GITHUB_HEAD_REF", "") or environ.get("GITHUB_REF_NAME", ""),
        commit=environ.get("GITHUB_SHA", ""),
    )


def _gitlab(environ: Mapping[str, str]) -> CiBuild:
    return _derived(
        "GitLab CI",
        environ.get("CI_PROJECT_PATH", ""),
        build_no=environ.get("CI_PIPELINE_IID", ""),
        node_id=environ.get("CI_JOB_NAME", ""),
        branch=environ.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "") or environ.get("CI_COMMIT_REF_NAME", ""),
        commit=environ.get("CI_COMMIT_SHA", ""),
        started=environ.get("CI_PIPELINE_CREATED_AT", "") or environ.get("CI_JOB_STARTED_AT", ""),
    )


def _jenkins(environ: Mapping[str, str]) -> CiBuild:
    branch = environ.get("CHANGE_BRANCH", "") or environ.get("BRANCH_NAME", "")
    return _derived(
        "Jenkins",
        environ.get("JOB_NAME", ""),
        build_no=environ.get("BUILD_NUMBER", ""),
        node_id=environ.get("STAGE_NAME", ""),
        branch=branch or environ.get("GIT_BRANCH", "").removeprefix("origin/"),
        commit=environ.get("GIT_COMMIT", ""),
    )


def _circleci(environ: Mapping[str, str]) -> CiBuild:
    names = (environ.get(f"CIRCLE_{name}", "") for name in ("PROJECT_USERNAME", "PROJECT_REPONAME", "JOB"))
    return _derived(
        "CircleCI",
        "/".join(names),
        build_no=environ.get("CIRCLE_BUILD_NUM", ""),
        node_id=environ.get("CIRCLE_NODE_INDEX", ""),
        branch=environ.get("CIRCLE_BRANCH", ""),
        commit=environ.get("CIRCLE_SHA1", ""),
    )


def _buildkite(environ: Mapping[str, str]) -> CiBuild:
    return _derived(
        "Buildkite",
        f"{environ.get('BUILDKITE_ORGANIZATION_SLUG', '')}/{environ.get('BUILDKITE_PIPELINE_SLUG', '')}",
        build_no=environ.get("BUILDKITE_BUILD_NUMBER", ""),
        node_id=environ.get("BUILDKITE_STEP_KEY", "") or environ.get("BUILDKITE_PARALLEL_JOB", ""),
        branch=environ.get("BUILDKITE_BRANCH", ""),
        commit=environ.get("BUILDKITE_COMMIT", ""),
    )


def _derived(
    ci: str, name: str, *, build_no: str, node_id: str, branch: str, commit: str, started: str = ""
) -> CiBuild:
    """Return a build of a pipeline that has a name and no id."""
    node = re.sub(r"[^0-9A-Za-z-]+", "-", node_id).strip("-")[:MAX_NODE_CHARACTERS]
    job_id = sha256(f"{ci}/{name}".encode("utf-8", "surrogateescape")).hexdigest()[:32] if name.strip("/") else ""
    return CiBuild(
        job_id=job_id,
        build_no=build_no,
        node_id=node,
        branch=branch,
        commit=commit,
        job_name=name,
        started_at=_instant(started),
        ci=ci,
    )


def _instant(text: str) -> float | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _china_time(text: str) -> float | None:
    if not _TIMESTAMP.fullmatch(text):
        return None
    with suppress(ValueError):
        return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=CHINA).timestamp()
    return None


def _set(name: str) -> Callable[[Mapping[str, str]], bool]:
    return lambda environ: bool(environ.get(name))


_SYSTEMS: Final[tuple[tuple[Callable[[Mapping[str, str]], bool], Callable[[Mapping[str, str]], CiBuild]], ...]] = (
    (_set("INCREASENUM"), _codearts),
    (_set("GITHUB_ACTIONS"), _github),
    (_set("GITLAB_CI"), _gitlab),
    (_set("CIRCLECI"), _circleci),
    (_set("BUILDKITE"), _buildkite),
    (_set("JENKINS_URL"), _jenkins),
    (lambda _: True, _codearts),  # the same names, set by hand
)
