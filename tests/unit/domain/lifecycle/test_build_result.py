"""The result of a build beside its reports, as plan() sees it: after the grace period, before finalize."""

from dataclasses import replace

import pytest
import xmltodict

from bridge.domain.build import BuildState, EndReason
from bridge.domain.changes import AddReport, BumpReportSeq, apply
from bridge.domain.circuit_breaker import CODEARTS
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.build_end import after_poll
from bridge.domain.lifecycle.build_record import MAX_MISSING_ATTEMPTS
from bridge.domain.lifecycle.build_result import result_suite
from bridge.domain.outcomes import BuildInfo, NoSuchBuild, NotSent, Throttled
from bridge.domain.plan import plan
from bridge.domain.result_mismatch import MismatchKind
from bridge.domain.routing import ResultSuite, Route
from bridge.domain.steps import Apply, Execute, Finalize, Poll, Wait
from tests.support.builders import (
    ASKING,
    HOUR,
    MINUTE,
    NOW,
    ROUTE,
    RULES,
    a_build,
    breakers,
    dead,
    delivered,
    ended,
    finalized,
    opened,
    report,
    stored,
)

FINALIZE = Execute((Finalize(confirm=False),))
ASK = Execute((Poll(reserved=False),))
GREEN, RED = report(tests=3), report(tests=3, failures=1)
OURS = report(9, node_id="codearts-build", generated=True)
NO_FAILED_TEST, FAILED_TESTS, NO_REPORT = MismatchKind
OFF, MISMATCH, ALWAYS = ResultSuite
FAILED = {"build_result": "FAILURE", "result_mismatch": NO_FAILED_TEST}
COMPLETE = {"end_reason": EndReason.CALLER}


def step(build, *closed, suite=OFF, now=NOW, **route):
    policy = replace(ASKING, routes=(Route(name=ROUTE, result_suite=suite, **route),))
    return plan(build, now, policy, breakers(*closed))


def of(reports, *things, **values):
    """Return an ended build whose one delivery is done, with these reports."""
    return ended(delivered(), stored(), reports, *things, **{"polled_at": NOW - MINUTE, **values})


def added(found):
    """Return the name and the case of the report that a step adds."""
    assert isinstance(found, Apply)
    assert found.event == "result_suite_added"
    report_added, bump = found.changes
    assert isinstance(report_added, AddReport)
    assert isinstance(bump, BumpReportSeq)
    return report_added.report.name, case_of(report_added.body)


def case_of(body):
    return xmltodict.parse(body)["testsuite"]["testcase"]


# -- the mismatch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (of(GREEN, build_result="FAILURE"), NO_FAILED_TEST),
        (of(RED, build_result="SUCCESS"), FAILED_TESTS),
        (ended(build_result="FAILURE"), NO_REPORT),
        (ended(dead(), GREEN, build_result="FAILURE"), NO_FAILED_TEST),
        (finalized(delivered(), stored(), RED, build_result="SUCCESS"), FAILED_TESTS),
        (of(RED, build_result="SUCCESS", result_mismatch=NO_REPORT), FAILED_TESTS),
    ],
)
def test_a_mismatch_is_recorded_when_the_grace_period_is_over(build, kind):
    found = step(build)
    assert (found.event, apply(build, found.changes).result_mismatch) == ("result_mismatch_found", kind)
    assert found.reason.startswith("CodeArts says ")
    assert step(apply(build, found.changes)) != found


def test_within_the_grace_period_late_reports_are_waited_for():
    build = of(GREEN, build_result="FAILURE", ended_at=NOW - SECOND)
    assert step(build, suite=ALWAYS) == Wait(until=NOW + 9 * SECOND)


def test_a_late_red_report_ends_the_mismatch():
    found = step(of(RED, **FAILED))
    assert (found.event, apply(of(RED, **FAILED), found.changes).result_mismatch) == ("result_mismatch_cleared", None)


