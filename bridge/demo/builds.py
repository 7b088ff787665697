"""The four builds that the demo plays: what each is called, and which reports its nodes upload.

It must not know how they are sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.demo.reports import DemoCase, pytest_report, surefire_report


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoBuild:
    """One build: `uploads` holds for each node_id the files that it uploads, by name."""

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
        """What the route of the demo, left at its default, calls the build at TestNod."""
        return f"codearts-{self.job_id}-{self.build_no}"


def demo_builds() -> tuple[DemoBuild, ...]:
    """Return the builds in the order in which the table shows them."""
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
