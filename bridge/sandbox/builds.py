"""What CodeArts holds: builds with their records, and tasks and runs of CodeArts Check.

Times are microseconds UTC.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from enum import IntEnum

from bridge.values import dataclass

JOB_ID = re.compile(r"[0-9a-zA-Z]{32}")
MAX_BUILD_NO = 2**31 - 1
REGION = "cn-north-4"

# The example of the reference; None where each build has its own value.
_RECORD: Mapping[str, object] = {
    "id": None,
    "build_project_id": None,
    "build_record_id": None,
    "parent_record_id": None,
    "devcloud_project_id": "b4d3971c3988463b865f6f920846149e",
    "codeci_job_id": None,
    "user_id": "ae22fd035f354cfa8d82a3f1c8940446",
    "build_no": None,
    "daily_build_num": None,
    "execution_id": "j_YE1bu9Z7",
    "repo_name": "maven",
    "repo_id": "2111616838",
    "branch": "main",
    "tag": None,
    "commit": "5f0c1d9be1a7f5d3a7a2a9b7c9c9a3c0b7f1e2d4",
    "commit_message": "Count the rows once",
    "commit_create_time": None,
    "trigger_type": "CODEHUB_TRIGGER",
    "build_type": "branch",
    "status": None,
    "domain_id": "60021bab32fd450aa2cb89226f425e06",
    "create_time": None,
    "schedule_time": None,
    "queued_time": None,
    "start_time": None,
    "runnable_time": None,
    "finish_time": None,
    "duration": None,
    "record_status": None,
    "use_private_slave": 0,
    "region": REGION,
    "err_msg": None,
    "build_config_type": "YAML",
}
_DETAILS: Mapping[str, object] = {
    "group_name": "",
    "trigger_name": "sandbox",
    "scm_type": "codehub",
    "scm_web_url": "https://codehub.example.com/codehub/2111616838/home",
    "repository": "https://codehub.example.com/sandbox/maven.git",
    "build_yml_path": ".cloudbuild/build.yml",
    "build_yml_url": "https://codehub.example.com/sandbox/maven/blob/main/.cloudbuild/build.yml",
}
_RECORD_TYPE: Mapping[str, object] = {"is_rerun": False, "record_type": "JOB", "rerun": False}
_STAGES = tuple(enumerate((("initial", "initial", None), ("stage1", "Build with Maven", 1), ("final", "final", None))))
STATUS_CODES: Mapping[str | None, int] = {None: 1, "SUCCESS": 5, "ABORTED": 8}  # 5 and 8 are in Huawei's examples
FAILED_CODE = 6
_STARTED = ("commit_create_time", "create_time", "schedule_time", "queued_time", "start_time", "runnable_time")


@dataclass(kw_only=True, slots=True)
class BuildRun:
    """One run of a build task; it is running until `ended_at` is set."""

    job_id: str
    build_no: int
    started_at: int
    overrides: Mapping[str, object] = field(default_factory=dict)
    detail_overrides: Mapping[str, object] = field(default_factory=dict)
    ended_at: int | None = None
    build_result: str | None = None

    @property
    def project_id(self) -> object:
        return self.overrides.get("devcloud_project_id", _RECORD["devcloud_project_id"])

    def info(self) -> dict[str, object]:
        """Return the `result` of build-info."""
        return {"building": self.ended_at is None, "build_result": self.build_result, "region": REGION}

    def record(self) -> dict[str, object]:
        """Return the `result` of record-info; overrides take precedence."""
        own: dict[str, object] = {
            "id": _uuid(f"id/{self.job_id}/{self.build_no}"),
            "build_project_id": _uuid(f"project/{self.job_id}"),
            "build_record_id": _uuid(f"record/{self.job_id}/{self.build_no}"),
            "codeci_job_id": _uuid(f"codeci/{self.job_id}").replace("-", ""),
            "build_no": self.build_no,
            "daily_build_num": f"{_utc(self.started_at):%Y%m%d}.{self.build_no}",
            "status": self.build_result or "RUNNING",
        }
        times: dict[str, object] = dict.fromkeys(_STARTED, format_time(self.started_at))
        if self.ended_at is not None:
            times["finish_time"] = format_time(self.ended_at)
            times["duration"] = (self.ended_at - self.started_at) // 1000
        return {**_RECORD, **own, **times, **self.overrides}

    def details(self) -> dict[str, object]:
        """Return the `result` of /v1/record/{record_id}/info, whose build_no is a string; overrides take precedence."""
        record = self.record()
        duration = (self.ended_at - self.started_at) // 1000 if self.ended_at is not None else 0
        own: dict[str, object] = {
            "id": record["build_record_id"],
            "project_id": record["build_project_id"],
            "build_no": str(self.build_no),
            "daily_build_no": record["daily_build_num"],
            "daily_build_number": record["daily_build_num"],
            "display_name": f"job-{self.job_id[:8]}",
            "branch": record["branch"],
            "revision": record["commit"],
            "trigger_type": record["trigger_type"],
            "build_record_type": {**_RECORD_TYPE, "trigger_type": record["trigger_type"]},
            "dev_cloud_build_type": record["build_type"],
            "execution_id": record["execution_id"],
            "user_id": record["user_id"],
            "status": self.build_result or "RUNNING",
            "status_code": STATUS_CODES.get(self.build_result, FAILED_CODE),
            "parameters": [{"name": "codeBranch", "value": record["branch"], "secret": False, "type": "string"}],
            "create_time": record["create_time"],
            "queued_time": record["queued_time"],
            "schedule_time": record["schedule_time"],
            "start_time": record["start_time"],
            "finish_time": record["finish_time"],
            "duration": duration,
            "build_duration": duration,
            "pending_duration": 0,
        }
        return {**_DETAILS, **own, **self.detail_overrides}

    def stages(self) -> dict[str, object]:
        """Return the `build_stages` of full-stages; as in Huawei's example, only one stage has a node."""
        return {name: self._stage(name, shown, node_id, sequence) for sequence, (name, shown, node_id) in _STAGES}

    def _stage(self, name: str, display_name: str, node_id: int | None, sequence: int) -> dict[str, object]:
        record = self.record()
        return {
            "id": _uuid(f"{name}/{self.job_id}/{self.build_no}"),
            "status": self.build_result or "RUNNING",
            "status_code": STATUS_CODES.get(self.build_result, FAILED_CODE),
            "log_status": None,
            "create_time": record["create_time"],
            "schedule_time": record["schedule_time"],
            "queued_time": record["queued_time"],
            "start_time": record["start_time"],
            "finish_time": record["finish_time"],
            "duration": record["duration"],
            "build_duration": record["duration"],
            "pending_duration": 0,
            "build_record_id": record["build_record_id"],
            "execution_id": record["execution_id"],
            "execution_stage_name": name,
            "display_name": display_name,
            "node_id": node_id,
            "sequence": sequence,
        }


