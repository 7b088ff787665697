"""The lists of CodeArts Build that show many builds in one response: the builds of a job, the jobs of a project.

Source: `ListBuildInfoRecordByJobId` and `ListProjectJobs` of Huawei's API definitions. Numbers come as strings there,
and any field may be missing.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from bridge.domain import outcomes
from bridge.domain.instants import DAY, HOUR, SECOND, Duration, Instant, after
from bridge.protocols.codearts_build import MAX_RESULT_CHARACTERS, Failure, failure, is_error, result_of
from bridge.protocols.http_response import HttpResponse, read_json, scalar, whole_number

PAGE_SIZE = 100
"""The most that both lists permit."""

MAX_WINDOW = Duration(31 * DAY)
TIME_ZONES = Duration(14 * HOUR)
"""The times of a window have no time zone, and CodeArts may read them in any."""

MAX_UPLOAD_DELAY = Duration(12 * HOUR)
"""A build whose start is not known began at most this long before its first report, as far as the window goes."""

FINISHED = "finished"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedBuild:
    """One build of a job, as the list shows it."""

    build_no: int
    finished: bool
    result: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildsListed:
    """One page of a job's builds."""

    builds: tuple[ListedBuild, ...]
    is_last: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class JobsListed:
    """One page of a project's jobs: the ids of those that run something, and of those that do not."""

    running: frozenset[str]
    finished: frozenset[str]
    pages: int


ListOutcome = BuildsListed | Failure | outcomes.NotSent
JobsOutcome = JobsListed | Failure | outcomes.NotSent


def list_window(started_at: Instant | None, accepted_at: Instant, now: Instant) -> tuple[Instant, Instant]:
    """Return the window in which a build that was `accepted_at` certainly began, at most MAX_WINDOW long."""
    began = started_at if started_at is not None else Instant(accepted_at - MAX_UPLOAD_DELAY)
    end = after(now, TIME_ZONES)
    return max(Instant(min(began, accepted_at) - TIME_ZONES), Instant(end - MAX_WINDOW)), end


def record_list_target(job_id: str, window: tuple[Instant, Instant], page: int) -> str:
    """Return the target of one page of a job's builds."""
    start, end = (quote(_utc(at), safe="") for at in window)
    query = f"start_time={start}&end_time={end}&page_index={page}&page_size={PAGE_SIZE}"
    return f"/v1/record/{quote(job_id, safe='')}/list?{query}"


def job_list_target(project_id: str, page: int) -> str:
    """Return the target of one page of a project's jobs."""
    return f"/v1/job/{quote(project_id, safe='')}/list?page_index={page}&page_size={PAGE_SIZE}"


def read_record_list(response: HttpResponse) -> ListOutcome:
    """Return one page of a job's builds; entries without a readable number are left out."""
    result = result_of(response)
    if not isinstance(result, dict | list):
        return result
    entries = result.get("job_build_states") if isinstance(result, dict) else None
    if not isinstance(entries, list):
        return outcomes.OutcomeUnknown(status=200, message="The list of builds has no field job_build_states.")
    read = (_listed_build(entry) for entry in entries if isinstance(entry, dict))
    return BuildsListed(builds=tuple(build for build in read if build is not None), is_last=len(entries) < PAGE_SIZE)


def read_job_list(response: HttpResponse) -> JobsOutcome:
    """Return one page of a project's jobs; a job whose state is not readable is left out."""
    value = read_json(response.body)
    if response.status != 200 or not isinstance(value, dict) or is_error(value):
        return failure(response, value)
    result = value.get("result")
    fields = result if isinstance(result, dict) else value  # the definition has no `result` around it
    jobs = fields.get("jobs")
    if not isinstance(jobs, list):
        return outcomes.OutcomeUnknown(status=200, message="The list of jobs has no field jobs.")
    states: dict[bool, set[str]] = {True: set(), False: set()}
    for job in jobs:
        state = job.get("is_finished") if isinstance(job, dict) else None
        if isinstance(state, bool) and (job_id := scalar(job.get("id"), limit=64)):
            states[state].add(job_id)
    total = whole_number(fields.get("total"))
    pages = 1 if total is None else max(1, -(-total // PAGE_SIZE))
    return JobsListed(running=frozenset(states[False]), finished=frozenset(states[True]), pages=pages)


def _listed_build(entry: dict[str, Any]) -> ListedBuild | None:
    number, status = whole_number(entry.get("number")), entry.get("job_running_status")
    if number is None:
        return None
    finished = isinstance(status, str) and status.strip().casefold() == FINISHED
    return ListedBuild(
        build_no=number, finished=finished, result=scalar(entry.get("state"), limit=MAX_RESULT_CHARACTERS)
    )


def _utc(at: Instant) -> str:
    return f"{_EPOCH + timedelta(seconds=at // SECOND):%Y-%m-%d %H:%M:%S}"
