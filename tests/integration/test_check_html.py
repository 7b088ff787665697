"""`bridge check --html`: the reports that would be accepted, as one page."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.ledger import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
RED = b'<testsuite><testcase name="breaks"><failure message="boom &lt;b&gt;"/></testcase></testsuite>'
GREEN = b'<testsuite><testcase name="works"/></testsuite>'


def check(folder, *arguments):
    command = [sys.executable, "-m", "bridge", "check", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )


def test_reports_become_one_page_with_those_that_fail_first(tmp_path):
    for name, body in (("a.xml", GREEN), ("b.xml", RED), ("c.xml", b"<html/>")):
        (tmp_path / name).write_bytes(body)
    done = check(tmp_path, "a.xml", "b.xml", "c.xml", "--html", "out.html")
    assert done.returncode == 1  # c.xml would be rejected
    assert "Wrote 2 reports to out.html." in done.stderr
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.index("b.xml") < page.index("a.xml")
    assert "boom &lt;b&gt;" in page
    assert "<script" not in page


def test_an_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "a.xml").write_bytes(GREEN)
    (tmp_path / "out.html").write_text("mine")
    done = check(tmp_path, "a.xml", "--html", "out.html")
    assert done.returncode != 0
    assert "out.html exists. Name a new file after --html." in done.stderr
    assert (tmp_path / "out.html").read_text() == "mine"
