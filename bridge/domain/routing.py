"""Match a build to its route, and fill in the run parameters that all its runs are opened with.

A value that is not known yet is None; routes that depend on it are neither matched nor excluded.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, StrEnum
from fnmatch import fnmatchcase
from urllib.parse import quote

from bridge.domain.build import Build, BuildNo, BuildRecord, DeliveryTarget, RunParameters, UploadMetadata
from bridge.domain.code_check.models import CodeCheckRules
from bridge.domain.instants import Instant
from bridge.domain.junit.rewrite_rules import RewriteRule
from bridge.values import dataclass

ANY = ("*",)
NOTHING_STATED = UploadMetadata()

TEMPLATE_FIELDS = (
    "job_id",
    "build_no",
    "branch",
    "commit",
    "tag",
    "region",
    "devcloud_project_id",
    "repo_name",
    "daily_build_num",
    "trigger_type",
    "job_name",
    "repo_url",
)
"""The fields of templates in `build_id` and `run_url`."""

REPO_URL_FIELD = "{repo_url}"
URL_CHARACTERS = ":/?#[]@!$&'()*+,;=%"  # reserved ones of RFC 3986, which keep their meaning in a whole address

ABBREVIATED_COMMIT = 7  # the shortest abbreviation that git uses: fewer digits may be equal by chance

_FIELD = re.compile(r"\{([^{}]*)\}")
_HEX = re.compile(r"[0-9a-f]+")
_HEX_JOB_ID = re.compile(r"[0-9a-fA-F]{32}")


def canonical_job_id(job_id: str) -> str:
    """Return a job id as CodeArts writes it: one of 32 hexadecimal digits in lower case."""
    return job_id.lower() if _HEX_JOB_ID.fullmatch(job_id) else job_id


class InvalidFilePolicy(StrEnum):
    """How an upload is answered if one of its files is not a JUnit report."""

    FAIL = "fail"  # 400 that names it; valid files beside it are accepted
    WARN = "warn"  # 200 that names it


class ResultSuite(StrEnum):
    """Whether the report `codearts-build`, with CodeArts' result of the build, is added to its run."""

    OFF = "off"
    MISMATCH = "mismatch"  # if result and reports differ
    ALWAYS = "always"


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """One `[[routes]]` table. Each of the fields `job_id` to `branch` has globs, of which one has to match."""

    name: str
    tags: tuple[str, ...] = ()
    paused: bool = False  # reports are accepted, and nothing is sent
    job_id: tuple[str, ...] = ANY
    job_name: tuple[str, ...] = ANY
    project_id: tuple[str, ...] = ANY
    repo: tuple[str, ...] = ANY
    branch: tuple[str, ...] = ANY
    build_id: str = "codearts-{job_id}-{build_no}"
    run_url: str = ""
    on_invalid: InvalidFilePolicy = InvalidFilePolicy.FAIL
    mirror: bool = False  # reports are delivered to CodeArts too
    repair: bool = False  # invalid reports are repaired if that takes no guess
    strip: tuple[str, ...] = ()  # names of elements that are removed
    rewrite: tuple[RewriteRule, ...] = ()  # of names of test cases
    result_suite: ResultSuite = ResultSuite.OFF
    code_check: CodeCheckRules | None = None  # None: no report of CodeArts Check is fetched


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutingKeys:
    """What is known of a build when its route is matched; None: not known (yet)."""

    job_id: str | None
    project_id: str | None = None
    repo: str | None = None
    branch: str | None = None
    job_name: str | None = None
    route: str | None = None  # of a submitted build: the token of its first registration decided


class _Match(Enum):
    NO = 0
    MAYBE = 1
    YES = 2


def candidate_routes(routes: Sequence[Route], keys: RoutingKeys) -> list[Route]:
    """Return the routes that the build may belong to, in file order, up to the first that it certainly matches."""
    found = []
    for route in routes:
        match = _match(route, keys)
        if match is not _Match.NO:
            found.append(route)
        if match is _Match.YES:
            break
    return found


def match_route(routes: Sequence[Route], keys: RoutingKeys) -> Route | None:
    """Return the first route that the build matches, None if none does; an unknown value matches only `*`."""
    return next((route for route in routes if _match(route, keys) is _Match.YES), None)


def keys_of_upload(job_id: str, build_no: BuildNo) -> RoutingKeys:
    """Return what is known of the build of an upload when it arrives."""
    return RoutingKeys(job_id=job_id, route=job_id if isinstance(build_no, str) else None)


