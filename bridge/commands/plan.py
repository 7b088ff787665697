"""`bridge plan`: the jobs of CodeArts projects, how far each has moved to the bridge, and skeletons of routes."""

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.app.config_mapping import to_route
from bridge.commands.admin_client import AdminAddress, GatewayNotRunning, request_admin_api
from bridge.commands.codearts_lists import open_lists
from bridge.commands.config import read_settings
from bridge.commands.console import print_note, print_result
from bridge.domain.instants import MINUTE, SECOND, Instant
from bridge.domain.outcomes import ListedJob
from bridge.domain.routing import ANY, Route, RoutingKeys, candidate_routes, canonical_job_id
from bridge.domain.text_format import counted, have, printable, rfc3339
from bridge.errors import BadParameter, BridgeError
from bridge.settings import Settings
from bridge.values import dataclass

GATEWAY_CALLS: Final = 8  # at once
NEWEST_BUILDS: Final = 20  # of a job, among which the one with the highest number is looked for
CLOCK_TOLERANCE: Final = MINUTE  # between CodeArts' clock and the gateway's
MAX_ROUTE_NAME: Final = 40
ID_WIDTH: Final = 32
JOB_WIDTH: Final = 18  # then the table fits into 80 columns
PROJECT_ID: Final = re.compile(r"[0-9a-zA-Z]{32}", re.ASCII)

Object = Mapping[str, Any]


class MigrationStage(StrEnum):
    """How far a job has moved to the bridge."""

    SILENT = "silent"  # the gateway never had an upload of it
    ENDED_WITHOUT_REPORTS = "ended_without_reports"  # its latest build ended, and nothing of it was accepted
    MIRRORED = "mirrored"  # reports go to TestNod and to CodeArts
    DELIVERING = "delivering"  # reports go to TestNod


