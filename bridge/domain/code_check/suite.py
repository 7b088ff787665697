"""The JUnit suite `codearts-check`: the report of CodeArts Check, or the fact that none came.

The names of its cases never change, so that TestNod can compare each over time.
"""

from dataclasses import dataclass
from typing import Any

import xmltodict

from bridge.domain.code_check.models import CheckReport, CodeCheckRules, LimitResult, check_limits, issue_noun
from bridge.domain.instants import Instant
from bridge.domain.junit.result import TestCounts
from bridge.domain.text_format import capital, rfc3339

SUITE = "codearts-check"
FILE_NAME = f"{SUITE}.xml"
ABOUT_COMMIT = "may describe an earlier commit"
"""In every suite: Check returns the report of a task's latest run, and the report does not name a commit."""

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """A JUnit file of one suite, and its counts."""

    body: bytes
    counts: TestCounts


def suite_of(report: CheckReport, rules: CodeCheckRules, *, requested_at: Instant) -> Suite:
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
    return _suite(cases, about | numbers)


def missing_suite(rules: CodeCheckRules, *, requested_at: Instant, reason: str) -> Suite:
    """Return the suite if no report came: one error; the limits are skipped because they could not be checked."""
    sentence = f"CodeArts Check gave no report in time: {reason}"
    skipped = {"skipped": {"@message": "CodeArts Check gave no report, so this limit was not checked."}}
    cases = [
        _case("report", "answered", error={"@message": sentence, "@type": "missing", "#text": sentence}),
        *(_case("limits", issue_noun(kind), **skipped) for kind, _ in rules.limits),
    ]
    return _suite(cases, _properties(rules, requested_at))


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
    return {"@classname": f"{SUITE}.{group}", "@name": name, "@time": "0", **outcome}


def _suite(cases: list[Fields], properties: dict[str, str]) -> Suite:
    failures, errors, skipped = (sum(outcome in case for case in cases) for outcome in ("failure", "error", "skipped"))
    document = {
        "testsuite": {
            "@name": SUITE,
            "@tests": str(len(cases)),
            "@failures": str(failures),
            "@errors": str(errors),
            "@skipped": str(skipped),
            "@time": "0",
            "properties": {"property": [{"@name": name, "@value": value} for name, value in properties.items()]},
            "testcase": cases,
        }
    }
    counts = TestCounts(
        suites=1, tests=len(cases), failures=failures, errors=errors, skipped=skipped, flaky=0, time_us=0
    )
    return Suite(body=xmltodict.unparse(document, pretty=True).encode("utf-8"), counts=counts)
