"""The first writer process of a gateway: a fork, which starts in no time and shares the memory of the modules.

If it ends, `sqlite_writer.WriterProcess` starts another one as a program.
"""

import contextlib
import gc
import math
import os
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final, NoReturn

from bridge.store.engine.sqlite_writer import ignore_signals, widen_pipe, write_all

PATH_BYTES: Final = 65_536  # more than any path has
MAX_LOCKS: Final = 4  # descriptors; the ledger has two
POLL_SECONDS: Final = 0.005  # between two looks whether the process has ended


class SpareWriter:
    """A writer process that `fork_writer` has started, and that waits for its ledger."""

    def __init__(self, pid: int, stdin: IO[bytes], stdout: IO[bytes], start: socket.socket) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self._start = start

    def begin(self, path: Path, locks: Sequence[int]) -> None:
        """Let the process write to the file at `path`, with copies of the descriptors `locks`."""
        with self._start as start, contextlib.suppress(OSError):  # it has ended: the first write finds out
            socket.send_fds(start, [os.fsencode(path)], locks)

    def wait(self, seconds: float = math.inf) -> None:
        """Wait until the process is gone, once; raise TimeoutExpired if that takes longer."""
        give_up_at = time.monotonic() + seconds
        with contextlib.suppress(ChildProcessError):  # the system waits for children if SIGCHLD is ignored
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() >= give_up_at:
                    raise subprocess.TimeoutExpired("the ledger's writer", seconds)
                time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """Kill the process, which must not have been waited for."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process if it still waits for its ledger; otherwise `WriterProcess` ends it."""
        if self._start.fileno() != -1:
            self._start.close()
            self.wait()


def fork_writer() -> SpareWriter:
    """Fork the first writer process of a gateway: it starts in no time and shares the memory of the modules.

    To be called before this process has threads: a fork copies only the calling one, and the locks of all.
    """
    requests, replies = os.pipe(), os.pipe()
    start, childs_start = socket.socketpair()
    gc.freeze()  # so that no collection writes to the shared pages
    pid = os.fork()
    if pid == 0:
        for descriptor in (requests[1], replies[0]):  # otherwise the input would never end
            os.close(descriptor)
        start.close()
        _run(childs_start, requests[0], replies[1])
    for descriptor in (requests[0], replies[1]):
        os.close(descriptor)
    childs_start.close()
    stdin, stdout = os.fdopen(requests[1], "wb"), os.fdopen(replies[0], "rb")
    widen_pipe(stdin)
    return SpareWriter(pid, stdin, stdout, start)


def _run(start: socket.socket, requests: int, replies: int) -> NoReturn:
    """Wait for the ledger and its locks, and write to it; end if the gateway ends before."""
    code = 1
    try:
        ignore_signals()
        gc.enable()
        os.dup2(requests, 0)  # standard input and output are the gateway's alone
        os.dup2(replies, 1)
        with contextlib.suppress(OSError):  # for ps: its command is the gateway's
            Path("/proc/self/comm").write_text("bridge-writer", encoding="ascii")
        with start:
            path, locks, _, _ = socket.recv_fds(start, PATH_BYTES, MAX_LOCKS)
        if path:
            with os.fdopen(requests, "rb") as pipe, os.fdopen(replies, "wb") as answers:
                write_all(pipe, answers, locks)
        code = 0
    except BaseException:  # noqa: BLE001 -- nothing of the gateway's may run here
        traceback.print_exc()
    finally:
        os._exit(code)
