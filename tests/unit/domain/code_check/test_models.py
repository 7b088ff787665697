from dataclasses import replace

import pytest

from bridge.domain.code_check.models import COUNTERS, CheckReport, IssueKind, check_limits, summary_of
from tests.unit.domain.builders import RULES

FOUND = (("critical", 0), ("CRITICAL", 4), ("major", 4), ("NEW", 122))


def report(*numbers):
    return CheckReport(numbers=numbers, tools=(), url=None)


@pytest.mark.parametrize(
    ("numbers", "count"),
    [
        ((("critical", 1), ("CRITICAL", 4), ("FATAL", 9)), 1),
        ((("CRITICAL", 4), ("FATAL", 9)), 9),
        ((("CRITICAL", 4),), None),
    ],
    ids=["its own key", "its other key", "a key that differs by case counts something else"],
)
def test_critical_issues_are_counted_by_the_key_that_means_them(numbers, count):
    assert report(*numbers).count(IssueKind.CRITICAL) == count


@pytest.mark.parametrize(
    ("kind", "key"), [("major", "CRITICAL"), ("minor", "GENERAL"), ("suggestion", "PROMPT"), ("new", "UNRESOLVED_ADD")]
)
def test_every_kind_has_a_second_key(kind, key):
    assert report((key, 7)).count(IssueKind(kind)) == 7


@pytest.mark.parametrize(
    ("limit", "kept", "sentence"),
    [
        ((IssueKind.MAJOR, 4), True, "4 major issues, at most 4 allowed"),
        ((IssueKind.MAJOR, 3), False, "4 major issues, at most 3 allowed"),
        ((IssueKind.MINOR, 3), False, "the report does not count minor issues, at most 3 allowed"),
        ((IssueKind.NEW, 0), False, "122 new issues, at most 0 allowed"),
        ((IssueKind.CRITICAL, 0), True, "0 critical issues, at most 0 allowed"),
    ],
)
def test_a_limit_is_kept_up_to_its_number_and_never_by_a_number_that_is_missing(limit, kept, sentence):
    (held,) = check_limits(report(*FOUND), replace(RULES, limits=(limit,)))
    assert (held.is_kept, held.sentence) == (kept, sentence)


def test_one_issue_is_not_several():
    (held,) = check_limits(report(("suggestion", 1)), replace(RULES, limits=((IssueKind.SUGGESTION, 0),)))
    assert held.sentence == "1 suggestion, at most 0 allowed"


@pytest.mark.parametrize(
    ("limits", "summary"),
    [
        ((), "no limits are set"),
        (((IssueKind.CRITICAL, 0), (IssueKind.MAJOR, 9)), "all limits kept (2)"),
        (
            ((IssueKind.CRITICAL, 0), (IssueKind.MAJOR, 0), (IssueKind.NEW, 1)),
            "4 major issues, at most 0 allowed; 122 new issues, at most 1 allowed",
        ),
    ],
)
def test_a_summary_says_what_is_broken(limits, summary):
    assert summary_of(report(*FOUND), replace(RULES, limits=limits)) == summary


# -- counts that cannot be read --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", IssueKind)
def test_a_count_that_cannot_be_read_is_not_replaced_by_the_other_key(kind):
    first, second = COUNTERS[kind]
    unreadable = CheckReport(numbers=((second, 0),), tools=(), url=None, unreadable=(first,))
    assert (unreadable.count(kind), unreadable.is_unreadable(kind)) == (None, True)

    readable = CheckReport(numbers=((first, 2),), tools=(), url=None, unreadable=(second,))
    assert (readable.count(kind), readable.is_unreadable(kind)) == (2, False)

    only_second = CheckReport(numbers=(), tools=(), url=None, unreadable=(second,))
    assert (only_second.count(kind), only_second.is_unreadable(kind)) == (None, True)


def test_a_limit_on_a_count_that_cannot_be_read_is_not_kept():
    rules = replace(RULES, limits=((IssueKind.CRITICAL, 0), (IssueKind.MAJOR, 9)))
    unreadable = CheckReport(numbers=(("FATAL", 0), ("major", 4)), tools=(), url=None, unreadable=("critical",))
    critical, major = check_limits(unreadable, rules)
    assert (critical.is_kept, major.is_kept) == (False, True)
    said = "CodeArts Check's number of critical issues cannot be read, at most 0 allowed"
    assert critical.sentence == said
    assert summary_of(unreadable, rules) == said
