"""The first failures as people read them: test, file and line, message."""

from html import escape

import pytest

from bridge.domain.junit.result import Failure
from tests.support.junit import validated


def first(case: str, outcome: str, text: str = "", tag: str = "failure") -> Failure:
    report = f"<testsuite><testcase {case}><{tag} {outcome}>{escape(text)}</{tag}></testcase></testsuite>"
    [failure] = validated(report).highlights.failures
    return failure


JAVA = """org.opentest4j.AssertionFailedError: expected: <1> but was: <2>
\tat org.junit.jupiter.api.AssertEquals.failNotEqual(AssertEquals.java:197)
\tat shop.Cart.total(Cart.java:31)
\tat shop.CartTest.adds(CartTest.java:12)
\tat java.base/java.lang.reflect.Method.invoke(Method.java:566)"""
PYTEST = """def test_adds():
>       assert add(1, 1) == 3
E       assert 2 == 3

tests/test_cart.py:12: AssertionError"""
PYTHON = """Traceback (most recent call last):
  File "/usr/lib/python3.11/unittest/mock.py", line 1375, in patched
    return func(*newargs)
  File "/build/my shop/test_cart.py", line 12, in test_adds
    self.assertEqual(1, 2)
AssertionError: 1 != 2"""
JEST = """Error: expect(received).toBe(expected)
    at Object.toBe (/build/node_modules/expect/index.js:9:1)
    at Object.<anonymous> (/build/src/cart.test.ts:12:34)"""


@pytest.mark.parametrize(
    ("case", "outcome", "text", "file", "line"),
    [
        ('name="a" file="t.cc" line="12"', "", "", "t.cc", 12),
        ('name="a" file="t.js"', 'message="boom"', "at t.js:12:3", "t.js", 12),
        ('name="a" file="t.js"', 'message="boom"', "at lib/other.js:12:3", "t.js", None),
        ('name="a" filepath="t.rb" lineno="12"', "", "", "t.rb", 12),
        ('name="a"', 'file="t.exs" line="12"', "", "t.exs", 12),
        ('name="a"', 'message="t.cc:12&#10;Expected: 1"', "", "t.cc", 12),
        ('classname="shop.CartTest" name="adds"', 'message="x"', JAVA, "CartTest.java", 12),
        ('classname="shop.CartTest$Inner" name="adds"', "", JAVA, "CartTest.java", 12),
        ('classname="shop.Other" name="adds"', 'message="x"', JAVA, "", None),
        ('classname="tests.test_cart" name="test_adds"', 'message="x"', PYTEST, "tests/test_cart.py", 12),
        ('classname="" name="test_adds"', "", PYTEST, "tests/test_cart.py", 12),
        ('classname="test_cart.Cart" name="test_adds"', 'type="E"', PYTHON, "/build/my shop/test_cart.py", 12),
        ('classname="cart" name="adds"', "", JEST, "/build/src/cart.test.ts", 12),
        ('name="a"', "", "at file:///build/a.test.mjs:12:5", "/build/a.test.mjs", 12),
        ('name="a"', "", r"   at Shop.Tests.Adds() in C:\src\CartTests.cs:line 12", r"C:\src\CartTests.cs", 12),
        ('name="a"', "", "src/cart.test.ts(12,5): error TS2322", "src/cart.test.ts", 12),
        ('name="a"', "", "(in test file test/cart.bats, line 12)", "test/cart.bats", 12),
        ('name="a"', "", "/build/CartTest.php:12", "/build/CartTest.php", 12),
        ('name="a"', "", "\tcart_test.go:12: want 1, got 2", "cart_test.go", 12),
        ('name="a"', "", "测试/购物车.py:12: 断言", "测试/购物车.py", 12),
        ('name="a"', 'message="http://shop.example.com:8080 and 10.0.0.1:80 at 12:30:45"', "", "", None),
        ('name="a"', 'message="version 1.2.3:4"', "no file.txt:12", "", None),
        ('name="a" file="t.cc" line="-1"', "", "", "t.cc", None),
        ('name="a" file="t.cc" line="12345678901"', "", "", "t.cc", None),
        ('name="a" line="12"', "", "", "", None),
    ],
)
def test_file_and_line_are_those_of_the_report_or_none(case, outcome, text, file, line):
    failure = first(case, outcome, text)
    assert (failure.file, failure.line) == (file, line)


@pytest.mark.parametrize(
    ("outcome", "text", "message"),
    [
        ('message="a &amp; b &lt;c&gt;"', "", "a & b <c>"),
        ('message="&amp;#38; stays"', "", "&#38; stays"),
        ('message="one&#10;  two&#9;three"', "other", "one two three"),
        ("", "\n\n  first line\nsecond", "first line"),
        ('message=""', "first line\nsecond", "first line"),
        ('message=" &#10; "', "first & only", "first & only"),
        ('message="t.cc:12&#10;Expected: 1"', "", "Expected: 1"),
        ("", "CartTest::adds\nRuntimeException: boom", "RuntimeException: boom"),
        ('type="AssertionError"', "", "AssertionError"),
        ("", "", ""),
        (f'message="{"x" * 9_000}"', "", "x" * 159 + "…"),
    ],
)
def test_the_message_is_one_short_line(outcome, text, message):
    assert first('classname="CartTest" name="adds"', outcome, text).message == message


@pytest.mark.parametrize("size", [3_990, 4_000, 6_001, 100_000])
def test_a_location_at_the_end_of_a_long_text_is_found(size: int):
    failure = first('name="a"', 'message="x"', "y" * size + "\n" + PYTEST)
    assert (failure.file, failure.line) == ("tests/test_cart.py", 12)


def test_text_behind_a_comment_and_in_cdata_belongs_to_the_failure():
    text = "<!-- a --><![CDATA[expected <1>]]><!-- b --> here<?c?> <!-- d -->and<!-- e -->\n<!-- f -->or <x/>not here"
    [failure] = validated(
        f"<testsuite><testcase name='a'><failure>{text}</failure></testcase></testsuite>"
    ).highlights.failures
    assert failure.message == "expected <1> here and"


def test_the_first_five_failures_and_flaky_tests_are_kept():
    cases = "".join(
        f'<testcase classname="c" name="r{n}"><error message="m"/></testcase>'
        f'<testcase classname="c" name="f{n}"><flakyError/></testcase>'
        for n in range(9)
    )
    highlights = validated(f"<testsuite>{cases}</testsuite>").highlights
    assert [failure.name for failure in highlights.failures] == ["r0", "r1", "r2", "r3", "r4"]
    assert highlights.flaky == ("c f0", "c f1", "c f2", "c f3", "c f4")


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (Failure(name="adds", classname="Cart", message="x", file="a.py", line=3), "Cart adds (a.py:3): x"),
        (Failure(name="adds", classname="", message="x", file="a.py"), "adds (a.py): x"),
        (Failure(name="adds", classname="adds", message=""), "adds"),
        (Failure(name="", classname="db", message="x"), "suite db: x"),
        (Failure(name="", classname="", message=""), "suite"),
    ],
)
def test_a_failure_is_one_line(failure: Failure, text: str):
    assert str(failure) == text


def test_an_error_outside_any_test_is_a_failure_of_its_suite():
    report = '<testsuites><testsuite name="db"><error message="import failed">db.py:7</error></testsuite></testsuites>'
    assert validated(report).highlights.failures == (
        Failure(name="", classname="db", message="import failed", file="db.py", line=7),
    )
