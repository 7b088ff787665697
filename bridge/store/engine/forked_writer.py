"""The first writer process of a gateway: a fork, which starts in no time and shares the memory of the modules.

If it ends, `sqlite_writer.WriterProcess` starts another one as a program.
"""

import contextlib
import gc
import multiprocessing
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from bridge.store.engine.sqlite_writer import ignore_signals, widen_pipe, write_all

PATH_BYTES: Final = 65_536  # more than any path has
MAX_LOCKS: Final = 4  # descriptors; the ledger has two


class SpareWriter:
    """A writer process that `fork_writer` has started, and that waits for its ledger."""

    def __init__(
        self, process: multiprocessing.Process, stdin: IO[bytes], stdout: IO[bytes], start: socket.socket
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self._process = process
        self._start = start

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    def begin(self, path: Path, locks: Sequence[int]) -> None:
        """Let the process write to the file at `path`, with copies of the descriptors `locks`."""
        with self._start as start, contextlib.suppress(OSError):  # it has ended: the first write finds out
            socket.send_fds(start, [os.fsencode(path)], locks)

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the process is gone; raise TimeoutExpired if that takes longer."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("the ledger's writer", seconds or 0)

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def close(self) -> None:
        """End the process if it still waits for its ledger; otherwise `WriterProcess` ends it."""
        if self._start.fileno() != -1:
            self._start.close()
            self._process.join()


def fork_writer() -> SpareWriter:
    """Fork the first writer process of a gateway: it starts in no time and shares the memory of the modules.

    To be called before this process has threads: a fork copies only the calling one, and the locks of all.
    """
    requests, replies = os.pipe(), os.pipe()
    start, childs_start = socket.socketpair()
    gc.freeze()  # so that no collection writes to the shared pages
    ours = (requests[1], replies[0], start.fileno())
    process = multiprocessing.get_context("fork").Process(
        target=_run_forked, args=(childs_start, requests[0], replies[1], ours), name="ledger-writer", daemon=True
    )
    process.start()
    for descriptor in (requests[0], replies[1]):
        os.close(descriptor)
    childs_start.close()
    stdin, stdout = os.fdopen(requests[1], "wb"), os.fdopen(replies[0], "rb")
    widen_pipe(stdin)
    return SpareWriter(process, stdin, stdout, start)  # type: ignore[arg-type]  # a ForkProcess is one in all but name


def _run_forked(start: socket.socket, requests: int, replies: int, of_gateway: Sequence[int]) -> None:
    """Wait for the ledger and its locks, and write to it; end if the gateway ends before."""
    ignore_signals()
    gc.enable()
    for descriptor in of_gateway:  # otherwise the input would never end
        os.close(descriptor)
    os.dup2(replies, 1)  # standard output is the gateway's alone
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("bridge-writer", encoding="ascii")  # for ps: the command is the gateway's
    with start:
        path, _locks, _, _ = socket.recv_fds(start, PATH_BYTES, MAX_LOCKS)
    if path:
        with os.fdopen(requests, "rb") as pipe, os.fdopen(replies, "wb") as answers:
            write_all(Path(os.fsdecode(path)), pipe, answers)
    os._exit(0)
