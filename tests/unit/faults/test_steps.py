import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.steps import STEPS, find

ROOT = Path(__file__).parents[3]
DIES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.faults.steps import die_at
armed = Path(sys.argv[3])
die_at("claim", sys.argv[2], 2, armed=armed)
from bridge.worker import dispatcher
for number in range(6):
    if number == 3:
        armed.touch()
    list(dispatcher.claim(None, 0, ()))
    print(number, end=" ", flush=True)
"""


@pytest.mark.parametrize("step", STEPS)
def test_every_named_step_is_a_function_of_the_product(step):
    owner, name, function = find(step)
    assert callable(function)
    assert getattr(owner, name) is function


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_dies_at_the_step_and_time_that_were_named_wherever_it_is_called_from(when, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", DIES, os.fspath(ROOT), when, os.fspath(tmp_path / "armed")],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (-signal.SIGKILL, b"0 1 2 3 ")