class Builds:
    """All started builds, by task and number."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, int], BuildRun] = {}

    def start(
        self,
        job_id: str,
        build_no: int,
        *,
        at: int,
        record: Mapping[str, object] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> BuildRun:
        """Start a build, or restart it; raise ValueError if CodeArts could not have such a build or record field.

        `record` has fields of record-info, `details` those of /v1/record/{record_id}/info, which the lists share.
        """
        if not JOB_ID.fullmatch(job_id):
            raise ValueError(f"job_id must be 32 letters and digits, not {job_id!r}.")
        if not 1 <= build_no <= MAX_BUILD_NO:
            raise ValueError(f"build_no must be a whole number from 1 to {MAX_BUILD_NO}, not {build_no}.")
        unknown = sorted(set(record or {}) - set(_RECORD))
        if unknown:
            raise ValueError(f"A build record has no {', '.join(unknown)}.")
        build = BuildRun(job_id=job_id, build_no=build_no, started_at=at, overrides=dict(record or {}))
        unknown = sorted(set(details or {}) - set(build.details()))
        if unknown:
            raise ValueError(f"The details of a build record have no {', '.join(unknown)}.")
        build.detail_overrides = dict(details or {})
        self._by_key[job_id, build_no] = build
        return build

    def end(self, job_id: str, build_no: int, *, at: int, build_result: str = "SUCCESS") -> BuildRun:
        """End a build; raise LookupError if it was never started."""
        build = self.find(job_id, build_no)
        if build is None:
            raise LookupError(f"Build {job_id}/{build_no} was never started. Start it with POST /builds.")
        build.ended_at = at
        build.build_result = build_result
        return build

    def forget(self, job_id: str, build_no: int) -> None:
        """Remove a build, so that CodeArts does not find it any more."""
        self._by_key.pop((job_id, build_no), None)

    def find(self, job_id: str, build_no: int) -> BuildRun | None:
        """Return the build, None if there is none."""
        return self._by_key.get((job_id, build_no))

    def of_job(self, job_id: str) -> list[BuildRun]:
        """Return the builds of a task."""
        return [build for build in self._by_key.values() if build.job_id == job_id]

    def of_project(self, project_id: str) -> list[BuildRun]:
        """Return the builds whose record names this project."""
        return [build for build in self._by_key.values() if build.project_id == project_id]

    def find_record(self, record_id: str) -> BuildRun | None:
        """Return the build with this `build_record_id`."""
        return next((build for build in self._by_key.values() if build.record()["build_record_id"] == record_id), None)


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def _utc(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1_000_000, UTC)


def format_time(at: int) -> str:
    """Return microseconds UTC in CodeArts' time format."""
    return _utc(at).isoformat(timespec="milliseconds")


