"""Any JUnit document, in any encoding: valid with exact counts if complete, invalid if not."""

from dataclasses import asdict, dataclass
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.domain.junit.validator import Invalid, Valid, ValidationResult, validate_bytes, validate_source

OUTCOMES = ("error", "failure", "skipped", "flakyFailure", "flakyError", "rerunFailure", "rerunError")
OTHERS = ("system-out", "system-err", "properties", "made-up")
ENCODINGS = (
    "utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "iso-8859-2", "iso-8859-15", "windows-1250", "windows-1251",
    "windows-1252", "gbk", "gb2312", "gb18030", "big5", "shift_jis", "euc-kr",
)  # fmt: skip
UNWRITTEN = "<>&\"'" + "¥‾" + "\u3164" + "\u02cd\u2574\uffe3"
"""What must be escaped; what Python writes so that it reads something else, in Shift_JIS and in EUC-KR; and the three
signs of Big5 that lxml does not read, of 13,706."""

some_documents = settings(max_examples=20, deadline=None)  # of each encoding; their tables take a while to make


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A piece of a document, and what it adds to the counts; `time_us` is None where nothing in it states a time."""

    text: str
    suites: int = 0
    tests: int = 0
    failures: int = 0
    errors: int = 0
    skipped: int = 0
    flaky: int = 0
    time_us: int | None = None


TOTALS = ("suites", "tests", "failures", "errors", "skipped", "flaky")
TIMES = st.none() | st.integers(-1_000_000_000, 4_000_000_000_000)


def letters(encoding):
    characters = st.characters(
        codec=encoding.removesuffix("-sig"),
        exclude_categories=["Cc", "Cs", "Cn", "Co"],
        exclude_characters=UNWRITTEN,
    )
    return st.text(characters, max_size=8)


def time_attribute(time_us):
    return "" if time_us is None else f' time="{time_us / 1_000_000:,.6f}"'


@st.composite
def cases(draw, words):
    tags = draw(st.lists(st.sampled_from(OUTCOMES + OTHERS), max_size=4))
    time_us = draw(TIMES)
    inside = "".join(f'<{tag} message="{draw(words)}">{draw(words)}</{tag}>' for tag in tags)
    error, failure, skipped = ("error" in tags, "failure" in tags, "skipped" in tags)
    flaky = any(tag.startswith(("flaky", "rerun")) for tag in tags) and not (error or failure or skipped)
    return Part(
        text=f'<testcase name="{draw(words)}"{time_attribute(time_us)}>{inside}</testcase>\n',
        tests=1,
        errors=int(error),
        failures=int(failure and not error),
        skipped=int(skipped and not failure and not error),
        flaky=int(flaky),
        time_us=time_us,
    )


@st.composite
def suites(draw, words, parts, tag="testsuite"):
    inside, time_us = draw(parts), draw(TIMES)
    stated = [part.time_us for part in inside if part.time_us is not None]
    body = "".join(part.text for part in inside)
    counted = {name: sum(getattr(part, name) for part in inside) for name in TOTALS}
    counted["suites"] += tag == "testsuite"
    opening = f'<{tag} name="{draw(words)}"{time_attribute(time_us)}><system-out>{draw(words)}</system-out>'
    return Part(
        text=f"{opening}{body}</{tag}>",
        time_us=time_us if time_us is not None else (sum(stated) if stated else None),
        **counted,
    )


@cache
def documents(encoding):
    words = letters(encoding)
    parts = st.lists(cases(words), max_size=4)
    nested = st.recursive(parts, lambda inner: st.lists(suites(words, inner), max_size=3), max_leaves=4)
    return suites(words, nested, tag="testsuites") | suites(words, nested)


def written(document, encoding):
    """Return the document's bytes, declared as what they are."""
    declaration = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>\n'
    return (declaration + document.text).encode(encoding)


def streamed(data: bytes, size: int) -> ValidationResult:
    return validate_source(lambda: (data[at : at + size] for at in range(0, len(data), size)))


@pytest.mark.parametrize("encoding", ENCODINGS)
@some_documents
@given(data=st.data())
def test_any_document_in_any_encoding_is_accepted_with_exact_counts(encoding, data):
    document = data.draw(documents(encoding))
    report = written(document, encoding)

    verdict = validate_bytes(report)

    assert isinstance(verdict, Valid), verdict
    expected = {name: getattr(document, name) for name in TOTALS} | {"time_us": document.time_us or 0}
    expected |= {"suite_errors": 0, "disabled": 0}
    assert asdict(verdict.counts) == expected
    assert not [note for note in verdict.notes if "totals" in note or "not counted" in note]
    assert streamed(report, data.draw(st.integers(1, 500))) == verdict


@pytest.mark.parametrize("encoding", ENCODINGS)
@some_documents
@given(data=st.data())
def test_any_prefix_that_ends_before_the_root_does_is_rejected(encoding, data):
    report = written(data.draw(documents(encoding)), encoding)
    cut = data.draw(st.integers(0, len(report) - 1))

    verdict = validate_bytes(report[:cut])

    assert isinstance(verdict, Invalid)
    assert isinstance(streamed(report[:cut], 7), Invalid)
