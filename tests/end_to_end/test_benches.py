"""Benches that nothing else runs still work: each with little load. Their figures are not checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {
    "scale.py --engine sqlite --builds 2000 --rounds 2": ["accept: a new build", "cleanup: blobs"],
    "deliver.py --quick": ["gateway to naive bridge"],
}


@pytest.mark.parametrize("command", PARTS)
def test_a_bench_measures_all_that_it_compares(command, tmp_path):
    script, *options = command.split()
    ran = subprocess.run(
        [sys.executable, f"bench/{script}", *options, "--folder", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert [part for part in PARTS[command] if part not in ran.stdout] == []
    assert "did not" not in ran.stdout
    assert "rejected" not in ran.stdout
