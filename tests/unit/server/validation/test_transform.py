import hashlib
import io
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.junit.case_digest import read_digest
from bridge.domain.junit.rewrite_rules import RewriteRule
from bridge.domain.junit.validator import Invalid, Valid, validate_bytes
from bridge.server.validation.messages import TransformOptions, TransformResult
from bridge.server.validation.transform import transform

PLAIN = b"<testsuite><testcase name='a'/></testsuite>"
GBK = '<?xml version="1.0" encoding="gbk"?><testsuite><testcase name="测试"/></testsuite>'.encode("gbk")
CUT = b"<testsuite><testcase name='a'><system-out>x</system-out></testcase><testcase"
CHATTY = b"<testsuite><testcase name='a'><system-out>x</system-out></testcase></testsuite>"
HTML = b"<html/>"

MAX_SIZE = 1000
NOTHING = TransformOptions(max_size=MAX_SIZE)
REPAIR = TransformOptions(max_size=MAX_SIZE, repair=True)
STRIP = TransformOptions(max_size=MAX_SIZE, strip=("system-out",))
BOTH = TransformOptions(max_size=MAX_SIZE, repair=True, strip=("system-out",))


def transformed(content: bytes, options: TransformOptions) -> tuple[TransformResult | Invalid, bytes]:
    out = io.BytesIO()
    done = transform(validate_bytes(content), options, lambda: iter((content,)), out)
    return done, out.getvalue()


@pytest.mark.parametrize(
    ("content", "repair", "strip"),
    [(PLAIN, False, True), (GBK, True, True), (CUT, True, False), (HTML, False, False)],
    ids=["plain", "gbk", "cut", "html"],
)
def test_options_apply_to_what_they_may_change(content, repair, strip):
    verdict = validate_bytes(content)
    assert not NOTHING.apply_to(verdict)
    assert (REPAIR.apply_to(verdict), STRIP.apply_to(verdict)) == (repair, strip)


@pytest.mark.parametrize("options", [NOTHING, REPAIR, STRIP, BOTH])
def test_a_sound_report_with_nothing_to_leave_out_stays_as_it_is(options):
    done, _ = transformed(PLAIN, options)
    assert done == TransformResult(accepted=validate_bytes(PLAIN))


@pytest.mark.parametrize(
    ("content", "options", "changes"),
    [
        (GBK, REPAIR, ["converted from"]),
        (GBK, BOTH, ["converted from"]),
        (CUT, REPAIR, ["ended too early"]),
        (CUT, BOTH, ["ended too early", "Left out: 1 system-out."]),
        (CHATTY, STRIP, ["Left out: 1 system-out."]),
    ],
)
def test_what_was_written_is_a_report_with_the_same_cases_and_is_described(content, options, changes):
    done, out = transformed(content, options)
    assert isinstance(done, TransformResult)
    assert all(word in said for word, said in zip(changes, done.changes, strict=True))
    assert done.written == (len(out), hashlib.sha256(out).hexdigest())
    written = validate_bytes(out)
    assert isinstance(written, Valid)
    assert written.counts.tests == done.accepted.counts.tests == 1


MARKUP_IN_OUTPUT = (
    b"<testsuite tests='1'><testcase name='a'><flakyFailure/><system-out>x</system-out></testcase>"
    b"<system-out><testcase name='b'><failure/></testcase></system-out><error/></testsuite>"
)
OUTPUT_AND_GBK = (
    '<?xml version="1.0" encoding="gbk"?><testsuite failures="1"><testcase name="测试"/><system-out><testcase/>'
    "</system-out></testsuite>"
).encode("gbk")


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (MARKUP_IN_OUTPUT, STRIP),
        (MARKUP_IN_OUTPUT, BOTH),
        (OUTPUT_AND_GBK, REPAIR),
        (OUTPUT_AND_GBK, BOTH),
        (CUT, BOTH),
    ],
)
def test_counts_and_notes_describe_the_bytes_that_are_sent(content, options):
    done, out = transformed(content, options)
    assert isinstance(done, TransformResult)
    assert done.accepted == validate_bytes(out)


