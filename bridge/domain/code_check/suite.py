"""A report of CodeArts Check, or that none came, as one JUnit suite: `codearts-check`.

It knows neither HTTP nor the ledger. The names of its cases never change, so that TestNod can follow each over time.
"""

from dataclasses import dataclass
from typing import Any

import xmltodict

from bridge.domain.code_check.models import CheckReport, CodeCheckRules, IssueKind, LimitResult, check_limits, named
from bridge.domain.junit.result import TestCounts
from bridge.domain.text_format import capital, rfc3339

SUITE = "codearts-check"
FILE_NAME = f"{SUITE}.xml"
ABOUT_COMMIT = "may describe an earlier commit"
"""Said in every suite: Check tells of a task's latest run, and does not say which commit that run looked at."""

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """A JUnit file of one suite, and what it counts."""

    body: bytes
    counts: TestCounts


def answered(report: CheckReport, rules: CodeCheckRules, *, requested_at: int) -> Suite:
    """Return what Check found: whether it answered, a case for each limit, a case for each tool, the numbers."""
    cases = [
        _case("report", "answered"),
        *(_limit_case(held, report.url) for held in check_limits(report, rules)),
        *(_case("tools", tool) for tool in report.tools),
    ]
    about = _asked(rules, requested_at)
    if report.url:
        about["REPORT_URL"] = report.url
    numbers = {key: str(number) for key, number in report.numbers if key not in about}
    return _suite(cases, about | numbers)


def missing(rules: CodeCheckRules, *, requested_at: int, reason: str) -> Suite:
    """Return that no report came: one error, and the limits skipped, because nobody knows."""
    sentence = f"CodeArts Check gave no report in time: {reason}"
    unknown = {"skipped": {"@message": "CodeArts Check gave no report, so nobody knows."}}
    cases = [
        _case("report", "answered", error={"@message": sentence, "@type": "missing", "#text": sentence}),
        *(_case("limits", _limit_name(kind), **unknown) for kind, _ in rules.limits),
    ]
    return _suite(cases, _asked(rules, requested_at))


def _asked(rules: CodeCheckRules, requested_at: int) -> dict[str, str]:
    whose = {"task_id": rules.task_id, "job_id": rules.job_id}
    return {name: value for name, value in whose.items() if value} | {
        "requested_at": rfc3339(requested_at),
        "commit": ABOUT_COMMIT,
    }


def _limit_case(held: LimitResult, url: str | None) -> Fields:
    name = _limit_name(held.kind)
    if held.is_kept:
        return _case("limits", name)
    sentence = capital(held.sentence)
    said = {"@message": sentence, "@type": "limit", "#text": f"{sentence}. See {url}" if url else f"{sentence}."}
    return _case("limits", name, **{"error" if held.found is None else "failure": said})


def _limit_name(kind: IssueKind) -> str:
    return named(kind)


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
