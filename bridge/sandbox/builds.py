"""The builds that the stand-in of CodeArts Build knows, and their records.

It must not know HTTP, the clock or the bridge: times come in as microseconds.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

JOB_ID = re.compile(r"[0-9a-zA-Z]{32}")
HIGHEST_BUILD_NO = 2**31 - 1
REGION = "cn-north-4"
NODE_ID = "1"  # of the one stage that every build has; the reference has a string there, the SDK reads a number

# The example of the reference, without what each build has of its own.
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
_STARTED = ("commit_create_time", "create_time", "schedule_time", "queued_time", "start_time", "runnable_time")


@dataclass(kw_only=True, slots=True)
class BuildRun:
    """One run of a build task; it is building until `ended_at` is set."""

    job_id: str
    build_no: int
    started_at: int
    overrides: Mapping[str, object] = field(default_factory=dict)
    ended_at: int | None = None
    build_result: str | None = None

    def info(self) -> dict[str, object]:
        """Return the `result` object of build-info (api/codearts-build-info)."""
        return {"building": self.ended_at is None, "build_result": self.build_result, "region": REGION}

    def record(self) -> dict[str, object]:
        """Return the `result` object of record-info (api/codearts-record-info-v4), overrides last."""
        own: dict[str, object] = {
            "id": _uuid(f"id/{self.job_id}/{self.build_no}"),
            "build_project_id": _uuid(f"project/{self.job_id}"),
            "build_record_id": _uuid(f"record/{self.job_id}/{self.build_no}"),
            "codeci_job_id": _uuid(f"codeci/{self.job_id}").replace("-", ""),
            "build_no": self.build_no,
            "daily_build_num": f"{_utc(self.started_at):%Y%m%d}.{self.build_no}",
            "status": self.build_result or "RUNNING",
        }
        times: dict[str, object] = dict.fromkeys(_STARTED, written(self.started_at))
        if self.ended_at is not None:
            times["finish_time"] = written(self.ended_at)
            times["duration"] = (self.ended_at - self.started_at) // 1000
        return {**_RECORD, **own, **times, **self.overrides}

    def stages(self) -> dict[str, object]:
        """Return the `build_stages` of full-stages: one, which builds and uploads."""
        started, ended = written(self.started_at), written(self.ended_at) if self.ended_at is not None else None
        duration = (self.ended_at - self.started_at) // 1000 if self.ended_at is not None else None
        stage_id = _uuid(f"stage/{self.job_id}/{self.build_no}")
        stage: dict[str, object] = {
            "id": stage_id,
            "status": self.build_result or "RUNNING",
            "status_code": None,
            "log_status": "OPENED",
            "create_time": started,
            "schedule_time": started,
            "queued_time": started,
            "start_time": started,
            "finish_time": ended,
            "duration": duration,
            "build_duration": duration,
            "pending_duration": 0,
            "build_record_id": self.record()["build_record_id"],
            "execution_id": _RECORD["execution_id"],
            "execution_stage_name": "maven",
            "display_name": "Build with Maven",
            "node_id": NODE_ID,
            "sequence": 1,
        }
        return {stage_id: stage}


class Builds:
    """Every build that was started here, by task and number."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, int], BuildRun] = {}

    def start(self, job_id: str, build_no: int, *, at: int, record: Mapping[str, object] | None = None) -> BuildRun:
        """Start a build, or start it over; ValueError when CodeArts could not have such a build or record field."""
        if not JOB_ID.fullmatch(job_id):
            raise ValueError(f"job_id is 32 letters and digits, not {job_id!r}.")
        if not 1 <= build_no <= HIGHEST_BUILD_NO:
            raise ValueError(f"build_no is a whole number from 1 to {HIGHEST_BUILD_NO}, not {build_no}.")
        unknown = sorted(set(record or {}) - set(_RECORD))
        if unknown:
            raise ValueError(f"A build record has no {', '.join(unknown)}.")
        build = BuildRun(job_id=job_id, build_no=build_no, started_at=at, overrides=dict(record or {}))
        self._by_key[job_id, build_no] = build
        return build

    def end(self, job_id: str, build_no: int, *, at: int, build_result: str = "SUCCESS") -> BuildRun:
        """End a build; LookupError when it was never started."""
        build = self.find(job_id, build_no)
        if build is None:
            raise LookupError(f"Build {job_id}/{build_no} was never started. Start it with POST /builds.")
        build.ended_at = at
        build.build_result = build_result
        return build

    def forget(self, job_id: str, build_no: int) -> None:
        """Answer about this build as about one that never was."""
        self._by_key.pop((job_id, build_no), None)

    def find(self, job_id: str, build_no: int) -> BuildRun | None:
        """Return the build, or None when CodeArts would not know it."""
        return self._by_key.get((job_id, build_no))

    def find_record(self, record_id: str) -> BuildRun | None:
        """Return the build whose record-info names this `build_record_id`."""
        return next((build for build in self._by_key.values() if build.record()["build_record_id"] == record_id), None)


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def _utc(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1_000_000, UTC)


def written(at: int) -> str:
    """Return microseconds UTC as CodeArts writes times."""
    return _utc(at).isoformat(timespec="milliseconds")