COLORS: Final = {
    MigrationStage.SILENT: "dim",
    MigrationStage.ENDED_WITHOUT_REPORTS: "yellow",
    MigrationStage.MIRRORED: "cyan",
    MigrationStage.DELIVERING: "green",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedJob:
    """A job, and what the gateway has of it; `stage` is None if the gateway could not be asked."""

    project_id: str
    listed: ListedJob
    routes: tuple[str, ...]  # of the settings, that its builds may get
    is_named: bool  # by a route that does not take every job
    stage: MigrationStage | None = None
    reason: str = ""
    build_no: int | None = None  # of its newest reports
    accepted_at: str | None = None


def plan(path: Path, projects: Sequence[str], *, routes_only: bool, json_wanted: bool) -> None:
    """Print the jobs of `projects`, else of those that routes name, or only the skeletons of missing routes."""
    settings = read_settings(path)
    wanted = list(dict.fromkeys(projects)) or _projects_of(settings)
    for project in wanted:
        if not PROJECT_ID.fullmatch(project):
            raise BadParameter(f"{project} is not the id of a project: 32 digits and letters of its address.")
    if not wanted:
        raise BadParameter("Name a project by its id, because no route names one with project_id.")
    jobs, problem = asyncio.run(_planned(settings, path, wanted, with_gateway=not routes_only))
    if routes_only:
        typer.echo(skeletons(jobs, [route.name for route in settings.routes]), nl=False)
    elif json_wanted or not sys.stdout.isatty():
        typer.echo(json.dumps(_as_json(jobs, wanted, problem), indent=2, ensure_ascii=False))
    else:
        _print_table(jobs, problem)


def _projects_of(settings: Settings) -> list[str]:
    globs = [glob for route in settings.routes for glob in route.project_id]
    return list(dict.fromkeys(glob for glob in globs if PROJECT_ID.fullmatch(glob)))


async def _planned(
    settings: Settings, path: Path, projects: Sequence[str], *, with_gateway: bool
) -> tuple[list[PlannedJob], str]:
    """Return the jobs of all projects, and why the gateway could not be asked; empty if it was."""
    routes = [to_route(route, settings) for route in settings.routes]
    jobs = []
    async with open_lists(settings) as lists:
        for project in projects:
            listed = await lists.jobs_of(project)
            jobs += [_planned_job(project, job, routes) for job in listed]
    jobs.sort(key=lambda job: (job.project_id, (job.listed.job_name or "").casefold(), job.listed.job_id))
    if not with_gateway:
        return jobs, ""
    try:
        admin = AdminAddress.find(path)
        return await _judge_all(admin, jobs), ""
    except GatewayNotRunning:
        return jobs, f"No gateway answers at {admin.url}."
    except BridgeError as error:
        return jobs, str(error)


def _planned_job(project_id: str, job: ListedJob, routes: Sequence[Route]) -> PlannedJob:
    keys = RoutingKeys(job_id=canonical_job_id(job.job_id), project_id=project_id, job_name=job.job_name)
    found = candidate_routes(routes, keys)
    return PlannedJob(
        project_id=project_id,
        listed=job,
        routes=tuple(route.name for route in found),
        is_named=any(not _takes_every_job(route) for route in found),
    )


def _takes_every_job(route: Route) -> bool:
    return all(globs == ANY for globs in (route.job_id, route.job_name, route.project_id, route.repo, route.branch))


# -- what the gateway has ----------------------------------------------------------------------------------------


async def _judge_all(admin: AdminAddress, jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    """Return the jobs with their stages; raise GatewayNotRunning or BridgeError if the gateway cannot be asked."""
    routes = (await request_admin_api(admin, "/api/v1/routes"))["routes"]
    mirrors = frozenset(route["name"] for route in routes if route["mirror"])
    slots = asyncio.Semaphore(GATEWAY_CALLS)

    async def judged(job: PlannedJob) -> PlannedJob:
        async with slots:
            builds, rejections = await _found(admin, canonical_job_id(job.listed.job_id))
        return judge(job, builds, rejections, mirrors)

    return list(await asyncio.gather(*map(judged, jobs)))


async def _found(admin: AdminAddress, job_id: str) -> tuple[list[Object], list[Object]]:
    """Return the newest builds of a job, or if there are none, its newest rejection."""
    params: dict[str, str | int] = {"job_id": job_id, "limit": NEWEST_BUILDS}
    builds = (await request_admin_api(admin, "/api/v1/builds", params=params))["builds"]
    if builds:
        return builds, []
    return [], (await request_admin_api(admin, "/api/v1/rejections", params=params | {"limit": 1}))["rejections"]


def judge(
    job: PlannedJob, builds: Sequence[Object], rejections: Sequence[Object], mirrors: Collection[str]
) -> PlannedJob:
    """Return the job with its stage, from objects of the admin API; `mirrors` are the routes that mirror."""
    if not builds:
        if rejections:
            reason = f"Every upload was rejected, the last one because: {rejections[0]['reason']}"
            return replace(job, stage=MigrationStage.ENDED_WITHOUT_REPORTS, reason=reason)
        ran = job.listed.last_started_at is not None
        reason = "No upload of it has arrived." if ran else "CodeArts has no build of it."
        return replace(job, stage=MigrationStage.SILENT, reason=reason)
    reported = [build for build in builds if build["reports"]]
    if not reported:
        return replace(job, stage=MigrationStage.ENDED_WITHOUT_REPORTS, reason="No report of it was accepted.")
    newest = max(reported, key=lambda build: int(build["build_no"]))
    job = replace(job, build_no=newest["build_no"], accepted_at=newest["accepted_at"])
    if (missed := _missed(job, newest)) is not None:
        return replace(job, stage=MigrationStage.ENDED_WITHOUT_REPORTS, reason=missed)
    stage = MigrationStage.MIRRORED if newest["route"] in mirrors else MigrationStage.DELIVERING
    return replace(job, stage=stage, reason=newest["blocked_reason"] or newest["stuck_reason"] or "")


def _missed(job: PlannedJob, newest: Object) -> str | None:
    """Return that the latest build at CodeArts ended and began after the newest reports came; None if it did not."""
    started = job.listed.last_started_at
    if started is None or not job.listed.finished:
        return None
    reported_at = max(_instant(report["accepted_at"]) for report in newest["reports"])
    if reported_at + CLOCK_TOLERANCE >= started:
        return None
    newer = f"Its latest build began on {_day(started)} and ended without a report."
    return f"{newer} The last one with reports is {newest['build_no']}."


def _instant(text: str) -> Instant:
    return Instant(int(datetime.fromisoformat(text).timestamp() * SECOND))


def _day(at: Instant) -> str:
    return f"{datetime.fromtimestamp(at / SECOND, UTC):%Y-%m-%d %H:%M} UTC"


# -- printing ----------------------------------------------------------------------------------------------------


def skeletons(jobs: Sequence[PlannedJob], taken: Collection[str]) -> str:
    """Return a `[[routes]]` table for each job that no route names, with names that are not `taken`.

    `bridge check-config` takes them once their tokens are set.
    """
    missing = [job for job in jobs if not job.is_named]
    if not missing:
        return "# Every job has a route.\n"
    names = _names(missing, taken)
    lines = [
        "# Written by `bridge plan --routes`. Set each project_token, or project_token_file, and remove tables that",
        "# you do not need. Put the others before routes that take every job: the first match counts.",
        "# With more than one project_token, each table of [[callers.tokens]] and [[callers.keys]] names its routes:",
        f"# routes = {json.dumps(names, ensure_ascii=False)}",
    ]
    for job, name in zip(missing, names, strict=True):
        listed = job.listed
        lines += [
            "",
            f"# {printable(listed.job_name or 'a job without a name')}",
            "[[routes]]",
            f"name = {json.dumps(name, ensure_ascii=False)}",
            'project_token = ""',
            f"job_id = {json.dumps(canonical_job_id(listed.job_id))}",
        ]
    return "\n".join([*lines, ""])


def _names(jobs: Sequence[PlannedJob], taken: Collection[str]) -> list[str]:
    """Return a unique name of a route for each job."""
    names: list[str] = []
    for job in jobs:
        base = re.sub(r"[^\w.-]+", "-", job.listed.job_name or "").strip("-.")[:MAX_ROUTE_NAME] or job.listed.job_id[:8]
        numbered = (f"{base}-{number}" for number in count(2))
        name = next(each for each in chain([base], numbered) if each not in taken and each not in names)
        names.append(name)
    return names


def _print_table(jobs: Sequence[PlannedJob], problem: str) -> None:
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    for name, width in (("Job", JOB_WIDTH), ("Id", None), ("Stage", None), ("Route", None)):
        grid.add_column(name, overflow="fold", max_width=width, min_width=ID_WIDTH if name == "Id" else 5)
    for job in jobs:
        stage = Text(_shown(job.stage), COLORS[job.stage]) if job.stage else Text("?")
        name, job_id, route = job.listed.job_name or "", job.listed.job_id, " or ".join(job.routes)
        grid.add_row(Text(printable(name)), Text(printable(job_id)), stage, Text(printable(route)))
    if jobs:
        Console(highlight=False).print(grid)
    for job in jobs:
        if job.reason and job.stage is not MigrationStage.SILENT:
            print_result(printable(f"{job.listed.job_name or job.listed.job_id}: {job.reason}"))
    stages = Counter(job.stage for job in jobs if job.stage)
    parts = "".join(f", {stages[stage]} {_shown(stage)}" for stage in MigrationStage if stages[stage])
    print_result(f"{counted(len(jobs), 'job')}{parts}.")
    if problem:
        print_note(f"{problem} So the stages are not known. Start it, or set BRIDGE_ADMIN_URL.")
    unnamed = sum(not job.is_named for job in jobs)
    if unnamed:
        print_note(
            f"{counted(unnamed, 'job')} {have(unnamed)} no route of {'its' if unnamed == 1 else 'their'} own. "
            "With --routes, this command prints such routes."
        )


def _shown(stage: MigrationStage) -> str:
    return stage.replace("_", " ")


def _as_json(jobs: Sequence[PlannedJob], projects: Sequence[str], problem: str) -> dict[str, Any]:
    stages = Counter(job.stage for job in jobs if job.stage)
    return {
        "projects": list(projects),
        "gateway_problem": problem or None,
        "totals": {"jobs": len(jobs), **{stage.value: stages[stage] for stage in MigrationStage}},
        "jobs": [_job_as_json(job) for job in jobs],
    }


def _job_as_json(job: PlannedJob) -> dict[str, Any]:
    listed = job.listed
    return {
        "project_id": job.project_id,
        "job_id": listed.job_id,
        "job_name": listed.job_name,
        "stage": job.stage,
        "reason": job.reason or None,
        "routes": list(job.routes),
        "has_own_route": job.is_named,
        "build_no": job.build_no,
        "accepted_at": job.accepted_at,
        "last_build_started_at": None if listed.last_started_at is None else rfc3339(listed.last_started_at),
        "last_build_status": listed.last_build_status,
        "is_running": None if listed.finished is None else not listed.finished,
        "is_disabled": listed.disabled,
    }
