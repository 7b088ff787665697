"""Runs `bridge backfill`: finds past builds, sends them oldest first, and reports what was found, sent and rejected."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Final

from bridge.clock import SystemClock
from bridge.commands.backfill.build_sender import BuildSender, Setback, SetbackKind, examine
from bridge.commands.backfill.report import BackfillReport, Trial, print_report
from bridge.commands.backfill.sources import FoundReport, LeftOut, Template, find_in_folder, unpack_archive
from bridge.commands.backfill.state import BackfillState, BuildEnd, BuildProgress, StoredBuild
from bridge.commands.upload.ci_build import CHINA, is_sendable
from bridge.commands.upload.gateway_client import GatewayClient
from bridge.commands.upload.run import EXIT_AWAY, EXIT_REJECTED, EXIT_SENT, Notes, open_client
from bridge.domain.instants import DAY, Instant
from bridge.domain.routing import canonical_job_id
from bridge.domain.text_format import counted, printable
from bridge.errors import BadParameter, BridgeError
from bridge.server.http.requests import is_job_id
from bridge.values import dataclass

if TYPE_CHECKING:
    from bridge.commands.codearts_lists import CodeArtsLists

JOBS_AT_ONCE: Final = 4
STATE_SUFFIX: Final = ".backfill"
HISTORY_STATE: Final = "codearts-history.backfill"
HISTORY_DAYS: Final = 365
PROGRESS_SECONDS: Final = 30.0
EXIT_INTERRUPTED: Final = 130
UNSENT: Final = (BuildProgress.KNOWN, BuildProgress.EMPTY)  # they do not count for the rate


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillOptions:
    """The options of the command; `rate` is builds a minute, `budget` seconds in which nothing moves."""

    source: Path | None
    template: str
    jobs: Sequence[str]  # whose history is read from CodeArts
    since: str  # a day
    project_id: str  # of all builds; empty: not stated
    state: Path | None
    rate: float
    budget: float
    url: str | None
    token_file: Path | None
    config: Path
    dry_run: bool
    json_wanted: bool


def backfill(options: BackfillOptions, environ: Mapping[str, str] = os.environ) -> int:
    """Send past builds; return the exit code. Raise BridgeError or OSError if that cannot begin."""
    jobs = [_job_id(text) for text in options.jobs]
    _require_sources(options)
    template = Template(options.template, job_id=jobs[0] if len(jobs) == 1 else "") if options.source else None
    since = _since(options.since)
    client = None if options.dry_run else open_client(options.url, options.token_file, environ)
    note = Notes(json_wanted=options.json_wanted)
    with _open_state(options, jobs) as state:
        found = _Finder(options=options, state=state, note=note)
        left_out = found.scan(template, jobs)
        found.read_history(jobs, since)
        report = BackfillReport(state=state, left_out=left_out, with_files=template is not None)
        if not report.jobs():
            raise BridgeError(_nothing_found(options, left_out))
        if client is None:
            return _try(options, state, report)
        run = _Run(options=options, client=client, state=state, note=note, with_files=template is not None)
        return _send(run, report)


def _require_sources(options: BackfillOptions) -> None:
    if options.project_id and not is_job_id(options.project_id):
        raise BadParameter(f"--project: {options.project_id} is not 32 digits and letters. Take them from its address.")
    if options.source is not None and not options.source.exists():
        raise BadParameter(f"{options.source} does not exist. Name a folder with reports, or an archive of them.")
    if options.source is None and not options.jobs:
        raise BadParameter("Name a folder or an archive with reports, or jobs with --job, or both.")


def _try(options: BackfillOptions, state: BackfillState, report: BackfillReport) -> int:
    """Print what a backfill would send."""
    trial = Trial(rate=options.rate)
    for file in state.files_left():
        trial.add(examine([file]))
    print_report(report, json_wanted=options.json_wanted, exit_code=EXIT_SENT, trial=trial)
    return EXIT_SENT


def _send(run: "_Run", report: BackfillReport) -> int:
    """Send all builds that are left, and print what became of them; return the exit code."""
    code = run.send()
    report.problems = run.problems
    code = code or (EXIT_REJECTED if report.has_rejections else EXIT_SENT)
    if not report.left:
        run.state.unpacked.unlink(missing_ok=True)
    print_report(report, json_wanted=run.options.json_wanted, exit_code=code)
    return code


def _nothing_found(options: BackfillOptions, left_out: LeftOut) -> str:
    if options.source is None:
        return "CodeArts lists no build of these jobs in that time. Check the ids, or begin earlier with --since."
    example = f", but for example {printable(left_out.example)}" if left_out.example else ""
    return (
        f"{options.source} has no report at {options.template}{example}. "
        "Describe its paths with --template, such as '{job}/builds/{no}/…'; {job} has 32 digits and letters."
    )


def _job_id(text: str) -> str:
    if not is_job_id(text):
        raise BadParameter(f"--job: {text} is not 32 digits and letters. Take them from the build task's address.")
    return canonical_job_id(text)


def _since(text: str) -> Instant | None:
    """Return the beginning of a day in China, whose clock CodeArts uses."""
    if not text:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=CHINA)
    except ValueError:
        raise BadParameter(f"--since: {text} is not a day. Write it like 2026-01-31.") from None
    return Instant(int(day.timestamp()) * 1_000_000)


@contextmanager
def _open_state(options: BackfillOptions, jobs: Sequence[str]) -> Iterator[BackfillState]:
    """Open the state file; a --dry-run without one uses a temporary one."""
    source = Path(os.path.abspath(options.source)) if options.source else None  # noqa: PTH100 -- keeps links
    path = options.state or (source.parent / f"{source.name}{STATE_SUFFIX}" if source else Path(HISTORY_STATE))
    settings = {
        "source": str(source or ""),
        "template": options.template if source else "",
        "jobs": " ".join(sorted(jobs)),
        "since": options.since,
    }
    if options.dry_run and not path.exists():
        with (
            TemporaryDirectory(prefix="bridge-backfill-") as folder,
            BackfillState(Path(folder) / "state", settings) as state,
        ):
            yield state
        return
    with BackfillState(path, settings) as state:
        yield state


@dataclass(kw_only=True, slots=True)
class _Finder:
    """Finds builds, and writes them to the state."""

    options: BackfillOptions
    state: BackfillState
    note: Notes

    def scan(self, template: Template | None, jobs: Sequence[str]) -> LeftOut:
        """Find the reports in the source; those of other jobs than `jobs` are left out, unless it is empty."""
        left_out = LeftOut()
        source = self.options.source
        if template is None or source is None:
            return left_out
        if source.is_dir():
            self.state.replace_files(_of_jobs(find_in_folder(source.absolute(), template, left_out), jobs, left_out))
            return left_out
        status = source.stat()
        stamp = f"{status.st_size} {status.st_mtime_ns}"
        known, _, counts = (self.state.note("unpacked") or "").partition(": ")
        if known == stamp and (self.state.unpacked.exists() or not self._has_left()):
            other, links = map(int, counts.split())
            return LeftOut(other=other, links=links)
        self.note(f"Unpacking the reports of {source} to {self.state.unpacked}.")
        with self.state.unpacked.open("wb") as out:
            self.state.replace_files(_of_jobs(unpack_archive(source, template, out, left_out), jobs, left_out))
            out.flush()
            os.fsync(out.fileno())
        self.state.set_note("unpacked", f"{stamp}: {left_out.other} {left_out.links}")
        return left_out

    def _has_left(self) -> bool:
        return bool(self.state.next_builds(with_files=True))

    def read_history(self, jobs: Sequence[str], since: Instant | None) -> None:
        """Read what CodeArts has of the builds of `jobs`, and their names, unless an earlier run has."""
        project = self.options.project_id
        wanted = [job_id for job_id in jobs if not self.state.has_history(job_id)]
        unnamed = [job_id for job_id in jobs if project and not self.state.has_job_name(project, job_id)]
        if wanted or unnamed:
            asyncio.run(self._read_history(wanted, since, unnamed))

    async def _read_history(self, jobs: Sequence[str], since: Instant | None, unnamed: Sequence[str]) -> None:
        from bridge.commands.codearts_lists import open_lists  # noqa: PLC0415 -- only if a history is wanted
        from bridge.commands.config import read_settings  # noqa: PLC0415

        now = SystemClock().now()
        async with open_lists(read_settings(self.options.config)) as lists:
            for job_id in jobs:
                self.note(f"Reading the history of job {job_id} from CodeArts.")
                listed = await lists.builds_of(job_id, since or Instant(now - HISTORY_DAYS * DAY), now)
                self.state.add_history(job_id, listed)
            if unnamed:
                await self._read_names(lists, unnamed)

    async def _read_names(self, lists: "CodeArtsLists", jobs: Sequence[str]) -> None:
        """Read the names of jobs from the list of their project, because a history has none."""
        project = self.options.project_id
        names = {canonical_job_id(job.job_id): job.job_name or "" for job in await lists.jobs_of(project)}
        for job_id in jobs:
            if job_id not in names:
                self.note(f"Project {project} has no job {job_id}, so the name of the job is not sent.")
            name = names.get(job_id, "")
            self.state.set_job_name(project, job_id, name if is_sendable(name) else "")


def _of_jobs(found: Iterator[FoundReport], jobs: Sequence[str], left_out: LeftOut) -> Iterator[FoundReport]:
    for report in found:
        if jobs and report.match.job_id not in jobs:
            left_out.add(report.place)
        else:
            yield report


@dataclass(kw_only=True)
class _Run:
    """Sends the builds of several jobs side by side, and those of one job one after the other, by their numbers."""

    options: BackfillOptions
    client: GatewayClient
    state: BackfillState
    note: Notes
    with_files: bool
    problems: list[str] = field(default_factory=list)
    _aside: dict[str, Setback] = field(default_factory=dict)  # jobs that are not continued
    _stop: Setback | None = None
    _sent: int = 0
    _next_start: float = 0.0  # of time.monotonic
    _in_flight: dict[str, StoredBuild] = field(default_factory=dict)
    _ends: "SimpleQueue[tuple[StoredBuild, BuildEnd | Setback | Exception]]" = field(default_factory=SimpleQueue)

    def send(self) -> int:
        """Send all builds that are left; return the exit code, which does not count rejections."""
        total = sum(job.left for job in self.state.totals(with_files=self.with_files))
        if total:
            rate = f"at most {self.options.rate:g} a minute, {JOBS_AT_ONCE} jobs at once"
            self.note(f"Sending {counted(total, 'build')} to {self.client.url}, {rate}. State: {self.state.path}")
        try:
            with self.note.bar(total) as advance:
                self._send(total, advance)
        except KeyboardInterrupt:
            self.problems.append("Interrupted. The same command goes on where it ended.")
            return EXIT_INTERRUPTED
        return self._code()

    def _send(self, total: int, advance: Callable[[int], None]) -> None:
        sender = BuildSender(
            client=self.client,
            state=self.state,
            note=self.note,
            budget=self.options.budget,
            project_id=self.options.project_id,
        )
        next_line = time.monotonic() + PROGRESS_SECONDS
        while True:
            heads = [] if self._stop else self._heads()
            if not heads and not self._in_flight:
                return
            now = time.monotonic()
            if heads and now >= self._next_start and len(self._in_flight) < JOBS_AT_ONCE:
                self._start(sender, heads[0])
                self._next_start = max(self._next_start, now) + 60.0 / self.options.rate
                continue
            is_full = not heads or len(self._in_flight) >= JOBS_AT_ONCE
            self._take_end(PROGRESS_SECONDS if is_full else max(0.0, self._next_start - now), advance)
            if time.monotonic() >= next_line and not sys.stderr.isatty():
                self.note(f"{self._sent} of {counted(total, 'build')} sent.")
                next_line += PROGRESS_SECONDS

    def _heads(self) -> list[StoredBuild]:
        """Return the builds that may be sent now, oldest first."""
        heads = self.state.next_builds(with_files=self.with_files)
        return [build for build in heads if build.job_id not in self._in_flight and build.job_id not in self._aside]

    def _start(self, sender: BuildSender, build: StoredBuild) -> None:
        self._in_flight[build.job_id] = build
        files = self.state.files_of(build)

        def run() -> None:
            try:
                self._ends.put((build, sender.run(build, files)))
            except Exception as error:  # noqa: BLE001 -- raised in the main thread
                self._ends.put((build, error))

        Thread(target=run, daemon=True).start()  # it ends with the process

    def _take_end(self, seconds: float, advance: Callable[[int], None]) -> None:
        try:
            build, end = self._ends.get(timeout=seconds)
        except Empty:
            return
        del self._in_flight[build.job_id]
        match end:
            case BuildEnd():
                self.state.end(build, end)
                self._sent += end.progress is BuildProgress.SENT
                if end.progress in UNSENT:
                    self._next_start -= 60.0 / self.options.rate
                advance(1)
            case Setback(kind=SetbackKind.JOB):
                self._aside[build.job_id] = end
                self.note(f"Job {build.job_id} is set aside: {end.message}")
            case Setback():
                self._stop = self._stop or end
            case Exception():
                raise end

    def _code(self) -> int:
        setbacks = [*self._aside.values(), *([self._stop] if self._stop else [])]
        for job_id, setback in self._aside.items():
            self.problems.append(f"Job {job_id} was set aside: {setback.message}")
        if self._stop is not None:
            cause = "The gateway is away" if self._stop.kind is SetbackKind.AWAY else "The gateway refuses to go on"
            self.problems.append(f"{cause}: {self._stop.message.rstrip('.')}.")
        if any(setback.patience for setback in setbacks):
            return EXIT_AWAY
        return EXIT_REJECTED if setbacks else EXIT_SENT