@pytest.mark.parametrize(("content", "options"), [(HTML, BOTH), (CUT, STRIP), (CUT, NOTHING)])
def test_what_cannot_be_transformed_is_rejected_by_the_validator(content, options):
    assert transformed(content, options)[0] == validate_bytes(content)


@pytest.mark.parametrize("options", [REPAIR, BOTH])
def test_what_grows_beyond_the_limit_is_rejected_and_no_more_of_it_is_written(options):
    report = f'<?xml version="1.0" encoding="gbk"?><testsuite><testcase name="{"测" * 400}"/></testsuite>'.encode("gbk")
    assert len(report) < MAX_SIZE < len(report.decode("gbk").encode())
    done, out = transformed(report.replace(b"/>", b"><system-out/></testcase>"), options)
    assert (done.reason, len(out) <= MAX_SIZE) == ("too_large", True)
    assert done.found == f"as UTF-8 it is larger than {MAX_SIZE} bytes."


# -- names -----------------------------------------------------------------------------------------------------------

CLOCKS = (
    '<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="at 12:00:01">'
    '<testcase classname="测试" name="登录 at 12:00:01" time="1"><system-out>at 12:00:01 '
    '<testcase name="x at 12:00:01"/></system-out></testcase>'
    '<testcase classname="测试" name="登录 at 12:00:02" time="1">'
    '<failure message="at 12:00:02">a&amp;b</failure></testcase>'
    '<testcase name="still"/></testsuite></testsuites>'
).encode()
NO_CLOCK = RewriteRule(attribute="name", pattern=" at [0-9:]+$")
OTHER = RewriteRule(attribute="classname", pattern="no such text")
RENAME = TransformOptions(max_size=10_000, rewrite=(OTHER, NO_CLOCK))


def test_only_the_names_of_cases_that_count_are_rewritten_and_it_is_described():
    done, out = transformed(CLOCKS, RENAME)
    assert isinstance(done, TransformResult)
    renamed = CLOCKS.decode().replace('name="登录 at 12:00:01"', 'name="登录"').replace('at 12:00:02" time', '" time')
    renamed = renamed.replace('登录 "', '登录"').replace('encoding="utf-8"?>', 'encoding="utf-8"?>\n')
    assert out.decode().lower() == renamed.lower()
    assert done.changes[0] == "Names rewritten: 2 by rule 2."
    assert '"测试 登录"' in done.changes[1]
    assert done.written == (len(out), hashlib.sha256(out).hexdigest())


def test_the_digest_of_the_cases_has_the_names_that_are_sent():
    done, _ = transformed(CLOCKS, RENAME)
    assert isinstance(done, TransformResult)
    assert [case.identity for case in read_digest(done.accepted.case_digest).cases] == [
        "测试\x1f登录",
        "测试\x1f登录",
        "\x1fstill",
    ]


def test_a_report_that_no_rule_changes_is_sent_as_it_came():
    done, _ = transformed(PLAIN, RENAME)
    assert done == TransformResult(accepted=validate_bytes(PLAIN))


def test_a_report_that_only_loses_elements_keeps_the_digest_of_its_cases():
    done, _ = transformed(CHATTY, STRIP)
    assert isinstance(done, TransformResult)
    assert done.accepted == validate_bytes(CHATTY)


ODD_NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn")), max_size=20)
RULES = st.sampled_from([r"[0-9]+", r".", r"(.)(.)", r"a*", r"\s"])


@given(st.lists(st.tuples(ODD_NAMES, st.sampled_from(["", "<failure/>", "<skipped/>"])), max_size=8), RULES)
def test_whatever_the_names_rewriting_keeps_every_case_and_its_outcome(cases, pattern):
    inside = "".join(f"<testcase name={quoteattr(name)} time='1'>{outcome}</testcase>" for name, outcome in cases)
    content = f"<testsuites><testsuite>{inside}</testsuite></testsuites>".encode()
    rule = RewriteRule(attribute="name", pattern=pattern, replacement='<"&>')
    done, out = transformed(content, TransformOptions(max_size=100_000, rewrite=(rule,)))
    assert isinstance(done, TransformResult)
    before, after = validate_bytes(content), done.accepted
    assert after.counts == before.counts
    assert len(read_digest(after.case_digest).cases) == len(cases)
    if done.written:
        assert validate_bytes(out).counts == before.counts
