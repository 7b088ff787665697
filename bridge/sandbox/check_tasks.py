"""The check tasks that CodeArts Check knows, their runs, and what each run found.

It must not know HTTP, the clock or the bridge.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

# The example of the reference: keys are case-sensitive and misspelt as there, CRITICAL counts major issues.
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
    """`task_status` of a run."""

    CHECKING = 0
    FAILED = 1
    SUCCEEDED = 2
    STOPPED = 3


@dataclass(kw_only=True, slots=True)
class CheckRun:
    """One run of a task; its report is there once it has succeeded."""

    exec_id: str
    task_id: str
    status: CheckStatus = CheckStatus.CHECKING
    report: Mapping[str, object] = field(default_factory=lambda: dict(REPORT))


class Checks:
    """Every task with its runs, oldest first."""

    def __init__(self) -> None:
        self._runs: dict[str, list[CheckRun]] = {}

    def open(self, task_id: str) -> None:
        """Make a task; one that is there already keeps its runs."""
        if not 1 <= len(task_id) <= 32:
            raise ValueError(f"task_id has 1 to 32 characters, not {len(task_id)}.")
        self._runs.setdefault(task_id, [])

    def run(self, task_id: str) -> CheckRun | None:
        """Begin a run; None when there is no such task."""
        if task_id not in self._runs:
            return None
        run = CheckRun(exec_id=uuid.uuid4().hex, task_id=task_id)
        self._runs[task_id].append(run)
        return run

    def end(self, task_id: str, status: CheckStatus, report: Mapping[str, object]) -> CheckRun:
        """End the latest run, `report` laid over the reference's example; LookupError when there is none."""
        run = self.latest(task_id)
        if run is None:
            raise LookupError(f"Task {task_id} has no run. Begin one with POST /v2/tasks/{task_id}/run at Check.")
        unknown = sorted(set(report) - set(REPORT))
        if unknown:
            raise ValueError(f"A check report has no {', '.join(unknown)}.")
        run.status, run.report = status, {**REPORT, **report}
        return run

    def latest(self, task_id: str, *, succeeded: bool = False) -> CheckRun | None:
        """Return the task's latest run, or its latest that succeeded."""
        runs = reversed(self._runs.get(task_id, []))
        return next((run for run in runs if not succeeded or run.status is CheckStatus.SUCCEEDED), None)

    def find(self, exec_id: str) -> CheckRun | None:
        """Return the run with this execution id."""
        return next((run for runs in self._runs.values() for run in runs if run.exec_id == exec_id), None)
