"""`bridge check --rewrite`: rules are tried on files, without a gateway."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli import app

REPORT = (
    '<testsuites><testsuite name="s">'
    '<testcase classname="Chrome 120.0.1 (Linux).cart" name="adds 1"/>'
    '<testcase classname="Chrome 120.0.1 (Linux).cart" name="adds 2"/>'
    '<testcase classname="cart" name="is empty"/></testsuite></testsuites>'
)
RULES = """[[routes.rewrite]]
attribute = "classname"
pattern = 'Chrome [0-9.]+'
replacement = "Chrome"
"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.xml"
    path.write_text(REPORT)
    return path


def check(report: Path, rules: str, *options: str) -> tuple[int, str]:
    path = report.parent / "rules.toml"
    path.write_text(rules)
    done = CliRunner().invoke(app, ["check", str(report), "--rewrite", str(path), *options])
    return done.exit_code, done.output + str(done.exception or "")


def test_names_before_and_after_are_shown(report: Path) -> None:
    code, output = check(report, RULES)
    assert code == 0
    assert "Rule 1 (classname, Chrome [0-9.]+): 2 names." in output
    assert "Chrome 120.0.1 (Linux).cart → Chrome (Linux).cart" in output


def test_tests_that_get_one_name_are_named(report: Path) -> None:
    rules = RULES + "[[routes.rewrite]]\nattribute = 'name'\npattern = ' [0-9]+$'\n"
    code, output = check(report, rules, "--json")
    assert code == 0
    found = json.loads(output)["rewritten"]
    assert [rule["names"] for rule in found["rules"]] == [2, 2]
    assert found["equal"] == [{"path": str(report), "name": "Chrome (Linux).cart adds"}]
    assert {"attribute": "name", "before": "adds 1", "after": "adds"} in found["names"]


def test_the_rules_of_one_route_of_a_settings_file_are_tried(report: Path) -> None:
    settings = "".join(f'[[routes]]\nname = "{name}"\n{RULES}' for name in ("shop", "other"))
    assert "rules of several routes: shop, other" in check(report, settings)[1]
    assert check(report, settings, "--route", "other")[0] == 0
    assert "no rules of the route none" in check(report, settings, "--route", "none")[1]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (RULES.replace("[0-9.]+'", "('"), "routes.rewrite[0].pattern (line 3): is not a regular expression"),
        (RULES.replace("classname", "suite"), "routes.rewrite[0] (line 2): is not a rule."),
        ("[[routes", "cannot be read"),
        ("", "has no rules"),
    ],
)
def test_rules_that_cannot_be_used_are_explained(report: Path, rules: str, message: str) -> None:
    code, output = check(report, rules)
    assert code != 0
    assert message in output


def test_what_is_written_has_the_new_names(report: Path, tmp_path: Path) -> None:
    check(report, RULES, "--repair", str(tmp_path / "out"))
    assert 'classname="Chrome (Linux).cart" name="adds 1"' in (tmp_path / "out" / "report.xml").read_text()