def routing_keys_of(build: Build, stated: UploadMetadata = NOTHING_STATED) -> RoutingKeys:
    """Return what CodeArts' record has of a build, and what uploads `stated` in place of what it lacks."""
    if build.submitted is not None:
        return keys_of_upload(build.job_id, build.build_no)
    record = build.record or BuildRecord()
    return RoutingKeys(
        job_id=build.job_id,
        project_id=record.devcloud_project_id or stated.project_id,
        repo=record.repo_name,
        branch=record.branch or stated.branch,
        job_name=record.job_name or stated.job_name,
    )


def stated_metadata(build: Build, route: str) -> UploadMetadata:
    """Return what callers that may use `route` stated of a build; the first of them counts."""
    stated = build.upload_metadata
    for bound in build.bound_metadata:
        if route in bound.routes:
            stated = stated.merged(bound.stated)
    return stated


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteChoice:
    """The route that a build without run parameters would get now."""

    route: Route | None
    is_certain: bool = False  # the job and CodeArts' record decide; otherwise the route rests on what uploads stated
    is_contested: bool = False  # not certain, and statements contradict, or not all callers may use the route
    is_exclusive: bool = False  # not certain, and a caller may use only some of the routes in question

    @property
    def name(self) -> str | None:
        """Return the name of the route."""
        return self.route.name if self.route else None


def choose_route(routes: Sequence[Route], build: Build) -> RouteChoice:
    """Return the route that `build` would get now.

    What a caller stated counts only for routes that it may use, and only if it, or another caller with pending reports,
    may use the route. So no caller can send the reports of another one to a route of its own.
    """
    facts = routing_keys_of(build)
    possible = candidate_routes(routes, facts)
    if not possible:
        return RouteChoice(route=None, is_certain=True)
    if len(possible) == 1:
        keys = routing_keys_of(build, stated_metadata(build, possible[0].name))
        return RouteChoice(route=match_route(possible, keys), is_certain=True)
    if match_route(routes, facts) is possible[0]:
        return RouteChoice(route=possible[0], is_certain=True)
    senders = {build.reports[delivery.report_id].caller_routes for delivery in build.pending(DeliveryTarget.TESTNOD)}
    found = _stated_routes(routes, build, senders)
    route = found[0] if found else match_route(routes, routing_keys_of(build, _all_stated(build)))
    usable = route is None or all(_may_use(sender, route) for sender in senders)
    callers = {*senders, *(bound.routes for bound in build.bound_metadata)}
    return RouteChoice(
        route=route,
        is_contested=len({each.name for each in found}) > 1 or not usable,
        is_exclusive=any(not _may_use(caller, each) for caller in callers for each in possible),
    )


def _stated_routes(routes: Sequence[Route], build: Build, senders: Collection[tuple[str, ...] | None]) -> list[Route]:
    """Return the routes that the statements of uploads lead to, those first that no missing value could change."""
    statements: list[tuple[tuple[str, ...] | None, UploadMetadata]] = []
    if build.upload_metadata != NOTHING_STATED:
        statements.append((None, build.upload_metadata))
    statements += [(bound.routes, bound.stated.merged(build.upload_metadata)) for bound in build.bound_metadata]
    definite: list[Route] = []
    vague: list[Route] = []
    for caller, stated in statements:
        keys = routing_keys_of(build, stated)
        route = match_route(routes, keys)
        if route is None or not _may_use(caller, route):
            continue
        if senders and not any(_may_use(sender, route) for sender in senders):
            continue
        (definite if candidate_routes(routes, keys)[0] is route else vague).append(route)
    return definite or vague


def _all_stated(build: Build) -> UploadMetadata:
    stated = build.upload_metadata
    for bound in build.bound_metadata:
        stated = stated.merged(bound.stated)
    return stated


def _may_use(caller_routes: tuple[str, ...] | None, route: Route) -> bool:
    return caller_routes is None or route.name in caller_routes


def possible_routes(routes: Sequence[Route], build: Build) -> list[str]:
    """Return the names of the routes that the build has or may get, whatever its uploads state."""
    if build.run_parameters is not None:
        return [build.run_parameters.route]
    return [route.name for route in candidate_routes(routes, routing_keys_of(build))]


