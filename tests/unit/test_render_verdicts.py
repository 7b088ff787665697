"""docs/verdicts.md has the current results of validation, beside those of other readers."""

import pytest

from docs.made_reports import MADE
from docs.render_verdicts import COLUMNS, PAGE, REAL, page, table

TEXT = PAGE.read_text(encoding="utf-8")


def row(name: str) -> list[str]:
    [line] = table({name: MADE[name]}).removeprefix(COLUMNS).splitlines()
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_states_of_made_reports_what_validation_states_of_them_today():
    assert TEXT.endswith(table(MADE)), "docs/verdicts.md is stale. Run `make verdicts CORPUS=folder`."


def test_every_file_of_the_corpus_has_its_row(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/one.xml").write_bytes(b"<testsuite><testcase name='a'/></testsuite>")
    (tmp_path / "LICENSE").write_bytes(b"")

    rendered = page(tmp_path)

    assert REAL.format(count=1) in rendered
    assert "| `a/one.xml` | 1 suite, 1 test, 0.000 s |  | yes | yes, 1 test | yes |\n" in rendered
    assert "LICENSE" not in rendered


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("declared in GBK", ["no", "yes, 2 tests", "no"]),
        ("cut after its first case", ["no", "no", "yes"]),
        ("a namespaced root", ["yes", "no", "no"]),
        ("JaCoCo", ["yes", "no", "no"]),
    ],
)
def test_the_other_readers_say_what_they_say(name, beside):
    assert row(name)[3:] == beside


def test_what_a_file_brings_cannot_break_the_page():
    data = b'<testsuite tests="a|b*c_d&lt;e&amp;"/>'

    assert "tests a\\|b\\*c\\_d&lt;e&amp; (counted 0)" in table({"odd": data})
