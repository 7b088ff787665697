"""What the last builds of a job show of its tests: flaky ones, slow ones, and names that change from build to build."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from bridge.domain.junit.case_digest import FAILED, FIELD, FLAKY_CASE, PASSED, CaseResult
from bridge.domain.junit.name_tokens import tokens_of
from bridge.domain.unstable_names import UnstableNames, find_unstable_names
from bridge.values import dataclass

MAX_LISTED: Final = 50
"""Flaky tests, and slow ones."""

MIN_RUNS: Final = 5
"""Durations of a test from which its median is taken."""

SLOW_FACTOR: Final = 3
SLOW_FLOOR_US: Final = 1_000_000
"""A slow run took so many times the median, and so much longer."""

MIN_TIMED: Final = 10
SLOW_BUILD_FACTOR: Final = 2
"""A build was slow as a whole if half of its tests, and at least ten, took so many times their medians."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportCases:
    """The cases of one report; `slot` is the node and name that the same report has in other builds."""

    report_id: int
    slot: str
    cases: Sequence[CaseResult]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildCases:
    """The cases of one build."""

    build_no: int
    commit: str | None
    reports: Sequence[ReportCases]


class CaseRun(NamedTuple):
    """Where a test ran."""

    build_no: int
    report_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FlakyCase:
    """A test that failed and passed although nothing was changed."""

    classname: str
    name: str
    is_retry: bool  # in one build; otherwise in two builds of one commit
    commit: str | None
    failed: CaseRun  # the newest case of this
    passed: CaseRun
    times: int  # builds, or commits, in which it was seen
    failures: int  # of its runs in all builds
    runs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowCase:
    """A test of which a run took much longer than its median."""

    classname: str
    name: str
    run: CaseRun  # the newest slow one
    time_us: int
    median_us: int
    slow_runs: int
    runs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowBuild:
    """A build in which most tests took longer: the machine, not the tests."""

    build_no: int
    slow: int
    timed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class JobHistory:
    """What the builds of a job show, newest and most frequent first."""

    builds: tuple[int, ...]  # numbers, oldest first
    cases: int
    without_commit: int  # builds
    flaky: tuple[FlakyCase, ...]
    flaky_total: int
    slow: tuple[SlowCase, ...]
    slow_total: int
    slow_builds: tuple[SlowBuild, ...]
    unstable: tuple[UnstableNames, ...]


def slot_of(node_id: str, report_name: str) -> str:
    """Return what a report has in common with those of other builds: times and ids in its file name are left out."""
    parts, at = [], 0
    for token in tokens_of(report_name):
        parts.append(report_name[at : token.start])
        at = token.end
    return f"{node_id}{FIELD}{'*'.join((*parts, report_name[at:]))}"


def job_history(builds: Sequence[BuildCases]) -> JobHistory:
    """Return what the builds show; the oldest comes first."""
    flaky = sorted(_flaky(builds), key=lambda case: (-case.failed.build_no, -case.times, case.classname, case.name))
    slow, slow_builds = _slow(builds)
    names = [[case.identity for report in build.reports for case in report.cases] for build in builds]
    return JobHistory(
        builds=tuple(build.build_no for build in builds),
        cases=sum(map(len, names)),
        without_commit=sum(1 for build in builds if not build.commit),
        flaky=tuple(flaky[:MAX_LISTED]),
        flaky_total=len(flaky),
        slow=tuple(slow[:MAX_LISTED]),
        slow_total=len(slow),
        slow_builds=tuple(slow_builds),
        unstable=tuple(find_unstable_names(names)),
    )


# -- flaky -------------------------------------------------------------------------------------------------------


class _Outcome(NamedTuple):
    """How a test ended in one build: its newest runs that failed and passed, and how many there were of each."""

    build: BuildCases
    failed: CaseRun | None = None
    passed: CaseRun | None = None
    failures: int = 0
    passes: int = 0
    is_stated: bool = False  # the report itself states that it failed before it passed


def _flaky(builds: Sequence[BuildCases]) -> Iterator[FlakyCase]:
    suspects = {
        case.identity
        for build in builds
        for report in build.reports
        for case in report.cases
        if case.verdict in (FAILED, FLAKY_CASE)
    }
    failures, runs = Counter[str](), Counter[str]()
    # Several reports may have a test of one name, such as those of several browsers: each is compared with itself.
    outcomes: dict[str, dict[str, list[_Outcome]]] = defaultdict(lambda: defaultdict(list))
    for build in builds:
        for (slot, identity), outcome in _outcomes(build, suspects, failures, runs).items():
            outcomes[identity][slot].append(outcome)
    for identity, by_slot in outcomes.items():
        seen = [found for of_slot in by_slot.values() for found in _changes(of_slot)]
        if seen:
            is_retry, failed, passed, commit = max(seen, key=lambda one: (max(one[1], one[2]), not one[0]))
            classname, _, name = identity.partition(FIELD)
            yield FlakyCase(
                classname=classname,
                name=name,
                is_retry=is_retry,
                commit=commit,
                failed=failed,
                passed=passed,
                times=len({(one[0], one[1].build_no if one[0] else one[3]) for one in seen}),
                failures=failures[identity],
                runs=runs[identity],
            )


