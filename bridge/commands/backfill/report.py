"""The report of a backfill: what was found, sent and rejected, as a table for people and as JSON for programs."""

import json
import sys
from dataclasses import field
from typing import Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from bridge.commands.backfill.build_sender import Examined
from bridge.commands.backfill.sources import LeftOut
from bridge.commands.backfill.state import BackfillState, BuildProgress, JobTotals
from bridge.commands.console import print_result
from bridge.domain.text_format import counted, printable
from bridge.values import dataclass

SHOWN_JOBS: Final = 50
SHOWN_MESSAGES: Final = 20
LISTED_MESSAGES: Final = 1_000  # in JSON

_BUILDS: Final = {
    "sent": BuildProgress.SENT,
    "known": BuildProgress.KNOWN,
    "rejected": BuildProgress.REJECTED,
    "empty": BuildProgress.EMPTY,
    "running": BuildProgress.RUNNING,
}

_VALIDATED: Final = ("reports", "invalid", "unreadable", "skipped", "tests", "failures")


@dataclass(kw_only=True, slots=True)
class Trial:
    """A --dry-run: what validation found in the files of builds that would be sent, at most `rate` builds a minute."""

    rate: float
    reports: int = 0
    invalid: int = 0  # of them
    unreadable: int = 0
    skipped: int = 0
    tests: int = 0
    failures: int = 0

    def add(self, found: Examined) -> None:
        """Add what was found in some files."""
        self.reports += len(found.reports)
        self.invalid += len(found.invalid)
        self.unreadable += len(found.unreadable)
        self.skipped += found.skipped
        self.tests += found.tests
        self.failures += found.failures


@dataclass(kw_only=True, slots=True)
class BackfillReport:
    """What the state has of all builds, and what only this run has."""

    state: BackfillState
    left_out: LeftOut
    with_files: bool
    problems: list[str] = field(default_factory=list)

    def jobs(self) -> list[JobTotals]:
        """Return the sums of each job."""
        return self.state.totals(with_files=self.with_files)

    @property
    def left(self) -> int:
        return sum(job.left for job in self.jobs())

    @property
    def has_rejections(self) -> bool:
        return any(job.rejected or job.builds.get(BuildProgress.REJECTED) for job in self.jobs())


def print_report(report: BackfillReport, *, json_wanted: bool, exit_code: int, trial: Trial | None = None) -> None:
    """Print a table on a terminal, else JSON."""
    jobs = report.jobs()
    if json_wanted or not sys.stdout.isatty():
        typer.echo(json.dumps(_as_json(report, jobs, exit_code, trial), indent=2, ensure_ascii=False))
        return
    if jobs:
        Console(highlight=False).print(_table(jobs))
    total = _total(jobs)
    if report.with_files:
        print_result(_files_line(report, total, trial))
    for job_id, build_no, name, message in report.state.problems(SHOWN_MESSAGES):
        file = f"{name}: " if name and not message.startswith(name) else ""
        print_result(printable(f"{job_id} {build_no}: {file}{message}"))
    if total.rejected:
        print_result("`bridge rejections JOB` lists the rejected files that the gateway has kept.")
    for problem in report.problems:
        print_result(printable(problem))
    if trial is not None:
        print_result(_trial_line(total, jobs, trial))
    elif report.left:
        print_result(f"{counted(report.left, 'build')} left. The same command goes on.")


def _table(jobs: list[JobTotals]) -> Table:
    """Return a table with the columns in which something is counted: it fits into 80 columns."""
    total = _total(jobs)
    shown = {
        name: progress
        for name, progress in _BUILDS.items()
        if progress is BuildProgress.SENT or total.builds.get(progress)
    }
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    grid.add_column("Job", overflow="fold")
    grid.add_column("Builds", overflow="fold")
    for name in ("Found", *(name.capitalize() for name in shown), "Left"):
        grid.add_column(name, justify="right")

    def cells(job: JobTotals) -> list[str]:
        return [
            str(each) for each in (job.found, *(job.builds.get(progress, 0) for progress in shown.values()), job.left)
        ]

    for job in jobs[:SHOWN_JOBS]:
        grid.add_row(job.job_id, _numbers(job), *cells(job))
    if len(jobs) > SHOWN_JOBS:
        grid.add_row(f"and {len(jobs) - SHOWN_JOBS} more jobs")
    if len(jobs) > 1:
        grid.add_row(f"{len(jobs)} jobs", "", *cells(total))
    return grid