@pytest.mark.parametrize("reason", [EndReason.IDLE, EndReason.NOT_FOUND, EndReason.MAX_AGE])
def test_an_end_that_was_inferred_has_no_result_and_no_mismatch(reason):
    build = of(RED, end_reason=reason, ended_report_at=NOW - MINUTE)
    assert step(build, suite=ALWAYS) == FINALIZE


# -- the report --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "suite"),
    [
        (of(GREEN, **FAILED), OFF),
        (of(GREEN, build_result="SUCCESS"), MISMATCH),
        (of(RED, build_result="FAILURE"), MISMATCH),
        (of(GREEN), ALWAYS),
        (of(GREEN, OURS, **FAILED), MISMATCH),
        (of(GREEN, OURS, **FAILED), ALWAYS),
    ],
    ids=["off", "green and passed", "red and failed", "no result", "it has one", "it has one, always"],
)
def test_the_run_is_finalized_without_a_further_report(build, suite):
    assert step(build, suite=suite) == FINALIZE


@pytest.mark.parametrize("suite", [MISMATCH, ALWAYS])
def test_a_mismatch_is_a_failed_case_before_finalize(suite):
    name, case = added(step(of(GREEN, **FAILED), suite=suite))
    assert (name, case["@classname"], case["@name"]) == ("codearts-build.xml", "codearts-build", "build result")
    assert case["failure"]["@message"].startswith("CodeArts says FAILURE, but none of the 3 tests in 1 report failed.")
    assert case["failure"]["#text"] == case["failure"]["@message"]


def test_a_run_is_opened_for_a_build_of_which_no_report_was_accepted():
    build = ended(build_result="FAILURE", result_mismatch=NO_REPORT, rejected=("", ""))
    _, case = added(step(build, suite=MISMATCH))
    assert "no report was accepted (2 uploads were rejected)" in case["failure"]["@message"]


def test_a_report_that_is_called_the_same_but_was_uploaded_is_another():
    uploaded = report(9, node_id="codearts-build")
    assert added(step(of(GREEN, uploaded, **FAILED), suite=MISMATCH))


@pytest.mark.parametrize(
    ("build", "outcome", "words"),
    [
        (of(GREEN, build_result="SUCCESS"), None, ""),
        (of(RED, build_result="FAILURE"), "failure", "CodeArts says FAILURE, and 1 of 3 tests failed."),
        (of(RED, build_result="SUCCESS"), "failure", "CodeArts says SUCCESS, but 1 of 3 tests failed."),
        (of(RED, build_result="PAUSED"), "skipped", "CodeArts says PAUSED, which is neither"),
    ],
)
def test_always_has_a_case_that_shows_the_result(build, outcome, words):
    case = case_of(result_suite(build, always=True).body)
    assert [key for key in case if not key.startswith("@")] == ([outcome] if outcome else [])
    assert outcome is None or case[outcome]["@message"].startswith(words)


def test_the_result_is_written_as_text_however_it_looks():
    suite = result_suite(of(GREEN, build_result='FAIL<"&'), always=True)
    document = xmltodict.parse(suite.body)["testsuite"]
    assert {"@name": "build_result", "@value": 'FAIL<"&'} in document["properties"]["property"]
    assert (suite.counts.tests, suite.counts.failures) == (1, 1)


def test_no_run_is_opened_for_check_by_the_report_alone():
    build = ended(delivered(9), stored(1, 9), replace(OURS, tests=1), **(FAILED | {"result_mismatch": NO_REPORT}))
    assert step(build, suite=MISMATCH, code_check=RULES) == FINALIZE


# -- builds that an upload ends ----------------------------------------------------------------------------------------


def test_without_a_result_suite_the_result_is_asked_for_after_finalize():
    assert step(of(GREEN, **COMPLETE)) == FINALIZE
    done = finalized(delivered(), stored(), GREEN, **COMPLETE)
    assert step(done) == ASK
    assert step(done, now=NOW + 25 * HOUR) == Wait(until=None)