# The example of the reference, with its case-sensitive and misspelled keys; CRITICAL counts major issues.
REPORT: Mapping[str, object] = {
    "CODE_SIZE": 991,
    "COMFIRM": 0,
    "CRITICAL": 4,
    "DELAYSTATUS_COUNT": 0,
    "FATAL": 0,
    "FILE_TOTAL": 3,
    "FIX": 0,
    "GENERAL": 108,
    "IGNORE": 0,
    "NEW": 122,
    "PROMPT": 10,
    "REPORT_URL": "https://devcloud.example.com/codechecknew/project/sandbox/codecheck/task/green/detail",
    "RESOLVED": 0,
    "STANDARD_DISMISSED": 0,
    "STANDARD_FIXED": 0,
    "STANDARD_NEW": 122,
    "TOOL_LIST": ["fixbotengine-cxx", "clangtidy", "codemars"],
    "UCC_NBNC": 991,
    "UNRESOLVED": 122,
    "UNRESOLVED_ADD": 122,
    "critical": 0,
    "delay_critical": 0,
    "delay_major": 0,
    "delay_minor": 0,
    "delay_suggestion": 0,
    "major": 4,
    "minor": 108,
    "suggestion": 10,
}


class CheckStatus(IntEnum):
    """The `task_status` of a run."""

    CHECKING = 0
    FAILED = 1
    SUCCEEDED = 2
    STOPPED = 3


@dataclass(kw_only=True, slots=True)
class CheckRun:
    """One run of a check task; its report is available once it has succeeded."""

    exec_id: str
    task_id: str
    status: CheckStatus = CheckStatus.CHECKING
    report: Mapping[str, object] = field(default_factory=lambda: dict(REPORT))


class Checks:
    """All check tasks with their runs, oldest first."""

    def __init__(self) -> None:
        self._runs: dict[str, list[CheckRun]] = {}

    def open(self, task_id: str) -> None:
        """Create a task; an existing one keeps its runs."""
        if not 1 <= len(task_id) <= 32:
            raise ValueError(f"task_id must have 1 to 32 characters, not {len(task_id)}.")
        self._runs.setdefault(task_id, [])

    def run(self, task_id: str) -> CheckRun | None:
        """Start a run; None if there is no such task."""
        if task_id not in self._runs:
            return None
        run = CheckRun(exec_id=uuid.uuid4().hex, task_id=task_id)
        self._runs[task_id].append(run)
        return run

    def end(self, task_id: str, status: CheckStatus, report: Mapping[str, object]) -> CheckRun:
        """End the latest run with the reference's report, updated by `report`; raise LookupError if there is none."""
        run = self.latest(task_id)
        if run is None:
            raise LookupError(f"Task {task_id} has no run. Start one with POST /v2/tasks/{task_id}/run at Check.")
        unknown = sorted(set(report) - set(REPORT))
        if unknown:
            raise ValueError(f"A check report has no {', '.join(unknown)}.")
        run.status, run.report = status, {**REPORT, **report}
        return run

    def latest(self, task_id: str, *, succeeded: bool = False) -> CheckRun | None:
        """Return the task's latest run, or its latest successful one."""
        runs = reversed(self._runs.get(task_id, []))
        return next((run for run in runs if not succeeded or run.status is CheckStatus.SUCCEEDED), None)

    def find(self, exec_id: str) -> CheckRun | None:
        """Return the run with this execution id."""
        return next((run for runs in self._runs.values() for run in runs if run.exec_id == exec_id), None)
