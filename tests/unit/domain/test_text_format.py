import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.text_format import (
    MAX_CLAUSE_CHARACTERS,
    capital,
    cause_and_action,
    clause,
    clause_or_unknown,
    counted,
    lasting,
    page_url,
    rfc3339,
    span,
)

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_767_323_045_678_901, "2026-01-02T03:04:05.678901Z"),
        (1_767_323_045_000_000, "2026-01-02T03:04:05.000000Z"),
    ],
)
def test_times_are_rfc_3339_with_every_microsecond(at, text):
    assert rfc3339(at) == text


@pytest.mark.parametrize(
    ("microseconds", "words"),
    [
        (-5, "a moment"),
        (SECOND - 1, "a moment"),
        (SECOND, "1 second"),
        (59 * SECOND, "59 seconds"),
        (180 * SECOND, "3 minutes"),
        (3600 * SECOND, "1 hour"),
        (49 * 3600 * SECOND, "2 days"),
    ],
)
def test_a_span_is_said_in_the_largest_unit_that_fits(microseconds, words):
    assert span(microseconds) == words


def test_what_lasts_never_lasts_for_a_moment():
    assert [lasting(time) for time in (0, SECOND, 180 * SECOND)] == [
        "for less than a second",
        "for 1 second",
        "for 3 minutes",
    ]


def test_where_nothing_was_said_that_is_said():
    assert [clause_or_unknown(text) for text in (None, "", " . ", "No. Yes.")] == [
        *["nothing more is known"] * 3,
        "No; Yes",
    ]


def test_only_one_goes_without_an_s():
    assert [counted(count, "report") for count in (0, 1, 2)] == ["0 reports", "1 report", "2 reports"]


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("Project not found.", "Project not found"),
        ("It is full. Free some\n  space.", "It is full; Free some space"),
        ("见报告。请重试。", "见报告; 请重试"),
        ("see https://s3.test/a.xml?x=1 now", "see https://s3.test/a.xml?x=1 now"),
    ],
)
def test_sentences_become_one_clause(text, joined):
    assert clause(text) == joined


def test_a_long_text_is_cut():
    assert clause("x" * 1000) == "x" * MAX_CLAUSE_CHARACTERS + "…"


@given(st.text(alphabet="ab.!?。 \n;", max_size=400))
def test_a_clause_never_ends_a_sentence(text):
    joined = clause(text)
    assert not any(f"{mark} " in joined for mark in ".!?")
    assert not joined.endswith((".", "!", "?", "。"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Too large. Split it.", ("Too large", "split it")),
        ("Too large.", ("Too large", "correct this")),
        ("It failed. Look at the log. Then retry.", ("It failed", "look at the log; Then retry")),
        ("", ("nothing more is known", "correct this")),
    ],
)
def test_a_message_of_two_sentences_is_cause_and_action(text, parts):
    assert cause_and_action(text, "correct this") == parts


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://nod.test/runs/1", "https://nod.test/runs/1"),
        ("HTTP://nod.test", "HTTP://nod.test"),
        ("https://nod.test/a@b", "https://nod.test/a@b"),
        ("https://u:p@v@nod.test/a@b?q#f", "https://nod.test/a@b"),
        ("https://nod.test?q", "https://nod.test"),
        ("https://nod.test#f?q\n", ""),
        ("https://?q", ""),
        ("https://", ""),
        ("https://a b", ""),
        ("javascript:alert(1)//https://nod.test", ""),
        ("data:text/html,x", ""),
        ("nod.test/runs/1", ""),
        ("", ""),
    ],
)
def test_a_page_is_shown_without_what_may_be_secret_in_its_url(url, shown):
    assert page_url(url) == shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the file ends too early", "The file ends too early"),
        ("build 7 of job x", "Build 7 of job x"),
        ("at least, 3 uploads", "At least, 3 uploads"),
        ("status", "Status"),
        ("report.xml: the file ends too early", "report.xml: the file ends too early"),
        ("report: the file ends too early", "report: the file ends too early"),
        ("dir/report.xml is no report", "dir/report.xml is no report"),
        ("project_token is rejected", "project_token is rejected"),
        ("store.url: no such host", "store.url: no such host"),
        ("报告.xml: 不是", "报告.xml: 不是"),
        ("", ""),
    ],
)
def test_a_sentence_begins_with_a_capital_unless_a_name_begins_it(text, expected):
    assert capital(text) == expected
