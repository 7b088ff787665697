"""The history of a job: what counts as flaky, what as slow, and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.case_history import MAX_LISTED, BuildCases, JobHistory, ReportCases, job_history, slot_of
from bridge.domain.junit.case_digest import FAILED, FLAKY_CASE, PASSED, SKIPPED_CASE, CaseResult

SECOND = 1_000_000


def case(name: str, verdict: str = PASSED, seconds: float | None = None) -> CaseResult:
    return CaseResult(f"C\x1f{name}", verdict, None if seconds is None else round(seconds * SECOND))


def report(*cases: CaseResult, name: str = "TEST-a.xml", node: str = "n1", number: int = 1) -> ReportCases:
    return ReportCases(report_id=number, slot=slot_of(node, name), cases=cases)


def build(number: int, *reports: ReportCases, commit: str | None = "c1") -> BuildCases:
    return BuildCases(build_no=number, commit=commit, reports=reports)


def flaky(*builds: BuildCases) -> list[tuple[str, bool]]:
    return [(found.name, found.is_retry) for found in job_history(builds).flaky]


def slow(history: JobHistory) -> list[str]:
    return [found.name for found in history.slow]


@pytest.mark.parametrize(
    ("builds", "expected"),
    [
        pytest.param(
            [build(1, report(case("a", FAILED))), build(2, report(case("a")))],
            [("a", False)],
            id="builds of one commit",
        ),
        pytest.param(
            [build(1, report(case("a", FAILED))), build(2, report(case("a")), commit="c2")], [], id="another commit"
        ),
        pytest.param(
            [build(1, report(case("a", FAILED)), commit=None), build(2, report(case("a")), commit=None)],
            [],
            id="no commit",
        ),
        pytest.param([build(1, report(case("a", FAILED), case("a")))], [("a", True)], id="a retry in one file"),
        pytest.param([build(1, report(case("a", FLAKY_CASE)))], [("a", True)], id="the report states it"),
        pytest.param(
            [build(1, report(case("a", FAILED), name="run-1.xml"), report(case("a"), name="run-2.xml"))],
            [("a", True)],
            id="a retry in a file of its own",
        ),
        pytest.param(
            [build(1, report(case("a", FAILED), name="chrome.xml"), report(case("a"), name="firefox.xml"))],
            [],
            id="two browsers",
        ),
        pytest.param(
            [build(1, report(case("a", FAILED), node="arm"), report(case("a"), node="x86"))], [], id="two nodes"
        ),
        pytest.param(
            [build(1, report(case("a", FAILED))), build(2, report(case("a", SKIPPED_CASE)))], [], id="skipped"
        ),
        pytest.param([build(1, report(case("a", FAILED))), build(2, report(case("a", FAILED)))], [], id="always red"),
        pytest.param(
            [build(number, report(case("a", FAILED), case("a"))) for number in (1, 2, 3)],
            [],
            id="two tests of one name",
        ),
        pytest.param(
            [
                build(1, report(case("a", FAILED), case("a"))),
                build(2, report(case("a"), case("a"))),
                build(3, report(case("a", FAILED), case("a"))),
            ],
            [("a", False)],
            id="two tests of one name, one of them flaky",
        ),
        pytest.param(
            [build(1, report(case("a", FAILED), case("a"))), build(2, report(case("a")))],
            [("a", False)],
            id="a retry, and a build without one",
        ),
    ],
)
def test_flaky_is_what_failed_and_passed_although_nothing_changed(
    builds: list[BuildCases], expected: list[tuple[str, bool]]
) -> None:
    assert flaky(*builds) == expected


def test_a_flaky_test_is_shown_with_both_runs_and_how_often() -> None:
    builds = [
        build(1, report(case("a"), number=11)),
        build(2, report(case("a", FAILED), number=12)),
        build(3, report(case("a"), number=13), commit="c2"),
        build(4, report(case("a", FAILED), number=14), commit="c2"),
    ]
    (found,) = job_history(builds).flaky
    assert (found.failed, found.passed, found.commit) == ((4, 14), (3, 13), "c2")
    assert (found.times, found.failures, found.runs) == (2, 2, 4)


def test_builds_without_a_commit_are_counted() -> None:
    assert job_history([build(1, report(case("a")), commit=None), build(2, report(case("a")))]).without_commit == 1


def runs(*seconds: float, others: int = 12) -> list[BuildCases]:
    """Return builds in which `a` took so long, beside others that always take as long."""
    steady = [case(f"o{number}", seconds=1) for number in range(others)]
    return [build(number, report(case("a", seconds=each), *steady)) for number, each in enumerate(seconds, 1)]


@pytest.mark.parametrize(
    ("seconds", "is_slow"),
    [
        pytest.param((1, 1, 1, 1, 9), True, id="nine times the median"),
        pytest.param((1, 9, 1, 1, 1), True, id="in an older build"),
        pytest.param((1, 1, 1, 9), False, id="too few runs"),
        pytest.param((0.01, 0.01, 0.01, 0.01, 0.9), False, id="less than a second longer"),
        pytest.param((10, 10, 10, 10, 25), False, id="less than three times the median"),
        pytest.param((9, 9, 9, 1, 1), False, id="faster than before"),
    ],
)
def test_slow_is_what_took_several_times_its_median_and_much_longer(seconds: tuple[float, ...], is_slow: bool) -> None:  # noqa: FBT001
    assert slow(job_history(runs(*seconds))) == (["a"] if is_slow else [])


def test_a_slow_machine_makes_no_test_slow() -> None:
    builds = [
        build(number, report(*(case(f"o{one}", seconds=9 if number == 5 else 1) for one in range(12))))
        for number in range(1, 7)
    ]
    history = job_history(builds)
    assert slow(history) == []
    (found,) = history.slow_builds
    assert (found.build_no, found.slow, found.timed) == (5, 12, 12)


def test_a_slow_test_is_shown_with_its_median() -> None:
    (found,) = job_history(runs(1, 1, 1, 1, 9)).slow
    assert (found.run.build_no, found.time_us, found.median_us) == (5, 9 * SECOND, SECOND)
    assert (found.slow_runs, found.runs) == (1, 5)


def test_lists_are_bounded_and_counted() -> None:
    cases = [case(f"t{number}", verdict) for number in range(MAX_LISTED + 9) for verdict in (FAILED, PASSED)]
    history = job_history([build(1, report(*cases))])
    assert (len(history.flaky), history.flaky_total) == (MAX_LISTED, MAX_LISTED + 9)


def test_nothing_gives_nothing() -> None:
    assert job_history([]) == JobHistory(
        builds=(),
        cases=0,
        without_commit=0,
        flaky=(),
        flaky_total=0,
        slow=(),
        slow_total=0,
        slow_builds=(),
        unstable=(),
    )


CASES = st.lists(
    st.builds(
        case,
        st.sampled_from(["a", "b", "c 1", "c 2"]),
        st.sampled_from([PASSED, FAILED, SKIPPED_CASE, FLAKY_CASE]),
        st.none() | st.floats(0, 100),
    ),
    max_size=6,
)


@given(st.lists(st.tuples(CASES, st.sampled_from([None, "c1", "c2"])), max_size=8))
def test_whatever_was_uploaded_a_flaky_test_has_failed_and_passed(
    builds: list[tuple[list[CaseResult], str | None]],
) -> None:
    history = job_history(
        [build(number, report(*cases), commit=commit) for number, (cases, commit) in enumerate(builds)]
    )
    for found in history.flaky:
        assert found.runs > 0
        assert found.is_retry == (found.failed.build_no == found.passed.build_no)
    for each in history.slow:
        assert each.time_us > each.median_us
