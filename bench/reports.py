"""Reports for the benchmarks: surefire-like, of one size, each with its own bytes."""

import random
from collections.abc import Iterator
from functools import cache

REPORT_BYTES = 20_000
CASES_WITH_FAILURE = 30  # one case in 30 fails
VARIANTS = 20  # files that differ in every figure; the others differ only in their stamp
FEW_CASES = 100  # up to this number, a file has room for full names and surefire's properties
STAMP = "STAMP000"  # in suite name and host name; makes each file unique

MIB = 1 << 20
LARGE_PIECE_BYTES = 64 * 1024
LARGE_PIECE_CASES = 800  # about as much

_WORDS = ("adds", "removes", "counts", "splits", "keeps", "rejects", "reads", "merges", "orders", "moves", "opens")
_SHORT_SUITE, _SHORT_NAME = "shop.CartTest", "{}{}"
_LONG_SUITE, _LONG_NAME = "com.example.shop.cart.CartServiceTest", "{}TheItemsOfTheCart(Cart, Stock)[{}]"
_PROPERTIES = {
    "java.version": "17.0.12",
    "java.vendor": "Eclipse Adoptium",
    "os.name": "Linux",
    "os.arch": "amd64",
    "file.encoding": "UTF-8",
    "user.dir": "/workspace/shop",
    "surefire.test.class.path": "/workspace/shop/target/test-classes:/workspace/shop/target/classes",
    "sun.java.command": "/workspace/shop/target/surefire/surefirebooter.jar /workspace/shop/target/surefire",
}
_TRACE = "".join(f"\tat com.shop.cart.Cart.step{line}(Cart.java:{40 + line})\n" for line in range(6))


def small_reports(cases: int, stamps: range) -> Iterator[bytes]:
    """Yield a report of REPORT_BYTES with `cases` cases for each stamp; no two stamps give the same bytes."""
    for stamp in stamps:
        report = _variant(cases, stamp % VARIANTS)
        yield report.replace(STAMP.encode(), f"{stamp:0{len(STAMP)}d}".encode())


@cache
def _variant(cases: int, seed: int) -> bytes:
    chance = random.Random(seed)
    failed = range(CASES_WITH_FAILURE // 2, cases, CASES_WITH_FAILURE)
    suite, shape = (_LONG_SUITE, _LONG_NAME) if cases <= FEW_CASES else (_SHORT_SUITE, _SHORT_NAME)
    names = [shape.format(chance.choice(_WORDS), number) for number in range(cases)]
    body = "".join(_case(suite, name, chance, failed=number in failed) for number, name in enumerate(names))
    properties = "".join(f'    <property name="{name}" value="{value}"/>\n' for name, value in _PROPERTIES.items())
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<testsuite name="{suite}{STAMP}" hostname="node-{STAMP}" time="{chance.uniform(1, 60):.3f}" '
        f'tests="{cases}" errors="0" skipped="0" failures="{len(failed)}">\n'
    )
    if cases <= FEW_CASES:
        head += f"  <properties>\n{properties}  </properties>\n"
    return _filled(head + body, "\n</testsuite>\n")


def _case(suite: str, name: str, chance: random.Random, *, failed: bool) -> str:
    opened = f'<testcase name="{name}" classname="{suite}" time="{chance.expovariate(20):.3f}"'
    if not failed:
        return f"{opened}/>\n"
    text = f"org.opentest4j.AssertionFailedError: expected: &lt;{len(name)}&gt; but was: &lt;0&gt;"
    return f'{opened}><failure message="{text}">{text}\n{_TRACE}</failure></testcase>\n'


def _filled(text: str, end: str) -> bytes:
    """Fill the report to its size with output of the suite."""
    open_tag, close_tag = "<system-out><![CDATA[", "]]></system-out>"
    room = REPORT_BYTES - len(text) - len(open_tag) - len(close_tag) - len(end)
    line = "12:00:00.017 [main] INFO  c.s.cart.CartService - cart 4711 holds 3 items, 2 of them reserved\n"
    printed = (line * (room // len(line) + 1))[:room]
    report = f"{text}{open_tag}{printed}{close_tag}{end}".encode()
    if len(report) != REPORT_BYTES:
        raise ValueError(f"A report has {len(report)} bytes. Its cases leave no room; make them shorter.")
    return report


def many_cases(size: int) -> Iterator[bytes]:
    """Yield a report of about `size` bytes with cases only."""
    line = '<testcase name="adds {:07d}" classname="com.shop.cart.CartTest" time="0.012"/>\n'
    yield b'<testsuite name="large">\n'
    for start in range(0, size // len(line.format(0)), LARGE_PIECE_CASES):
        yield "".join(line.format(number) for number in range(start, start + LARGE_PIECE_CASES)).encode()
    yield b"</testsuite>\n"


def one_cdata(size: int) -> Iterator[bytes]:
    """Yield a report with one case whose output is a single CDATA section of `size` bytes."""
    yield b'<testsuite name="large"><testcase name="prints" classname="Large"><system-out><![CDATA['
    yield from _printed(size)
    yield b"]]></system-out></testcase></testsuite>\n"


def one_attribute(size: int) -> Iterator[bytes]:
    """Yield a report with one failure whose message is a single attribute of `size` bytes."""
    yield b'<testsuite name="large"><testcase name="fails" classname="Large"><failure message="'
    yield from _printed(size)
    yield b'"/></testcase></testsuite>\n'


def _printed(size: int) -> Iterator[bytes]:
    piece = b"0123456789abcdef" * (LARGE_PIECE_BYTES // 16)
    for _ in range(size // LARGE_PIECE_BYTES):
        yield piece


LARGE = {
    "45 MiB of many cases": (many_cases, 45 * MIB),
    "one 40 MiB CDATA": (one_cdata, 40 * MIB),
    "one 40 MiB attribute": (one_attribute, 40 * MIB),
}
