"""Reports that the bridge adds to a build itself: their JUnit suite, and the changes that add one.

A build has at most one report of each name. Report, deliveries and the raised `report_seq` are one commit, so a crash
leaves all of them or none, and the build is finalized after the report like after any other.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import xmltodict

from bridge.domain.build import Build, Delivery, DeliveryState, DeliveryTarget, Report
from bridge.domain.changes import AddReport, BumpReportSeq, Change
from bridge.domain.instants import Instant
from bridge.domain.junit.result import TestCounts
from bridge.domain.policy import Policy
from bridge.values import dataclass

GENERATED_BY = "bridge"
"""The `caller` of a generated report."""

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedSuite:
    """A JUnit file of one suite, and its counts. `name` is also its node; the file is called `{name}.xml`."""

    name: str
    body: bytes
    counts: TestCounts


def generated_case(classname: str, name: str, **outcome: Fields) -> Fields:
    """Return a case; `outcome` is `failure`, `error` or `skipped` with its fields, nothing if the case passes."""
    return {"@classname": classname, "@name": name, "@time": "0", **outcome}


def generated_suite(name: str, cases: Sequence[Fields], properties: dict[str, str]) -> GeneratedSuite:
    """Return a suite with these cases and properties."""
    failures, errors, skipped = (sum(outcome in case for case in cases) for outcome in ("failure", "error", "skipped"))
    document = {
        "testsuite": {
            "@name": name,
            "@tests": str(len(cases)),
            "@failures": str(failures),
            "@errors": str(errors),
            "@skipped": str(skipped),
            "@time": "0",
            "properties": {"property": [{"@name": key, "@value": value} for key, value in properties.items()]},
            "testcase": cases,
        }
    }
    counts = TestCounts(
        suites=1, tests=len(cases), failures=failures, errors=errors, skipped=skipped, flaky=0, time_us=0
    )
    return GeneratedSuite(name=name, body=xmltodict.unparse(document, pretty=True).encode("utf-8"), counts=counts)


def has_generated(build: Build, name: str) -> bool:
    """Return whether the build has the generated report of this name; an uploaded one of the same name is another."""
    return any(report.node_id == name for report in build.reports.where(_is_generated))


def _is_generated(report: Report) -> bool:
    return report.generated


def add_generated(suite: GeneratedSuite, now: Instant, policy: Policy) -> tuple[Change, ...]:
    """Return the changes that add the suite as a report to be delivered to TestNod and to the archive."""
    targets = (DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE) if policy.has_archive else (DeliveryTarget.TESTNOD,)
    report = Report(
        id=0,
        name=f"{suite.name}.xml",
        node_id=suite.name,
        size=len(suite.body),
        sent_size=len(suite.body),
        sent_sha256=sha256(suite.body).hexdigest(),
        tests=suite.counts.tests,
        failures=suite.counts.failures,
        errors=suite.counts.errors,
        skipped=suite.counts.skipped,
        accepted_at=now,
        caller=GENERATED_BY,
        caller_routes=None,
        has_bytes=True,
        generated=True,
    )
    deliveries = tuple(
        Delivery(id=0, report_id=0, target=target, state=DeliveryState.PENDING, pending_since=now, due_at=now)
        for target in targets
    )
    return AddReport(report, deliveries, suite.body, suite.counts), BumpReportSeq()