def _numbers(job: JobTotals) -> str:
    if job.first_no == job.last_no:
        return "" if job.first_no is None else str(job.first_no)
    return f"{job.first_no}–{job.last_no}"


def _total(jobs: list[JobTotals]) -> JobTotals:
    total = JobTotals()
    for job in jobs:
        for progress, count in job.builds.items():
            total.builds[progress] = total.builds.get(progress, 0) + count
        for name in ("without_files", "files", "bytes", "sent", "rejected", "skipped", "tests", "failures"):
            setattr(total, name, getattr(total, name) + getattr(job, name))
    return total


def _files_line(report: BackfillReport, total: JobTotals, trial: Trial | None) -> str:
    parts = [f"{counted(total.files, 'file')} found ({_size(total.bytes)})"]
    if trial is not None:
        parts.append(f"{counted(trial.reports, 'report')} with {counted(trial.tests, 'test')}, {trial.failures} failed")
        parts += [f"{trial.invalid} of them invalid"] if trial.invalid else []
        parts += [f"{trial.unreadable} unreadable"] if trial.unreadable else []
        parts += [f"{trial.skipped} with XML of another kind"] if trial.skipped else []
    elif total.sent or total.rejected or total.skipped:
        parts.append(f"{total.sent} sent with {counted(total.tests, 'test')}, {total.failures} failed")
        parts += [f"{total.rejected} rejected"] if total.rejected else []
        parts += [f"{total.skipped} with XML of another kind, or of builds that are known"] if total.skipped else []
    line = f"{'; '.join(parts)}."
    left_out = report.left_out
    others = [f"{counted(left_out.other, 'file')} with another path or of another job"] if left_out.other else []
    others += [counted(left_out.links, "symbolic link")] if left_out.links else []
    line += f" Not counted: {' and '.join(others)}." if others else ""
    if total.without_files:
        line += f" CodeArts has {counted(total.without_files, 'more build')}, of which there is no file."
    return line


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{-(-count // 1024)} KiB"


def _trial_line(total: JobTotals, jobs: list[JobTotals], trial: Trial) -> str:
    minutes = counted(max(1, round(total.left / trial.rate)), "minute")
    longest = max((job.left for job in jobs), default=0)
    return (
        f"Nothing was sent. {counted(total.left, 'build')} would be, at most {trial.rate:g} a minute: in {minutes} or "
        f"more. Those of a job wait for each other, and each for polling.grace_period; the largest job has {longest}."
    )


def _as_json(report: BackfillReport, jobs: list[JobTotals], exit_code: int, trial: Trial | None) -> dict[str, Any]:
    total = _total(jobs)
    status = "checked" if trial else "stopped" if report.left else "done"
    return {
        "status": status,
        "exit_code": exit_code,
        "builds": _builds(total),
        "files": _files(total),
        "left_out": {"other": report.left_out.other, "links": report.left_out.links},
        "jobs": [
            {
                "job_id": job.job_id,
                "first_build_no": job.first_no,
                "last_build_no": job.last_no,
                "builds": _builds(job),
                "files": _files(job),
            }
            for job in jobs
        ],
        "messages": [
            {"job_id": job_id, "build_no": build_no, "name": name or None, "message": message}
            for job_id, build_no, name, message in report.state.problems(LISTED_MESSAGES)
        ],
        "problems": report.problems,
        **({"validated": {name: getattr(trial, name) for name in _VALIDATED}} if trial else {}),
    }


def _builds(job: JobTotals) -> dict[str, int]:
    by_name = {name: job.builds.get(progress, 0) for name, progress in _BUILDS.items()}
    return {"found": job.found, **by_name, "left": job.left, "without_files": job.without_files}


def _files(job: JobTotals) -> dict[str, int]:
    return {name: getattr(job, name) for name in ("files", "bytes", "sent", "rejected", "skipped", "tests", "failures")}
