"""Starts programs of the bridge as processes: by a new interpreter, or as forks of a process that has imported it.

A fork has its own id, signals, descriptors and exit code like any process; it saves the second of CPU for imports.
"""

import asyncio
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

REPOSITORY = Path(__file__).parents[2]

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        *("bridge.cli", "bridge.commands.serve", "bridge.commands.serve_arguments"),
        # What a gateway imports when it starts: without these, a start costs half as much CPU time again.
        *("alembic.command", "alembic.config", "mako.exceptions", "sqlalchemy.dialects.postgresql.asyncpg", "uvloop"),
        *("tests.faults.disk", "tests.faults.steps", __name__),
    ]
)

SIGNALS = {
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
"""Python's initial handlers of signals that are not ignored. The forked process may have been started with others."""


class Running(Protocol):
    """A process, as asyncio shows it."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for the signal that ended it; None while it runs."""

    async def wait(self) -> int:
        """Return the exit code."""


Start = Callable[[Sequence[str], Path, Path], Awaitable[Running]]
"""Starts a module with its arguments in the repository, as `python -m` would; its output is appended to two files."""


async def interpret(
    program: Sequence[str], stdout: Path, stderr: Path, *, python: str = sys.executable, folder: Path = REPOSITORY
) -> Running:
    """Start `python -m program` in `folder`."""
    with stdout.open("ab") as out, stderr.open("ab") as err:
        return await asyncio.create_subprocess_exec(
            python,
            "-m",
            *program,
            cwd=folder,
            env=_environ(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )


async def fork(
    program: Sequence[str],
    stdout: Path,
    stderr: Path,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path = REPOSITORY,
) -> Running:
    """Start the same as a fork of a process that has imported most of it already, with `environ` in place of ours."""
    stdout.touch()
    stderr.touch()
    arguments = (program, _environ() if environ is None else environ, _ignored(), stdout, stderr, folder)
    process = FORKED.Process(target=_become, args=arguments, daemon=True)
    await asyncio.to_thread(process.start)  # the first one waits for the imports
    return _Fork(process)


async def run_program(
    program: Sequence[str], *, environ: Mapping[str, str] | None = None, folder: Path = REPOSITORY
) -> tuple[int, str, str]:
    """Run a program as a fork until it ends; return its exit code and what it wrote to stdout and stderr."""
    with TemporaryDirectory() as written:
        stdout, stderr = Path(written) / "stdout", Path(written) / "stderr"
        process = await fork(program, stdout, stderr, environ=environ, folder=folder)
        code = await process.wait()
        return code, stdout.read_text(encoding="utf-8"), stderr.read_text(encoding="utf-8")


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}


def _ignored() -> set[signal.Signals]:
    """Return the signals that a process started now would ignore, among those that mean something to the bridge."""
    return {number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN}


class _Fork:
    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(process.sentinel, self._end)

    def _end(self) -> None:
        self._loop.remove_reader(self._process.sentinel)
        self._ended.set()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode


def _become(
    program: Sequence[str],
    environ: Mapping[str, str],
    ignored: set[signal.Signals],
    stdout: Path,
    stderr: Path,
    folder: Path,
) -> None:
    """Run the program in the new process."""
    for number, default in SIGNALS.items():
        signal.signal(number, signal.SIG_IGN if number in ignored else default)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    append = os.O_WRONLY | os.O_APPEND
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, stdout, append), (2, stderr, append)):
        descriptor = os.open(path, flags)
        os.dup2(descriptor, number)
        os.close(descriptor)
    module, *_ = sys.argv = list(program)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
