"""Repair never makes a report greener: any report with one fault is rejected, or keeps every case that is complete.

More examples by hand: BRIDGE_REPAIR_EXAMPLES=2000.
"""

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from lxml import etree

from bridge.domain.junit.repair.repair import Repaired, repair
from bridge.domain.junit.result import Invalid
from bridge.domain.junit.validator import Valid, validate_bytes
from tests.unit.domain.junit.repair.test_repair import source

EXAMPLES = int(os.environ.get("BRIDGE_REPAIR_EXAMPLES", "200"))
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # explaining takes minutes
PASSED, SKIPPED, FAILED, ERROR = "passed", "skipped", "failure", "error"
RED = {FAILED, ERROR}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "gbk", "windows-1252", "big5")
LETTERS = {"windows-1252": "crème brûlée “x” 5 €", "big5": "購物車登錄失敗"}
CHINESE = "登录失败，购物车"
QUOTES = {'"': "&quot;", "\n": "&#10;"}


@dataclass
class Report:
    """The text of a report, and where its cases stand in it: from the first character to behind the last."""

    text: str = ""
    cases: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # by the first word of the name, with outcome

    def write(self, *parts: str) -> None:
        self.text += "".join(parts)


class Author:
    """Writes a report as `draw` decides."""

    def __init__(self, draw: st.DrawFn, letters: str) -> None:
        self.report = Report()
        self._draw = draw
        self._texts = st.text(st.sampled_from(f"abc{letters} \n\t<>&\"']-;#[x0m="), max_size=12)

    def write(self) -> Report:
        roots = self._draw(st.integers(0, 3))
        if roots:
            self.report.write("<testsuites>")
        for _ in range(roots or 1):
            self._suite(0)
        if roots:
            self.report.write("</testsuites>")
        self.report.write(self._one_of("", "\n", "\n<!-- end -->\n"))
        return self.report

    def _suite(self, depth: int) -> None:
        self.report.write("<testsuite", self._attribute("name"), ">", self._one_of("", "\n", "\n "))
        for _ in range(self._draw(st.integers(0, 3))):
            self._case()
            self.report.write(self._one_of("", "\n", "<!-- a -->", "<?pi a?>"))
        if depth < 3 and self._draw(st.booleans()):
            self._suite(depth + 1)
        if self._draw(st.booleans()):
            self.report.write(self._element("system-out"))
        self.report.write("</testsuite>", self._one_of("", "\n"))

    def _case(self) -> None:
        key, outcome = f"c{len(self.report.cases)}", self._one_of(PASSED, PASSED, SKIPPED, FAILED, ERROR)
        begins = len(self.report.text)
        self.report.write("<testcase", self._attribute("name", f"{key} "))
        inside = self._draw(st.lists(st.sampled_from(["system-out", "properties"]), max_size=1))
        inside += [outcome] if outcome != PASSED else []
        inside += self._draw(st.lists(st.just("system-err"), max_size=1))
        self.report.write(">", "".join(map(self._element, inside)), "</testcase>" if inside else "</testcase >")
        self.report.cases[key] = (begins, len(self.report.text), outcome)

    def _element(self, name: str) -> str:
        attributes = self._attribute("message") if self._draw(st.booleans()) else ""
        if self._draw(st.booleans()):
            return f"<{name}{attributes}/>"
        return f"<{name}{attributes}>{self._content()}{self._content()}</{name}>"

    def _attribute(self, name: str, begins: str = "") -> str:
        value = begins + self._draw(self._texts)
        return f" {name}={quoteattr(value)}" if self._draw(st.booleans()) else f' {name}="{escape(value, QUOTES)}"'

    def _content(self) -> str:
        text = self._draw(self._texts)
        match self._one_of("text", "cdata", "comment", "instruction", "report"):
            case "cdata":
                return f"<![CDATA[{text.replace(']]>', '')}]]>"
            case "comment":
                return f"<!--{text.replace('-', '')}-->"
            case "instruction":
                return "<?pi x?>"
            case "report":
                return '<![CDATA[<testcase name="q"><failure/></testcase>]]>'
            case _:
                return escape(text)

    def _one_of(self, *values: str) -> str:
        return self._draw(st.sampled_from(values))


INSERTED = (
    "&", "& ", "&nbsp;", "&nbsp", "&#0;", "&#xD800;", "&#27;[0m", "<", "< ", "</", "<a>", "</a>", "</testcase>",
    "<testcase>", "<failure>", "<?php x>", "<?php", "]]>", "<![CDATA[", "<!--", "--", "-->", "\0", "\x1b",
    "\x1b[31m", "\x07", "\x0c", "\ufffe", '"', "'", ' name="z"', ' message="x>y"', ">", "/>", '<?xml version="1.0"?>',
    "<!DOCTYPE a>", "\0" * 4,
)  # fmt: skip
BYTES = (b"\xff", b"\xe6", b"\xb5", b"\xc3\x28", b"\xed\xa0\x80", b"\xe9", b"\x80\x80", b"\xb5\xb5\xb5")
REMOVED = ("</testsuite>", "</testcase>", "</failure>", '"', "'", ">", "<", "]]>", "-->", "&amp;"[1:], "/", " ", "=")


@dataclass(frozen=True, kw_only=True)
class Broken:
    """Bytes with one fault, and which of the cases are complete in them."""

    data: bytes
    complete: frozenset[str]


