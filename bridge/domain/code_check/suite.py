"""The JUnit suite `codearts-check`: the report of CodeArts Check, or the fact that none came.

The names of its cases never change, so that TestNod can compare each over time.
"""

from bridge.domain.code_check.models import CheckReport, CodeCheckRules, LimitResult, check_limits, issue_noun
from bridge.domain.generated_report import Fields, GeneratedSuite, generated_case, generated_suite
from bridge.domain.instants import Instant
from bridge.domain.text_format import capital, rfc3339

SUITE = "codearts-check"
ABOUT_COMMIT = "may describe an earlier commit"
"""In every suite: Check returns the report of a task's latest run, and the report does not name a commit."""


def suite_of(report: CheckReport, rules: CodeCheckRules, *, requested_at: Instant) -> GeneratedSuite:
    """Return the suite of a report: one case for the report, and one for each limit and each tool."""
    cases = [
        _case("report", "answered"),
        *(_limit_case(result, report.url) for result in check_limits(report, rules)),
        *(_case("tools", tool) for tool in report.tools),
    ]
    about = _properties(rules, requested_at)
    if report.url:
        about["REPORT_URL"] = report.url
    numbers = {key: str(number) for key, number in report.numbers if key not in about}
    return generated_suite(SUITE, cases, about | numbers)


def missing_suite(rules: CodeCheckRules, *, requested_at: Instant, reason: str) -> GeneratedSuite:
    """Return the suite if no report came: one error; the limits are skipped because they could not be checked."""
    sentence = f"CodeArts Check gave no report in time: {reason}"
    skipped = {"skipped": {"@message": "CodeArts Check gave no report, so this limit was not checked."}}
    cases = [
        _case("report", "answered", error={"@message": sentence, "@type": "missing", "#text": sentence}),
        *(_case("limits", issue_noun(kind), **skipped) for kind, _ in rules.limits),
    ]
    return generated_suite(SUITE, cases, _properties(rules, requested_at))


def _properties(rules: CodeCheckRules, requested_at: Instant) -> dict[str, str]:
    subject = {"task_id": rules.task_id, "job_id": rules.job_id}
    return {name: value for name, value in subject.items() if value} | {
        "requested_at": rfc3339(requested_at),
        "commit": ABOUT_COMMIT,
    }


def _limit_case(result: LimitResult, url: str | None) -> Fields:
    name = issue_noun(result.kind)
    if result.is_kept:
        return _case("limits", name)
    sentence = capital(result.sentence)
    outcome = {"@message": sentence, "@type": "limit", "#text": f"{sentence}. See {url}" if url else f"{sentence}."}
    return _case("limits", name, **{"error" if result.found is None else "failure": outcome})


def _case(group: str, name: str, **outcome: Fields) -> Fields:
    return generated_case(f"{SUITE}.{group}", name, **outcome)