def _outcomes(
    build: BuildCases, suspects: set[str], failures: Counter[str], runs: Counter[str]
) -> dict[tuple[str, str], _Outcome]:
    found: dict[tuple[str, str], _Outcome] = {}
    for report in build.reports:
        run = CaseRun(build.build_no, report.report_id)
        for identity, verdict, _ in report.cases:
            if identity not in suspects or verdict not in (FAILED, PASSED, FLAKY_CASE):
                continue
            runs[identity] += 1
            failures[identity] += verdict == FAILED
            has_failed, has_passed = verdict != PASSED, verdict != FAILED
            known = found.get((report.slot, identity), _Outcome(build))
            found[report.slot, identity] = _Outcome(
                build,
                failed=run if has_failed else known.failed,
                passed=run if has_passed else known.passed,
                failures=known.failures + has_failed,
                passes=known.passes + has_passed,
                is_stated=known.is_stated or verdict == FLAKY_CASE,
            )
    return found


def _changes(outcomes: Sequence[_Outcome]) -> Iterator[tuple[bool, CaseRun, CaseRun, str | None]]:
    """Yield where a test failed and passed in one build, and where in two builds of one commit."""
    numbers = {each.failures + each.passes for each in outcomes}
    # The same number of cases in each build: several tests have the name. Retries come only with failures.
    are_several = len(outcomes) > 1 and len(numbers) == 1 and numbers != {1}
    by_commit: dict[str, list[_Outcome]] = defaultdict(list)
    for each in outcomes:
        if each.failed and each.passed and (each.is_stated or not are_several):
            yield True, each.failed, each.passed, each.build.commit
        if each.build.commit:
            by_commit[each.build.commit].append(each)
    for commit, same in by_commit.items():
        if are_several and len({each.failures for each in same}) == 1:
            continue
        failed = max((each.failed for each in same if each.failed), default=None)
        passed = max((each.passed for each in same if each.passed and each.failed != failed), default=None)
        if failed and passed and failed.build_no != passed.build_no:
            yield False, failed, passed, commit


# -- slow --------------------------------------------------------------------------------------------------------


class _Timed(NamedTuple):
    time_us: int
    run: CaseRun


def _slow(builds: Sequence[BuildCases]) -> tuple[list[SlowCase], list[SlowBuild]]:
    times: dict[tuple[str, str], list[_Timed]] = defaultdict(list)
    for build in builds:
        for report in build.reports:
            run = CaseRun(build.build_no, report.report_id)
            for identity, verdict, time_us in report.cases:
                if time_us is not None and verdict in (PASSED, FAILED, FLAKY_CASE):
                    times[report.slot, identity].append(_Timed(time_us, run))
    enough = {key: found for key, found in times.items() if len(found) >= MIN_RUNS}
    medians = {key: sorted(each.time_us for each in found)[len(found) // 2] for key, found in enough.items()}
    slow_builds = list(_slow_builds(enough, medians))
    left_out = {each.build_no for each in slow_builds}
    found = [case for key, runs in enough.items() if (case := _slow_case(key[1], runs, medians[key], left_out))]
    return sorted(found, key=lambda case: case.median_us - case.time_us), slow_builds


def _slow_builds(
    times: Mapping[tuple[str, str], Sequence[_Timed]], medians: Mapping[tuple[str, str], int]
) -> Iterator[SlowBuild]:
    timed, slow = Counter[int](), Counter[int]()
    for key, runs in times.items():
        for time_us, run in runs:
            timed[run.build_no] += 1
            slow[run.build_no] += time_us > SLOW_BUILD_FACTOR * medians[key]
    for build_no, count in sorted(timed.items()):
        if count >= MIN_TIMED and slow[build_no] * 2 >= count:
            yield SlowBuild(build_no=build_no, slow=slow[build_no], timed=count)


def _slow_case(identity: str, runs: Sequence[_Timed], median_us: int, left_out: set[int]) -> SlowCase | None:
    limit = max(SLOW_FACTOR * median_us, median_us + SLOW_FLOOR_US)
    slow = [each for each in runs if each.time_us > limit and each.run.build_no not in left_out]
    if not slow:
        return None
    newest = max(slow, key=lambda each: (each.run, each.time_us))
    classname, _, name = identity.partition(FIELD)
    return SlowCase(
        classname=classname,
        name=name,
        run=newest.run,
        time_us=newest.time_us,
        median_us=median_us,
        slow_runs=len(slow),
        runs=len(runs),
    )
