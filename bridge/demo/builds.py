"""The four builds of the demo, with JUnit reports as Maven Surefire and pytest write them."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from xml.sax.saxutils import escape, quoteattr

from bridge.values import dataclass

STARTED = "2026-03-02T09:15:04"


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoCase:
    """One test: passed, failed if `failure` is a message, or skipped."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoBuild:
    """One build; `uploads` has the files of each node_id, by name."""

    title: str
    job_id: str
    build_no: int
    build_result: str
    branch: str
    uploads: Mapping[str, Mapping[str, bytes]] = field(repr=False)

    @property
    def key(self) -> str:
        return f"{self.job_id}/{self.build_no}"

    @property
    def testnod_build_id(self) -> str:
        """Return the build's id at TestNod, by the default of the demo's route."""
        return f"codearts-{self.job_id}-{self.build_no}"


def demo_builds() -> tuple[DemoBuild, ...]:
    """Return the builds in the order of the table."""
    return (
        DemoBuild(
            title="green, Maven",
            job_id="48c1a7d02e9b4f6d8a35c0b1e7f2d964",
            build_no=412,
            build_result="SUCCESS",
            branch="main",
            uploads={"default": dict(_class(f"com.example.shop.{name}Test", count) for name, count in _GREEN)},
        ),
        DemoBuild(
            title="red, pytest",
            job_id="b7d95e3c10a84f2296e4d8f07c5a1b38",
            build_no=87,
            build_result="FAILED",
            branch="feature/refunds",
            uploads={"default": {"refunds.xml": _red("tests.test_refunds"), "rates.xml": _red("tests.test_rates")}},
        ),
        DemoBuild(
            title="twelve files, 3 nodes",
            job_id="0e6f2b9d74c34a51b8d2937ac1f5e860",
            build_no=1203,
            build_result="SUCCESS",
            branch="release/4.2",
            uploads={node: dict(_class(f"com.example.api.{name}IT", 6) for name in names) for node, names in _NODES},
        ),
        DemoBuild(
            title="GBK, Chinese text",
            job_id="d3a8c45f6b1e49709c2f8e5b7a06d412",
            build_no=36,
            build_result="FAILED",
            branch="main",
            uploads={
                "default": {
                    "TEST-com.example.订单Test.xml": surefire_report("com.example.订单Test", _ORDERS, encoding="GBK")
                }
            },
        ),
    )


_GREEN = (("Cart", 14), ("Checkout", 9), ("Inventory", 21))
_NODES = (
    ("node-linux-x64", ("Login", "Search", "Basket", "Payment")),
    ("node-linux-arm64", ("Profile", "Wishlist", "Coupon", "Invoice")),
    ("node-windows", ("Export", "Import", "Webhook", "Report")),
)
_ORDERS = (
    DemoCase(name="创建订单", seconds=0.118),
    DemoCase(name="取消订单", seconds=0.067),
    DemoCase(name="退款金额", seconds=0.203, failure="退款金额不一致：期望 99.00 元，实际 90.00 元"),
    DemoCase(name="导出发票", seconds=0.0, skipped="等待税务接口"),
)


def _class(suite: str, count: int) -> tuple[str, bytes]:
    cases = [DemoCase(name=f"{_VERBS[n % len(_VERBS)]}{n + 1}", seconds=0.004 + n % 7 * 0.013) for n in range(count)]
    return f"TEST-{suite}.xml", surefire_report(suite, cases)


_VERBS = ("accepts", "rejects", "keeps", "restores", "rounds")


def _red(module: str) -> bytes:
    cases = [
        DemoCase(name="test_full_amount", seconds=0.021),
        DemoCase(name="test_half_of_a_cent[EUR]", seconds=0.013, failure="assert Decimal('0.01') == Decimal('0.00')"),
        DemoCase(name="test_half_of_a_cent[JPY]", seconds=0.012, skipped="yen have no cents"),
        DemoCase(name="test_twice", seconds=0.034, failure="assert 'refunded' == 'open' & status < 400"),
        DemoCase(name="test_history", seconds=0.009),
    ]
    return pytest_report(module, cases)
