"""Small JUnit reports as Maven Surefire and pytest write them.

It must not know builds, files or the bridge: cases in, bytes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

STARTED = "2026-03-02T09:15:04"


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoCase:
    """One test: passed, failed where `failure` says why, or skipped."""

    name: str
    seconds: float
    failure: str | None = None
    skipped: str | None = None


def surefire_report(suite: str, cases: Sequence[DemoCase], *, encoding: str = "UTF-8") -> bytes:
    """Return a report of one class as Maven Surefire writes it, in `encoding`."""
    package, _, _ = suite.rpartition(".")
    properties = (("java.version", "17.0.12"), ("os.name", "Linux"), ("user.language", "zh"))
    lines = [
        f'<?xml version="1.0" encoding="{encoding}"?>',
        f'<testsuite name={quoteattr(suite)} time="{_seconds(cases)}" {_counts(cases)}>',
        "  <properties>",
        *(f'    <property name="{name}" value="{value}"/>' for name, value in properties),
        "  </properties>",
        *(
            _case(suite, case, ' type="org.opentest4j.AssertionFailedError"', f"\n\tat {package}.Steps")
            for case in cases
        ),
        "</testsuite>",
    ]
    return "\n".join(lines).encode(encoding)


def pytest_report(module: str, cases: Sequence[DemoCase]) -> bytes:
    """Return a report of one module as `pytest --junit-xml` writes it."""
    counts, seconds = _counts(cases), _seconds(cases)
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<testsuites name="pytest tests">',
        f'<testsuite name="pytest" {counts} time="{seconds}" timestamp="{STARTED}" hostname="agent-1">',
        *(_case(module, case, "", f"\n\n{module.replace('.', '/')}.py:41: AssertionError") for case in cases),
        "</testsuite>",
        "</testsuites>",
    ]
    return "\n".join(lines).encode()


def _counts(cases: Sequence[DemoCase]) -> str:
    failures = sum(case.failure is not None for case in cases)
    skipped = sum(case.skipped is not None for case in cases)
    return f'tests="{len(cases)}" errors="0" failures="{failures}" skipped="{skipped}"'


def _seconds(cases: Sequence[DemoCase]) -> str:
    return f"{sum(case.seconds for case in cases):.3f}"


def _case(classname: str, case: DemoCase, kind: str, trace: str) -> str:
    inside = ""
    if case.failure is not None:
        message = quoteattr(case.failure)
        inside = f"<failure message={message}{kind}>{escape(case.failure + trace)}</failure>"
    elif case.skipped is not None:
        inside = f"<skipped message={quoteattr(case.skipped)}/>"
    head = f'<testcase name={quoteattr(case.name)} classname={quoteattr(classname)} time="{case.seconds:.3f}"'
    return f"  {head}>{inside}</testcase>" if inside else f"  {head}/>"
