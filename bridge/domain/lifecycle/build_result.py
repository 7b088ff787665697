"""CodeArts' result of a build beside its reports: record a mismatch, and add the report `codearts-build`.

Reasons: docs/decisions/0029-result-mismatch.md.
"""

from collections.abc import Iterable

from bridge.domain.build import Build, BuildState, EndReason, Report
from bridge.domain.changes import set_build
from bridge.domain.generated_report import GeneratedSuite, add_generated, generated_case, generated_suite, has_generated
from bridge.domain.instants import EPOCH, after
from bridge.domain.lifecycle.build_record import is_gone
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.result_mismatch import (
    BuildVerdict,
    ReportTotals,
    ResultMismatch,
    compare_totals,
    totals_of,
    verdict_of,
)
from bridge.domain.routing import ResultSuite
from bridge.domain.steps import Apply
from bridge.domain.text_format import clause_or_unknown

SUITE = "codearts-build"
CASE = "build result"
"""The one case of the suite. Its name never changes, so that TestNod can compare it over time."""


def mismatch_of(build: Build) -> ResultMismatch | None:
    """Return how CodeArts' result of `build` and its reports differ; None if they agree or no result is known."""
    return compare_totals(build.build_result, own_totals(build), rejected=build.rejected)


def own_totals(build: Build) -> ReportTotals:
    """Return the totals of the reports whose callers may use the route of the build; of all while it has none."""
    route = build.run_parameters.route if build.run_parameters else None
    return sum(build.reports.by_page(_totals_for, route), ReportTotals())


def _totals_for(reports: Iterable[Report], route: str | None) -> ReportTotals:
    return totals_of(report for report in reports if route is None or report.may_go_to(route))


def record_mismatch(context: PlanContext) -> Apply | None:
    """Return the kind of a mismatch that was found or is gone. It is judged after the grace period for late reports."""
    build = context.build
    if build.state is BuildState.OPEN:
        return None
    found = mismatch_of(build)
    kind, sentence = (None, None) if found is None else (found.kind, found.sentence)
    if kind == build.result_mismatch or not context.wait_for_grace_period():
        return None
    event = "result_mismatch_cleared" if found is None else "result_mismatch_found"
    return Apply(event, (set_build(result_mismatch=kind),), reason=sentence)


# -- the result of a build that an upload ended --------------------------------------------------------------------


def result_is_missing(build: Build) -> bool:
    """Return whether an upload ended the build before CodeArts did, and no result of CodeArts is known yet."""
    return build.end_reason is EndReason.CALLER and build.build_result is None and not is_gone(build)


def polls_for_result(context: PlanContext) -> bool:
    """Return whether build-info is polled for the result of a build that has ended.

    Without a `result_suite`, that is after finalize, which therefore never waits for CodeArts.
    """
    build, policy = context.build, context.policy
    if build.state is BuildState.OPEN or not result_is_missing(build):
        return False
    if build.state is BuildState.ENDED and not _wants_suite(context):
        return False
    return context.now < after(build.ended_at or EPOCH, policy.max_age)


def waits_for_result(context: PlanContext) -> bool:
    """Return whether the finalize of a build waits for its result, for at most `delivery.max_finalize_delay`."""
    build, policy = context.build, context.policy
    if not (policy.has_codearts and result_is_missing(build) and _wants_suite(context)):
        return False
    return not context.wait_until(after(build.ended_at or EPOCH, policy.max_finalize_delay))


# -- the report ----------------------------------------------------------------------------------------------------


def add_result_suite(context: PlanContext) -> Apply | None:
    """Return the report `codearts-build`, once, when the grace period is over and before the run is finalized.

    After finalize it is added only if the result came later than that.
    """
    build = context.build
    if build.state is BuildState.OPEN or not _wants_suite(context):
        return None
    if build.reports and not build.has_report_for(context.route):  # of other callers only: it would open a run
        return None
    if build.state is not BuildState.ENDED and (build.polled_at or EPOCH) <= context.last_finalize_at:
        return None
    suite = result_suite(build, always=_setting(context) is ResultSuite.ALWAYS)
    if suite is None or not context.wait_for_grace_period():
        return None
    return Apply("result_suite_added", add_generated(suite, context.now, context.policy))


def result_suite(build: Build, *, always: bool) -> GeneratedSuite | None:
    """Return the suite; None if there is no result, or if it agrees with the reports and is not `always` wanted."""
    result, found = build.build_result, mismatch_of(build)
    if not result or (found is None and not always):
        return None
    verdict, totals = verdict_of(result), own_totals(build)
    outcome = {}
    if found is not None:
        outcome = {"failure": _failure("mismatch", found.sentence)}
    elif verdict is BuildVerdict.UNKNOWN:
        sentence = f"CodeArts says {clause_or_unknown(result)}, which is neither a success nor a failure."
        outcome = {"skipped": {"@message": sentence}}
    elif verdict is not BuildVerdict.PASSED:
        sentence = f"CodeArts says {clause_or_unknown(result)}, and {totals.failed_of_all}."
        outcome = {"failure": _failure(verdict, sentence)}
    counts = {"reports": totals.reports, "tests": totals.tests, "failed": totals.failed}
    properties = {"build_result": result} | {name: str(count) for name, count in counts.items()}
    return generated_suite(SUITE, [generated_case(SUITE, CASE, **outcome)], properties)


def _failure(kind: str, sentence: str) -> dict[str, str]:
    return {"@message": sentence, "@type": kind, "#text": sentence}


def _wants_suite(context: PlanContext) -> bool:
    return _setting(context) is not ResultSuite.OFF and not has_generated(context.build, SUITE)


def _setting(context: PlanContext) -> ResultSuite:
    of_route = (route.result_suite for route in context.policy.routes if route.name == context.route)
    return next(of_route, ResultSuite.OFF)