def _match(route: Route, keys: RoutingKeys) -> _Match:
    if keys.route is not None:
        return _Match.YES if route.name == keys.route else _Match.NO
    pairs = (
        (route.job_id, keys.job_id),
        (route.project_id, keys.project_id),
        (route.repo, keys.repo),
        (route.branch, keys.branch),
        (route.job_name, keys.job_name),
    )
    weakest = _Match.YES
    for globs, value in pairs:
        if "*" in globs:
            continue
        if value is None:
            weakest = _Match.MAYBE
        elif not any(fnmatchcase(value, glob) for glob in globs):
            return _Match.NO
    return weakest


def unknown_fields(template: str) -> list[str]:
    """Return the names in braces that are not template fields, in order."""
    return [name for name in _FIELD.findall(template) if name not in TEMPLATE_FIELDS]


def render(template: str, values: Mapping[str, str | int | None]) -> str:
    """Replace each `{name}` in one pass, so that no value can name a field; None and missing names become empty."""

    def fill(match: re.Match[str]) -> str:
        value = values.get(match[1])
        return "" if value is None else str(value)

    return _FIELD.sub(fill, template)


def choose_run_parameters(route: Route, build: Build, now: Instant) -> RunParameters:
    """Return the parameters of every run of `build` under `route`, chosen at `now`."""
    if (submitted := build.submitted) is not None:
        return RunParameters(
            route=route.name,
            build_id=submitted.build_id,
            tags=submitted.tags or route.tags,
            run_url=submitted.run_url,
            branch=submitted.branch or None,
            commit=submitted.commit or None,
            chosen_at=now,
        )
    record, stated = build.record or BuildRecord(), stated_metadata(build, route.name)
    branch, commit = record.branch or stated.branch, record.commit or stated.commit
    values: dict[str, str | int | None] = {
        "job_id": build.job_id,
        "build_no": build.build_no,
        "branch": branch,
        "commit": commit,
        "tag": record.tag,
        "region": record.region,
        "devcloud_project_id": record.devcloud_project_id or stated.project_id,
        "repo_name": record.repo_name,
        "daily_build_num": record.daily_build_num,
        "trigger_type": record.trigger_type,
        "job_name": record.job_name or stated.job_name,
        "repo_url": record.repo_url,
    }
    return RunParameters(
        route=route.name,
        build_id=render(route.build_id, values),
        tags=route.tags,
        run_url=_run_url(route.run_url, values),
        branch=branch,
        commit=commit,
        chosen_at=now,
    )


def _run_url(template: str, values: Mapping[str, str | int | None]) -> str:
    """Return the address of the build's page; empty if it begins with {repo_url} and that is not known."""
    in_url = {name: _in_url(value) for name, value in values.items()}
    if not template.startswith(REPO_URL_FIELD):
        return render(template, in_url)
    repo_url = quote(str(values["repo_url"] or ""), safe=URL_CHARACTERS, errors="replace")
    return repo_url + render(template.removeprefix(REPO_URL_FIELD), in_url) if repo_url else ""


def _in_url(value: str | int | None) -> str:
    # A branch may contain characters that end a query; slashes are allowed in a query.
    return "" if value is None else quote(str(value), safe="/", errors="replace")


def metadata_mismatch(upload_metadata: UploadMetadata, record: BuildRecord) -> str | None:
    """Return a sentence on where upload and record differ in project, branch or commit; None if they do not."""
    differences = []
    if (
        upload_metadata.project_id
        and record.devcloud_project_id
        and upload_metadata.project_id != record.devcloud_project_id
    ):
        differences.append(f"project {upload_metadata.project_id}, the record {record.devcloud_project_id}")
    if upload_metadata.branch and record.branch and _branch(upload_metadata.branch) != _branch(record.branch):
        differences.append(f"branch {upload_metadata.branch}, the record {record.branch}")
    if upload_metadata.commit and record.commit and not _same_commit(upload_metadata.commit, record.commit):
        differences.append(f"commit {upload_metadata.commit}, the record {record.commit}")
    return f"The upload named {' and '.join(differences)}." if differences else None


def _branch(name: str) -> str:
    """Return a branch without `refs/heads/`: CodeArts and git use both forms."""
    return name.removeprefix("refs/").removeprefix("heads/")


def _same_commit(one: str, other: str) -> bool:
    shorter, longer = sorted((one.lower(), other.lower()), key=len)
    if shorter == longer:
        return True
    return len(shorter) >= ABBREVIATED_COMMIT and bool(_HEX.fullmatch(shorter)) and longer.startswith(shorter)
