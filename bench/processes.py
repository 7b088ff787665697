"""Servers as processes: started, paused, measured and stopped, each with all its children.

Figures come from /proc, so it needs Linux.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 60.0  # a gateway needs two if the machine is idle
STOP_SECONDS = 15.0  # longer than the shutdown_timeout of the gateways
SAMPLE_SECONDS = 0.005  # between two samples of memory: shorter peaks are missed

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Return a port of the loopback on which no process listens just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """One server on `port`, and the ports `also`, running inside a `with` block; its output goes to the file `log`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int,
        folder: Path,
        log: Path,
        also: Sequence[int] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.ports = (port, *also)
        self._command = command
        self._folder = folder
        self._log = log
        self._environment = os.environ | (variables or {})

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=log, stderr=log, env=self._environment
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise RuntimeError(f"{self.name} did not start. Its log:\n{self._log.read_text(errors='replace')}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.resume()
        self._end()

    def pause(self) -> None:
        """Suspend the process and its children, so that they use no CPU."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the process and its children."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process and its children."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and its children so far, including ended ones."""
        ticks = 0
        for pid in self.pids():
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime: proc(5), 14 to 17
        return ticks / _TICKS_A_SECOND

    def cpu_by_process(self) -> Counter[str]:
        """Return the CPU time in seconds by process: `main` is the first one, the others go by their module."""
        used: Counter[str] = Counter()
        for pid in self.pids():
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                seconds = sum(map(int, fields[11:13])) / _TICKS_A_SECOND
                used[self._name_of(pid)] += seconds  # type: ignore[assignment]  # typed for whole numbers only
        return used

    def _name_of(self, pid: int) -> str:
        if pid == self._process.pid:
            return "main"
        if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8") == "bridge-writer\n":  # a fork of main
            return "sqlite_writer"
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return next((word for word in words if word.startswith(b"bridge.")), b"child").decode().rpartition(".")[2]

    def memory_bytes(self) -> int:
        """Return the memory of the process and its children now: PSS, so shared pages count once."""
        return sum(self.memory_by_process().values())

    def memory_by_process(self) -> Counter[str]:
        """Return that memory by process, named as in `cpu_by_process`."""
        sizes: Counter[str] = Counter()
        for pid in self.pids():
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
                size = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
                sizes[self._name_of(pid)] += size
        return sizes

    def pids(self) -> list[int]:
        """Return the ids of the process and its descendants."""
        found = [self._process.pid]
        for pid in found:
            with suppress(OSError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (thread / "children").read_text(encoding="ascii").split())
        return found

    def _listens(self) -> bool:
        for port in self.ports:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) != 0:
                    return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()


class PeakMemory:
    """Samples the memory of a server's processes inside a `with` block; `bytes` is the maximum."""

    def __init__(self, server: ServerProcess) -> None:
        self.bytes = 0
        self.samples = 0
        self._server = server
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes, self._server.memory_bytes())
            self.samples += 1
