import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bridge.demo.s3_server import S3Server
from tests.support.processes import until
from tests.support.weed import Weed

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 120

RUNS_AND_IS_KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from bridge.demo.s3_server import S3Server

server = S3Server().__enter__()
print((server.folder / "server.pid").read_text().strip(), server.folder, *server._ports.values(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def has_ended(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


def sockets_of(ports):
    """Return the Unix sockets that a server leaves outside its folder, whatever it is told."""
    return [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]  # noqa: S108 -- see above


async def test_a_server_ends_with_the_process_that_runs_it():
    command = [sys.executable, "-c", RUNS_AND_IS_KILLED, ROOT]
    killed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    process_id, folder, *ports = killed.stdout.split()
    await until(lambda: has_ended(int(process_id)), "the server has ended", seconds=PATIENCE_SECONDS)
    await until(lambda: not sockets_of(ports), "its sockets are gone", seconds=PATIENCE_SECONDS)
    shutil.rmtree(folder)


def test_the_ports_of_a_server_are_its_own_while_it_does_not_run():
    with ExitStack() as ends:
        server = S3Server()
        ends.push(server)  # ends it with the block, and does not start it
        with closing(socket.socket()) as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", urlsplit(server.url).port))


def test_a_server_that_hangs_ends_when_it_is_stopped():
    with Weed() as weed:
        process_id = int((weed.folder / "server.pid").read_text())
        weed.pause()
        weed.stop()
        assert has_ended(process_id)