def test_with_a_result_suite_finalize_waits_for_the_result():
    build = of(GREEN, **COMPLETE)
    assert step(build, suite=MISMATCH) == ASK
    later = replace(build, poll_due_at=NOW + MINUTE)
    assert step(later, suite=MISMATCH) == Wait(until=NOW + MINUTE)


def test_finalize_does_not_wait_for_the_result_any_longer_than_for_late_reports():
    late = {"ended_at": NOW - ASKING.max_finalize_delay, "poll_due_at": NOW + MINUTE}
    assert step(of(GREEN, **COMPLETE, **late), suite=MISMATCH) == FINALIZE


def test_a_result_that_came_after_finalize_still_brings_the_report():
    values = COMPLETE | FAILED | {"finalized_at": NOW - MINUTE}
    assert added(step(finalized(delivered(), stored(), GREEN, polled_at=NOW, **values), suite=MISMATCH))
    assert step(finalized(delivered(), stored(), GREEN, polled_at=NOW - HOUR, **values), suite=MISMATCH) == Wait(
        until=None
    )


def test_codearts_that_is_away_delays_no_finalize_without_a_result_suite():
    assert step(of(GREEN, **COMPLETE), opened(CODEARTS)) == FINALIZE


def after(outcome, **values):
    build = finalized(delivered(), stored(), **{**COMPLETE, **values})
    return apply(build, after_poll(build, outcome, NOW, ASKING, 0, requested_at=NOW))


@pytest.mark.parametrize(("result", "kept"), [("FAILURE", "FAILURE"), (None, "")])
def test_the_result_of_a_complete_build_is_kept_and_ends_the_polls(result, kept):
    build = after(BuildInfo(building=False, result=result, region=None))
    assert (build.build_result, build.state, build.end_reason) == (kept, BuildState.FINALIZED, EndReason.CALLER)
    assert step(replace(build, result_mismatch=NO_FAILED_TEST if result else None)) == Wait(until=None)


@pytest.mark.parametrize(
    ("outcome", "values"),
    [
        (BuildInfo(building=True, result=None, region=None), {}),
        (NotSent(message="away"), {}),
        (Throttled(message="slow down"), {}),
        (NoSuchBuild(message="none"), {}),
    ],
)
def test_a_complete_build_without_a_result_is_polled_again(outcome, values):
    build = after(outcome, **values)
    assert (build.build_result, build.poll_due_at) == (None, NOW + ASKING.poll_min_interval)


def test_a_build_that_codearts_does_not_have_is_not_polled_for_ever():
    since = {"not_found_since": NOW - ASKING.not_found_timeout, "polled_at": NOW - MINUTE}
    assert after(NoSuchBuild(message="none"), **since).build_result == ""


def test_a_poll_of_a_build_that_codearts_ended_changes_no_result():
    build = ended(build_result=None)
    polled = after_poll(
        build, BuildInfo(building=False, result="SUCCESS", region=None), NOW, ASKING, 0, requested_at=NOW
    )
    assert apply(build, polled).build_result is None


def test_a_build_that_is_open_is_never_judged():
    build = a_build(delivered(), stored(), RED, build_result="SUCCESS", poll_due_at=NOW + MINUTE, described_at=NOW)
    assert step(build, suite=ALWAYS) == Wait(until=NOW + MINUTE)


def test_the_result_of_a_build_that_codearts_does_not_have_is_neither_waited_for_nor_asked_for():
    gone = {"complete_at": NOW, "record_missing": True, "describe_attempts": MAX_MISSING_ATTEMPTS}

    assert step(of(GREEN, **COMPLETE, **gone), suite=ALWAYS) != ASK
    assert step(finalized(delivered(), stored(), GREEN, **COMPLETE, **gone)) != ASK
    assert step(finalized(delivered(), stored(), GREEN, **COMPLETE)) == ASK
