"""What the last builds of a job show of its tests: for the console's page, and GET /api/v1/tests."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypedDict

from aiohttp import web

from bridge.domain.case_history import BuildCases, CaseRun, JobHistory, ReportCases, job_history, slot_of
from bridge.domain.instants import SECOND
from bridge.domain.junit.case_digest import CaseResult, read_digest
from bridge.domain.unstable_names import UnstableNames
from bridge.errors import Unavailable
from bridge.server.admin.params import read_tests_query
from bridge.server.http.responses import large_json_response
from bridge.store.case_history import JobDigests, RecentJob, StoredDigest, job_digests, recent_jobs
from bridge.store.engine.base import Database
from bridge.values import dataclass

MAX_CASES: Final = 100_000
"""Of all builds: half a second of work."""

MAX_WAITING: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class JobTests:
    """The history of a job, and whether there was more than is looked at."""

    job_name: str | None
    route: str
    history: JobHistory
    cut: bool


class TestHistory:
    """Reads the history of jobs, one at a time, in a thread of its own: apart from those that uploads need."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, "tests")
        self._waiting = 0

    async def jobs(self) -> list[RecentJob]:
        """Return the jobs that built recently, the newest first."""
        return await self._database.read(recent_jobs)

    async def of_job(self, job_id: str, builds: int) -> JobTests:
        """Return what the last `builds` builds of a job show; raise Unavailable if too many ask."""
        if self._waiting >= MAX_WAITING:
            raise Unavailable("Other pages of tests are being made. Reload this one in a moment.")
        self._waiting += 1
        try:
            found = await self._database.read(job_digests, job_id, builds)
            return await asyncio.get_running_loop().run_in_executor(self._thread, _job_tests, found)
        finally:
            self._waiting -= 1

    async def close(self, _app: web.Application) -> None:
        """End the thread; what waits is given up."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _job_tests(found: JobDigests) -> JobTests:
    room, cut, builds = MAX_CASES, found.cut, []
    for build in reversed(found.builds):  # the newest first, while there is room
        reports = []
        for stored in build.reports:
            digest = read_digest(stored.digest, room)
            room -= len(digest.cases)
            cut |= digest.cut
            reports.append(_report(stored, digest.cases))
        if not room:
            cut = True
            break
        builds.append(BuildCases(build_no=build.build_no, commit=build.commit, reports=reports))
    return JobTests(job_name=found.job_name, route=found.route, history=job_history(builds[::-1]), cut=cut)


def _report(stored: StoredDigest, cases: list[CaseResult]) -> ReportCases:
    return ReportCases(report_id=stored.report_id, slot=slot_of(stored.node_id, stored.name), cases=cases)


# -- the API -----------------------------------------------------------------------------------------------------


class CaseRunView(TypedDict):
    """Where a test ran."""

    build_no: int
    report_id: int


class FlakyTestView(TypedDict):
    """A test that failed and passed within one build, or in two builds of one commit."""

    classname: str
    name: str
    within: str
    commit: str | None
    failed: CaseRunView
    passed: CaseRunView
    times: int
    failures: int
    runs: int


class SlowTestView(TypedDict):
    """A test of which runs took much longer than its median; times are in seconds."""

    classname: str
    name: str
    run: CaseRunView
    time: float
    median: float
    slow_runs: int
    runs: int


class SlowBuildView(TypedDict):
    """A build in which most tests took longer."""

    build_no: int
    slow: int
    timed: int


class RewriteRuleView(TypedDict):
    """A rule for `[[routes.rewrite]]`, and what it would do between two builds."""

    attribute: str
    pattern: str
    replacement: str
    toml: str
    changed: int
    cured: int
    equal: int


class UnstableNamesView(TypedDict):
    """Names that change from build to build, and the rule that cures it, if there is one."""

    attribute: str
    kind: str
    sentence: str
    names: int
    changes: int
    before: str
    after: str
    rule: RewriteRuleView | None


class JobTestsView(TypedDict):
    """What the last builds of a job show of its tests."""

    job_id: str
    job_name: str | None
    route: str
    builds: list[int]
    cases: int
    without_commit: int
    cut: bool
    flaky: list[FlakyTestView]
    flaky_total: int
    slow: list[SlowTestView]
    slow_total: int
    slow_builds: list[SlowBuildView]
    unstable_names: list[UnstableNamesView]


class TestsApi:
    """Handler of /api/v1/tests."""

    def __init__(self, tests: TestHistory) -> None:
        self._tests = tests

    def add_routes(self, app: web.Application) -> None:
        """Add the handler to `app`."""
        app.on_cleanup.append(self._tests.close)
        app.router.add_get("/api/v1/tests", self.tests)

    async def tests(self, request: web.Request) -> web.Response:
        """Return flaky and slow tests of a job, and names that change from build to build."""
        job_id, builds = read_tests_query(request.query)
        return await large_json_response(_view(job_id, await self._tests.of_job(job_id, builds)))


def _view(job_id: str, found: JobTests) -> JobTestsView:
    history = found.history
    return {
        "job_id": job_id,
        "job_name": found.job_name,
        "route": found.route,
        "builds": list(history.builds),
        "cases": history.cases,
        "without_commit": history.without_commit,
        "cut": found.cut,
        "flaky": [
            {
                "classname": case.classname,
                "name": case.name,
                "within": "build" if case.is_retry else "commit",
                "commit": case.commit,
                "failed": _run_view(case.failed),
                "passed": _run_view(case.passed),
                "times": case.times,
                "failures": case.failures,
                "runs": case.runs,
            }
            for case in history.flaky
        ],
        "flaky_total": history.flaky_total,
        "slow": [
            {
                "classname": case.classname,
                "name": case.name,
                "run": _run_view(case.run),
                "time": case.time_us / SECOND,
                "median": case.median_us / SECOND,
                "slow_runs": case.slow_runs,
                "runs": case.runs,
            }
            for case in history.slow
        ],
        "slow_total": history.slow_total,
        "slow_builds": [
            {"build_no": build.build_no, "slow": build.slow, "timed": build.timed} for build in history.slow_builds
        ],
        "unstable_names": [_unstable_view(each) for each in history.unstable],
    }


def _run_view(run: CaseRun) -> CaseRunView:
    return {"build_no": run.build_no, "report_id": run.report_id}


def _unstable_view(found: UnstableNames) -> UnstableNamesView:
    trial = found.trial
    rule: RewriteRuleView | None = None
    if trial is not None:
        rule = {
            "attribute": trial.rule.attribute,
            "pattern": trial.rule.pattern,
            "replacement": trial.rule.replacement,
            "toml": trial.toml,
            "changed": trial.changed,
            "cured": trial.cured,
            "equal": trial.equal,
        }
    return {
        "attribute": found.attribute,
        "kind": found.kind,
        "sentence": found.sentence,
        "names": found.names,
        "changes": found.changes,
        "before": found.before,
        "after": found.after,
        "rule": rule,
    }
