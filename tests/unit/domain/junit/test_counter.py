"""Which elements count: cases in suites, outcomes of cases, errors of suites."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.junit import validated

CASE = '<testcase name="p"/>'
RED = '<testcase name="q"><failure message="wanted"/></testcase>'
SUITE = f'<testsuite name="x">{RED}</testsuite>'


@pytest.mark.parametrize(
    "report",
    [
        f"<testsuites>{RED}</testsuites>",
        f"<testsuites>{SUITE}</testsuites>",
        f"<testsuites><testsuite><testsuite>{SUITE}</testsuite></testsuite></testsuites>",
        SUITE,
        f"<testsuite>{SUITE}</testsuite>",
        f'<a:testsuites xmlns:a="urn:a" xmlns="urn:b">{SUITE}</a:testsuites>',
    ],
)
def test_a_case_counts_if_all_around_it_are_suites(report: str):
    result = validated(report)
    assert (result.counts.tests, result.counts.failures) == (1, 1)


@pytest.mark.parametrize(
    "inside",
    [
        f"<system-out>made: {SUITE}</system-out>",
        f"<system-err>{RED}</system-err>",
        f"<properties><property>{RED}</property></properties>",
        f'<testcase name="outer">{RED}</testcase>',
        f'<testcase name="outer"><system-out><testsuites>{SUITE}</testsuites></system-out></testcase>',
        f'<testcase name="outer"><skipped>{SUITE}</skipped></testcase>',
        f"<tests>{RED}</tests>",
        f"<undefined>{SUITE}</undefined>",
        f"<testsuites>{SUITE}</testsuites>",
    ],
)
@pytest.mark.parametrize("root", ["testsuite", "testsuites"])
def test_markup_elsewhere_is_not_counted_but_noted(inside: str, root: str):
    result = validated(f'<{root}>{CASE}<testsuite name="s">{CASE}{inside}{CASE}</testsuite></{root}>')
    counts = result.counts
    assert (counts.tests - inside.count("outer"), counts.failures, counts.suite_errors) == (3, 0, 0)
    assert counts.suites == 1 + (root == "testsuite")
    assert "1 testcase element outside of the suites, such as in system-out, is not counted" in result.notes


@pytest.mark.parametrize("outcome", ["failure", "error", "skipped", "flakyFailure", "rerunError"])
def test_an_outcome_counts_only_as_a_child_of_its_case(outcome: str):
    result = validated(
        f'<testsuite><testcase name="a"><system-out><{outcome}/></system-out><x><{outcome}/></x></testcase></testsuite>'
    )
    counts = result.counts
    assert (counts.tests, counts.failures, counts.errors, counts.skipped, counts.flaky) == (1, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("report", "suite_errors"),
    [
        (f'<testsuites><testsuite name="db">{CASE}<error message="afterAll"/></testsuite></testsuites>', 1),
        ('<testsuites><testsuite name="db"><failure/></testsuite></testsuites>', 1),
        ("<testsuite><error/><error/><failure/></testsuite>", 1),
        ("<testsuites><error>hook</error></testsuites>", 1),
        ("<testsuites><testsuite><error/></testsuite><testsuite><failure/></testsuite></testsuites>", 2),
        ("<testsuite><error/><testsuite><testsuite><error/></testsuite></testsuite></testsuite>", 2),
        (f"<testsuite><system-out><error/></system-out><properties><failure/></properties>{CASE}</testsuite>", 0),
        (f"<testsuite>{CASE}<skipped/><flakyError/></testsuite>", 0),
        ('<a:testsuite xmlns:a="urn:a"><a:error/></a:testsuite>', 1),
    ],
)
def test_suites_with_errors_outside_any_test_are_counted(report: str, suite_errors: int):
    counts = validated(report).counts
    assert counts.suite_errors == suite_errors
    assert (counts.failures, counts.errors) == (0, 0)


@pytest.mark.parametrize(
    ("children", "flaky"),
    [
        ("<flakyFailure/>", 1),
        ("<flakyError/><flakyFailure/>", 1),
        ("<flakyError/><rerunFailure/>", 1),
        ('<failure message="a"/><rerunFailure message="a"/><rerunFailure message="a"/>', 0),
        ("<error/><rerunError/>", 0),
        ("<failure/><flakyFailure/>", 0),
        ("<flakyError/><error/>", 0),
        ("<skipped/><flakyFailure/>", 0),
    ],
)
def test_flaky_is_what_passed_in_the_end(children: str, flaky: int):
    assert validated(f'<testsuite><testcase name="x">{children}</testcase></testsuite>').counts.flaky == flaky


def test_a_suite_with_a_hundred_thousand_errors_counts_once_and_names_one():
    result = validated('<testsuite name="s">' + '<error message="e">x</error>' * 100_000 + "</testsuite>")
    assert result.counts.suite_errors == len(result.highlights.failures) == 1


def test_cases_that_are_counted_together_are_counted_as_one_by_one():
    """Several chunks of a digest, suites between cases, names that occur again, and all that makes a case special."""
    special = (
        '<testcase name="c1" classname="K1"/>',
        '<testcase name=" "/>',
        f'<testcase classname="{"k" * 400}" name="{"n" * 400}" time="{"1" * 50}"/>',
        '<testcase name="s" classname="" status="notrun" time="x"/>',
        '<testcase name="r" result="failed" time="1,5"/>',
        '<testcase name="f" status="notrun"><failure message="a &amp; b">at K.java:3</failure><skipped/></testcase>',
        '<testcase name="c2" classname="K2"><error>e</error><failure/></testcase>',
        '<testcase name="k"><flakyFailure/></testcase>',
    )
    plain = [f'<testcase name="c{at}" classname="K{at // 100}" time="0.{at:03}"/>' for at in range(1_203)]
    inside = "".join((*plain[:499], *special, *plain[499:]))
    nested = f'<testsuite name="in" time="3">{"".join(special)}</testsuite><error>outside</error>'
    result = validated(f'<testsuite tests="9">{inside}{nested}{"".join(special)}</testsuite>')
    assert result.counts.tests == len(plain) + 3 * len(special)
    assert (result.counts.failures, result.counts.errors, result.counts.disabled, result.counts.flaky) == (3, 3, 3, 3)


TAGS = st.sampled_from(
    ["testsuites", "testsuite", "testcase", "failure", "error", "skipped", "flakyFailure", "system-out", "x"]
)
ATTRIBUTES = st.sets(
    st.sampled_from(
        (
            *('name="a"', 'classname="K &amp; L"', 'tests="1"', 'failures="2"', 'time="1"', 'status="notrun"'),
            *('message="m &amp; n.py:3"', 'file="f.py"', 'line="3"', 'result="failed"'),
        )
    ),
    max_size=4,
)
TEXTS = st.sampled_from(["", "t.py:12 x", " \n", "a &amp; b", "<!-- c -->", "<![CDATA[<q>]]>", "<?p i?>", "&lt;"])
ELEMENTS = st.recursive(
    TEXTS,
    lambda inner: st.builds(
        lambda tag, attributes, content: f"<{tag} {' '.join(sorted(attributes))}>{''.join(content)}</{tag}>",
        TAGS,
        ATTRIBUTES,
        st.lists(inner, max_size=4),
    ),
    max_leaves=12,
)


@pytest.mark.property
@given(root=st.sampled_from(["testsuites", "testsuite"]), attributes=ATTRIBUTES, content=st.lists(ELEMENTS, max_size=4))
def test_any_nesting_is_counted_alike_in_a_tree_and_in_a_stream(root: str, attributes: set[str], content: list[str]):
    validated(f"<{root} {' '.join(sorted(attributes))}>{''.join(content)}</{root}>")
