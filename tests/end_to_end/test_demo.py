"""`bridge demo` as a new user runs it: a process, its table, its status, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

PATIENCE_SECONDS = 180  # more than the demo gives itself
TITLES = ("green, Maven", "red, pytest", "twelve files, 3 nodes", "GBK, Chinese text")


@pytest.fixture
def start(tmp_path):
    """Start the demo in a process of its own, its temporary files in the test's folder."""
    started = []

    def begin(*arguments):
        command = [sys.executable, "-m", "bridge", "demo", *arguments]
        environ = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "80"}
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        with process:
            process.kill()


@pytest.mark.early
@pytest.mark.parametrize("options", [(), ("--postgres",), ("--s3",), ("--postgres", "--s3")], ids=" ".join)
def test_the_demo_ends_well_only_with_every_run_processed_and_leaves_nothing(start, tmp_path, options):
    demo = start(*options)
    out, err = demo.communicate(timeout=PATIENCE_SECONDS)

    assert (demo.returncode, err) == (0, "")
    rows = {title: cells(out, title) for title in TITLES}
    assert rows["green, Maven"][:3] == ["3", "44", "0"]
    assert rows["red, pytest"][:3] == ["2", "10", "4"]
    assert rows["twelve files, 3 nodes"][:3] == ["12", "72", "0"]
    assert rows["GBK, Chinese text"][:3] == ["1", "4", "1"]
    assert len({row[3] for row in rows.values()}) == 4  # a run each
    assert {row[4] for row in rows.values()} == {"processed"}
    assert all(float(row[5]) >= 0.5 for row in rows.values())  # never before the settle time
    assert max(map(len, out.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


def test_the_demo_goes_on_running_when_it_is_asked_to(start):
    demo = start("--keep")
    addresses = {}
    for line in demo.stdout:
        if match := re.match(r"(Server|Admin|Sandbox) +(http://\S+)", line):
            addresses[match[1]] = match[2]
        if "Ctrl-C" in line:
            break

    for url in (f"{addresses['Server']}/readyz", f"{addresses['Admin']}/readyz", f"{addresses['Sandbox']}/runs"):
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310  # the demo's own address
            assert answer.status == 200
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 0


def cells(out, title):
    """Return what stands in the row of a build, after its title."""
    row = next(line for line in out.splitlines() if line.strip().startswith(title))
    return row.strip().removeprefix(title).replace(" s", "").split()
