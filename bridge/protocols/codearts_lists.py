"""CodeArts Build's calls that list builds and jobs, and the details of one record: paths, and the meaning of responses.

Source: the definitions of ListBuildInfoRecordByJobId, ListProjectJobs and ShowBuildRecord in Huawei's API Explorer
(collected in github.com/mingyang91/huawei-cloud-api-definitions).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from bridge.domain.instants import DAY, SECOND, Duration, Instant
from bridge.domain.outcomes import (
    BuildsListed,
    DetailsFetched,
    DetailsOutcome,
    JobListOutcome,
    JobsListed,
    ListedBuild,
    ListedJob,
    OutcomeUnknown,
    RecordDetails,
    RecordListOutcome,
)
from bridge.protocols.codearts_build import (
    MAX_FIELD_CHARACTERS,
    MAX_RESULT_CHARACTERS,
    failure,
    flag,
    is_error,
    result_of,
)
from bridge.protocols.http_response import HttpResponse, read_json, scalar

PAGE_SIZE = 100
"""The most that CodeArts lists in one response."""

MAX_WINDOW = Duration(31 * DAY)
"""The longest window in which CodeArts lists the builds of a job."""

WINDOW_MARGIN = DAY
"""Added on both sides of a window, because the time zone of start_time and end_time is not documented."""

FINISHED = "finished"  # job_running_status of a build that is over, in lower case
WINDOW_FORMAT = "%Y-%m-%d %H:%M:%S"
MAX_NUMBER_DIGITS = 18
MILLISECOND = 1_000


def record_list_target(job_id: str, since: Instant, until: Instant, *, page: int) -> str:
    """Return path and query of the list of builds of a job that started between two instants.

    The window is wider by WINDOW_MARGIN on each side, and cut to the latest 31 days. Pages are counted from 0.
    """
    last = until + WINDOW_MARGIN
    first = max(since - WINDOW_MARGIN, last - MAX_WINDOW)
    query = {
        "start_time": _window_time(first),
        "end_time": _window_time(last),
        "page_index": page,
        "page_size": PAGE_SIZE,
    }
    return f"/v1/record/{quote(job_id, safe='')}/list?{urlencode(query, quote_via=quote)}"


def _window_time(at: int) -> str:
    return f"{datetime.fromtimestamp(at // SECOND, UTC):{WINDOW_FORMAT}}"


def job_list_target(project_id: str, *, page: int) -> str:
    """Return path and query of the list of jobs of a project; pages are counted from 0."""
    return f"/v1/job/{quote(project_id, safe='')}/list?page_index={page}&page_size={PAGE_SIZE}"


def record_details_path(record_id: str) -> str:
    """Return the path of the details of a record; `record_id` is `build_record_id` of record-info."""
    return f"/v1/record/{quote(record_id, safe='')}/info"


def read_record_list(response: HttpResponse) -> RecordListOutcome:
    """Return the outcome of the list of a job's builds. Builds without a number are left out."""
    result = result_of(response)
    if not isinstance(result, dict | list):
        return result
    entries = result.get("job_build_states") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(entries, list):
        return OutcomeUnknown(status=200, message="The list of builds returned HTTP 200 without job_build_states.")
    return BuildsListed(builds=tuple(_builds(entries)), pages=_number(result.get("total_page")))


def _builds(entries: list[Any]) -> Iterator[ListedBuild]:
    for entry in islice(entries, PAGE_SIZE):
        build_no = _number(entry.get("number")) if isinstance(entry, dict) else None
        if build_no is None:
            continue
        started, took = _number(entry.get("start_time")), _number(entry.get("build_time"))
        yield ListedBuild(
            build_no=build_no,
            finished=_lower(entry.get("job_running_status")) == FINISHED,
            result=scalar(entry.get("state"), limit=MAX_RESULT_CHARACTERS),
            branch=_text(entry, "code_branch"),
            commit=_text(entry, "commit_id"),
            repo_url=_web_url(entry.get("scm_web_url")),
            started_at=None if started is None else Instant(started * MILLISECOND),
            duration=None if took is None else Duration(took * MILLISECOND),
        )


def read_job_list(response: HttpResponse) -> JobListOutcome:
    """Return the outcome of the list of a project's jobs, which has neither `status` nor `result`."""
    value = read_json(response.body)
    if response.status != 200 or not isinstance(value, dict) or is_error(value):
        return failure(response, value)
    entries = value.get("jobs")
    if not isinstance(entries, list):
        return OutcomeUnknown(status=200, message="The list of jobs returned HTTP 200 without jobs.")
    return JobsListed(jobs=tuple(_jobs(entries)), total=_number(value.get("total")))


def _jobs(entries: list[Any]) -> Iterator[ListedJob]:
    for entry in islice(entries, PAGE_SIZE):
        if isinstance(entry, dict) and (job_id := _text(entry, "id")):
            yield ListedJob(
                job_id=job_id,
                job_name=_text(entry, "job_name"),
                finished=flag(entry.get("is_finished")),
                last_build_status=scalar(entry.get("last_build_status"), limit=MAX_RESULT_CHARACTERS),
                repo_url=_web_url(entry.get("scm_web_url")),
                last_started_at=_instant(entry.get("last_build_time")),
                disabled=flag(entry.get("disabled")) or False,
            )


def _instant(value: object) -> Instant | None:
    """Return a time in milliseconds, which the definition of jobs calls a number and not an integer; 0 is none."""
    at = _number(int(value) if isinstance(value, float) and value.is_integer() else value)
    return Instant(at * MILLISECOND) if at else None


def read_record_details(response: HttpResponse) -> DetailsOutcome:
    """Return the outcome of the details of a record. Its parameters are not read, because they may hold secrets."""
    result = result_of(response)
    if not isinstance(result, dict | list):
        return result
    build_no = _number(result.get("build_no")) if isinstance(result, dict) else None
    if not isinstance(result, dict) or build_no is None:
        return OutcomeUnknown(status=200, message="The details of the record are without build_no in an HTTP 200.")
    return DetailsFetched(
        details=RecordDetails(
            build_no=build_no,
            job_name=_text(result, "display_name"),
            branch=_text(result, "branch"),
            commit=_text(result, "revision"),
            repo_url=_web_url(result.get("scm_web_url")),
        )
    )


def _text(entry: dict[str, Any], name: str) -> str | None:
    return scalar(entry.get(name), limit=MAX_FIELD_CHARACTERS)


def _lower(value: object) -> str:
    return value.strip().casefold() if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    """Return a count or an id, which CodeArts writes as a number or a string."""
    text = scalar(value, limit=MAX_NUMBER_DIGITS) or ""
    return int(text) if text.isascii() and text.isdigit() else None


def _web_url(value: object) -> str | None:
    """Return an address for people's browsers; None if it is not one, or carries credentials."""
    text = scalar(value, limit=MAX_FIELD_CHARACTERS)
    try:
        parts = urlsplit(text or "")
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return None
    return text if is_address else None