@st.composite
def broken(draw: st.DrawFn, report: Report, encoding: str) -> Broken:
    chance = random.Random(draw(st.integers(0, 1 << 32)))  # even: hypothesis prefers the ends of a text
    opening = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>\n'
    if draw(st.integers(0, 2)) == 0:
        opening = ""  # so that repair must find out the encoding, unless it is UTF-8 or UTF-16
    text = opening + report.text
    at = chance.randint(len(opening), len(text))

    def untouched(begins: int, ends: int) -> frozenset[str]:
        """Return the cases that a change of these characters leaves whole; one at their edges touches none."""
        shifted = ((key, first + len(opening), last + len(opening)) for key, (first, last, _) in report.cases.items())
        return frozenset(key for key, first, last in shifted if last <= begins or ends <= first)

    match draw(st.sampled_from(["cut", "insert", "insert", "insert", "remove", "bytes", "swap"])):
        case "cut":
            data = text[:at].encode(encoding)
            spare = chance.choice([0, 0, 1])  # of bytes: the last character may be cut, too
            return Broken(data=data[: len(data) - spare], complete=untouched(at - spare, len(text)))
        case "insert":
            data = (text[:at] + draw(st.sampled_from(INSERTED)) + text[at:]).encode(encoding, errors="ignore")
            return Broken(data=data, complete=untouched(at, at))
        case "remove":
            what = draw(st.sampled_from(REMOVED))
            found = text.find(what, at)
            if found < 0:
                return Broken(data=text.encode(encoding), complete=frozenset(report.cases))
            data = (text[:found] + text[found + len(what) :]).encode(encoding)
            return Broken(data=data, complete=untouched(found, found + len(what)))
        case "bytes":
            before, whole = text[:at].encode(encoding), text.encode(encoding)
            data = before + draw(st.sampled_from(BYTES)) + whole[len(before) :]
            return Broken(data=data, complete=untouched(at, at))
        case _:
            data = (text[:at] + chance.choice("<>&/\"'x\0]") + text[at + 1 :]).encode(encoding)
            return Broken(data=data, complete=untouched(at, at + 1))


def outcomes(data: bytes) -> Mapping[str, str]:
    """Return each case's outcome by the first word of its name, as a reader that is not the validator's sees it."""
    parser = etree.XMLParser(resolve_entities=False, huge_tree=True)
    found: dict[str, str] = {}
    for case in etree.fromstring(data, parser).iter("{*}testcase"):
        marks = {child.tag for child in case if isinstance(child.tag, str)}
        outcome = next((mark for mark in (ERROR, FAILED, SKIPPED) if mark in marks), PASSED)
        key = (case.get("name") or "").partition(" ")[0]
        assert key not in found
        found[key] = outcome
    return found


@settings(max_examples=EXAMPLES, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(encoding=st.sampled_from(ENCODINGS), size=st.sampled_from([1, 7, 1000]), data=st.data())
def test_any_report_with_one_fault_is_rejected_or_keeps_every_complete_case(
    encoding: str, size: int, data: st.DataObject
) -> None:
    report = Author(data.draw, LETTERS.get(encoding, CHINESE)).write()
    fault = data.draw(broken(report, encoding))
    _judge(report, fault, size, encoding)


def _judge(report: Report, fault: Broken, size: int, encoding: str) -> None:
    whole = validate_bytes(fault.data)
    repaired = repair(source(fault.data, size))
    if isinstance(repaired, Invalid):
        event(f"rejected: {repaired.reason}")
        return
    out = b"".join(repaired.chunks())
    assert validate_bytes(out) == repaired.accepted
    found = outcomes(out)
    if isinstance(whole, Valid):
        event("accepted as it is")
        assert repaired.accepted.counts == whole.counts
        assert found == outcomes(fault.data)
        return
    if (sound := _sound(fault.data, encoding)) is not None:
        event("well-formed but for its encoding")  # a "<" is gone: nothing can tell that an element was meant
        assert found == outcomes(sound)
        return
    event(f"repaired: {' '.join(repaired.done).split(':')[0]}")
    _compare(report, fault, repaired, found)


def _sound(data: bytes, encoding: str) -> bytes | None:
    """Return the report in UTF-8 if it is accepted so; None if something else than its encoding is at fault."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    if text.startswith("<?xml"):
        text = text.partition("?>")[2]
    utf_8 = text.encode("utf-8", "replace")
    return utf_8 if isinstance(validate_bytes(utf_8), Valid) else None


def _compare(report: Report, fault: Broken, repaired: Repaired, found: Mapping[str, str]) -> None:
    truth = {key: outcome for key, (_, _, outcome) in report.cases.items()}
    assert {key: found.get(key) for key in fault.complete} == {key: truth[key] for key in fault.complete}
    touched = truth.keys() - fault.complete
    others = found.keys() - fault.complete  # may be there, under another name if the fault is in it, and no greener
    assert len(others) <= len(touched)
    for key in others:
        possible = {truth[key]} if key in truth else {truth[one] for one in touched}
        assert found[key] in RED or not possible <= RED, key
    least: Callable[[str], int] = [truth[key] for key in fault.complete].count
    counts = repaired.accepted.counts
    assert counts.tests >= len(fault.complete)
    assert counts.tests > 0 or not any("cases may be missing" in sentence for sentence in repaired.done)
    assert (counts.failures >= least(FAILED), counts.errors >= least(ERROR)) == (True, True)
    assert counts.skipped >= least(SKIPPED)
