"""`bridge check` as a person meets it: what it prints where, and the status it ends with."""

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
    assert "2 files: 1 ok, 1 passed over." in out
    assert "jacoco.xml: this is a JaCoCo coverage report, not JUnit." in out


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("argument", ["jacoco.xml", "nowhere.xml", "*.html"])
def test_any_fault_ends_with_one(bridge, argument):
    status, out, _ = bridge("check", "good.xml", argument)

    assert status == 1
    assert "2 files: 1 ok, 1 refused." in out


@pytest.mark.usefixtures("folder")
def test_long_names_stay_whole_where_no_terminal_cuts_them(bridge):
    name = f"TEST-{'x' * 200}.xml"
    Path(name).write_bytes(REPORT)

    _, out, _ = bridge("check", name)

    assert name in out


@pytest.mark.usefixtures("folder")
def test_json_is_one_document_on_stdout_and_nothing_else(bridge):
    status, out, err = bridge("check", "--json", "*.xml")

    told = json.loads(out)
    assert (status, err, list(told)) == (0, "", ["files"])
    assert [(row["path"], row["verdict"], row["tests"], row["time"]) for row in told["files"]] == [
        ("good.xml", "ok", 2, 1.5),
        ("jacoco.xml", "passed over", None, None),
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
    assert err == "Written into out, as they would be sent: 2.\n"
    assert (folder / "broken.xml").read_bytes() == broken
    assert (folder / "out/good.xml").read_bytes() == REPORT
    assert bridge("check", "out")[0] == 0


def test_repair_into_a_folder_that_is_not_empty_is_refused(bridge, folder):
    status, out, err = bridge("check", "good.xml", "--repair", folder)

    assert (status, out) == (1, "")
    assert err.endswith("is there already and not an empty folder. Name a new one after --repair.\n")
    assert (folder / "good.xml").read_bytes() == REPORT
