"""`bridge check`: output and exit status."""

import json
from pathlib import Path

import pytest

from bridge.cli import main

REPORT = b'<testsuite tests="2" time="1.5"><testcase/><testcase><failure/></testcase></testsuite>'


@pytest.fixture
def bridge(capsys):
    """Run a command in this process; return its status, its stdout and its stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("good.xml").write_bytes(REPORT)
    Path("jacoco.xml").write_bytes(b"<report/>")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_good_files_and_strangers_beside_them_end_with_zero(bridge):
    status, out, err = bridge("check", ".")

    assert (status, err) == (0, "")
    assert "2 files: 1 accepted, 1 skipped." in out
    assert "jacoco.xml: this is a JaCoCo coverage report, not JUnit." in out


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("argument", ["jacoco.xml", "nowhere.xml", "*.html"])
def test_any_fault_ends_with_one(bridge, argument):
    status, out, _ = bridge("check", "good.xml", argument)

    assert status == 1
    assert "2 files: 1 accepted, 1 rejected." in out


@pytest.mark.usefixtures("folder")
def test_long_names_are_not_wrapped_in_a_pipe(bridge):
    name = f"TEST-{'x' * 200}.xml"
    Path(name).write_bytes(REPORT)

    _, out, _ = bridge("check", name)

    assert name in out


@pytest.mark.usefixtures("folder")
def test_json_is_one_document_on_stdout_and_nothing_else(bridge):
    status, out, err = bridge("check", "--json", "*.xml")

    told = json.loads(out)
    assert (status, err, list(told)) == (0, "", ["files"])
    assert [(row["path"], row["status"], row["tests"], row["time"]) for row in told["files"]] == [
        ("good.xml", "accepted", 2, 1.5),
        ("jacoco.xml", "skipped", None, None),
    ]


def test_many_files_show_no_progress_in_a_pipe(bridge, folder):
    for number in range(30):
        (folder / f"{number}.xml").write_bytes(REPORT)

    status, _, err = bridge("check", folder)

    assert (status, err) == (0, "")


def test_repair_writes_beside_and_leaves_the_input_alone(bridge, folder):
    broken = '<testsuite><testcase name="登录失败测试"/><testcase>'.encode("gbk")
    (folder / "broken.xml").write_bytes(broken)

    status, out, err = bridge("check", "broken.xml", "good.xml", "--repair", "out")

    assert status == 0
    assert "broken.xml: Its bytes are gb18030, not utf-8; it was converted to UTF-8." in out
    assert err == "Wrote 2 files to out, as they would be sent.\n"
    assert (folder / "broken.xml").read_bytes() == broken
    assert (folder / "out/good.xml").read_bytes() == REPORT
    assert bridge("check", "out")[0] == 0


def test_repair_into_a_folder_that_is_not_empty_is_rejected(bridge, folder):
    status, out, err = bridge("check", "good.xml", "--repair", folder)

    assert (status, out) == (1, "")
    assert err.endswith("exists and is not an empty folder. Name a new folder after --repair.\n")
    assert (folder / "good.xml").read_bytes() == REPORT


def test_what_a_report_states_outside_its_cases_is_shown_with_its_first_failures(bridge, tmp_path):
    (tmp_path / "db.xml").write_bytes(
        b'<testsuite name="db"><testcase classname="db" name="opens" file="db.py" line="3"><failure message="boom"/>'
        b'</testcase><testcase name="a"><flakyError/></testcase><testcase name="b" status="disabled"/>'
        b'<error message="afterAll\n\xe2\x80\xae"/></testsuite>'
    )

    status, out, _ = bridge("check", tmp_path / "db.xml")

    assert status == 0
    assert "db.xml: 1 suite reports errors outside any test: the root: afterAll" in out
    assert "db.xml: failed: db opens (db.py:3): boom" in out
    assert "db.xml: failed: suite db: afterAll \\u202e" in out
    assert "db.xml: flaky: a" in out

    [told] = json.loads(bridge("check", "--json", tmp_path / "db.xml")[1])["files"]

    assert (told["suite_errors"], told["disabled"], told["flaky"], told["flaky_tests"]) == (1, 1, 1, ["a"])
    assert told["first_failures"][0] == {
        "name": "opens",
        "classname": "db",
        "message": "boom",
        "file": "db.py",
        "line": 3,
    }
