"""What CodeArts lists: the builds of a job, and the jobs of a project. Times are microseconds UTC.

Source: the definitions of ListBuildInfoRecordByJobId and ListProjectJobs in Huawei's API Explorer.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby

from bridge.sandbox.builds import BuildRun

MAX_WINDOW = timedelta(days=31)
MAX_PAGE_SIZE = 100
WINDOW_FORMAT = "%Y-%m-%d %H:%M:%S"
COLORS: Mapping[str, str] = {"SUCCESS": "blue", "ABORTED": "aborted"}
"""`last_build_status` of a project's job is one of Jenkins' colors."""


def read_window(start: str, end: str, *, utc_offset_hours: int) -> tuple[int, int] | None:
    """Return start_time and end_time in microseconds UTC; None if they are malformed, reversed or 31 days apart."""
    try:
        first, last = (
            datetime.strptime(text, WINDOW_FORMAT).replace(tzinfo=UTC) - timedelta(hours=utc_offset_hours)
            for text in (start, end)
        )
    except (ValueError, OverflowError):
        return None
    if not timedelta(0) <= last - first <= MAX_WINDOW:
        return None
    return int(first.timestamp()) * 1_000_000, int(last.timestamp()) * 1_000_000


def record_list(builds: Sequence[BuildRun], *, page: int, size: int, now: int) -> dict[str, object]:
    """Return the `result` of the list of a job's builds, newest first; its page numbers and totals are strings."""
    ordered = sorted(builds, key=lambda build: build.build_no, reverse=True)
    shown = ordered[page * size : (page + 1) * size]
    return {
        "total_page": str(-(-len(ordered) // size) if size else 0),
        "page_index": str(page),
        "total_record": str(len(ordered)),
        "health_score": "0",
        "job_build_states": [_listed_build(build, now) for build in shown],
    }


def _listed_build(build: BuildRun, now: int) -> dict[str, object]:
    record, details = build.record(), build.details()
    took = ((build.ended_at if build.ended_at is not None else now) - build.started_at) // 1000
    commit = details["revision"] or ""
    return {
        "number": build.build_no,
        "build_time": took,
        "start_time": build.started_at // 1000,
        "job_running_status": "Running" if build.ended_at is None else "Finished",
        "state": details["status"],
        "user_id": record["user_id"],
        "executor": details["trigger_name"],
        "nickname": details["trigger_name"],
        "daily_build_number": record["daily_build_num"],
        "trigger_type": "Manual",
        "cost_time": took,
        "commit_id": commit,
        "commit_info": {"commit_id": commit, "created_at": record["commit_create_time"]},
        "build_type": record["build_type"],
        "code_branch": details["branch"],
        "scm_type": details["scm_type"],
        "scm_web_url": details["scm_web_url"],
        "commit_detail_url": f"https://codehub.example.com/{record['repo_id']}/{commit}/commitdetail",
    }


def job_list(builds: Iterable[BuildRun], *, page: int, size: int) -> dict[str, object]:
    """Return the body of the list of a project's jobs; what it shows of a job is the state of its latest build."""
    ordered = sorted(builds, key=lambda build: (build.job_id, build.build_no))
    latest = [list(members)[-1] for _, members in groupby(ordered, key=lambda build: build.job_id)]
    return {"jobs": [_listed_job(build) for build in latest[page * size : (page + 1) * size]], "total": len(latest)}


def _listed_job(latest: BuildRun) -> dict[str, object]:
    record, details = latest.record(), latest.details()
    finished = latest.ended_at is not None
    duration = (latest.ended_at - latest.started_at) // 1000 if latest.ended_at is not None else 0
    return {
        "id": latest.job_id,
        "job_name": details["display_name"],
        "job_creator": record["user_id"],
        "user_name": details["trigger_name"],
        "last_build_time": latest.started_at // 1000,
        "health_score": 75,
        "source_code": "codehub",
        "last_build_status": COLORS.get(latest.build_result or "", "red") if finished else "blue_anime",
        "is_finished": finished,
        "disabled": False,
        "favorite": False,
        "is_modify": True,
        "is_delete": True,
        "is_execute": True,
        "is_copy": True,
        "is_forbidden": True,
        "is_view": True,
        "last_build_user": details["trigger_name"],
        "last_build_user_id": record["user_id"],
        "trigger_type": record["trigger_type"],
        "build_project_id": record["build_project_id"],
        "build_time": duration,
        "last_job_running_status": "Finished" if finished else "Running",
        "scm_type": details["scm_type"],
        "scm_web_url": details["scm_web_url"],
        "repo_id": record["repo_id"],
    }
