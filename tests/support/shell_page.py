"""Plays the `console` blocks of a page in one shell, and compares what each command prints with what the page shows."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ANYTHING = "…"
PATIENCE_SECONDS = 120.0  # for a command to end, and again for its output to become what the page shows
LOOK_SECONDS = 0.3
_BLOCK = re.compile(r"(?m)^```console\n(.*?)^```$", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A command of a page and the lines that it prints."""

    command: str
    output: str

    def is_shown(self, printed: str) -> bool:
        """Return whether the output is that of the page, where `…` is anything; a line of it is any lines, or none."""
        lines = self.output.splitlines(keepends=True)
        pattern = "".join(
            r"(?:.*\n)*" if line.strip() == ANYTHING else re.escape(line).replace(ANYTHING, ".*") for line in lines
        )
        return re.fullmatch(pattern, printed) is not None


def steps_of(text: str) -> Iterator[Step]:
    """Yield the commands of the `console` blocks in Markdown, each with the lines below it."""
    for block in _BLOCK.findall(text):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            command, _, output = part.partition("\n")
            yield Step(command=command, output=output)


class Terminal:
    """A shell that keeps variables and background jobs from one command to the next, as a terminal does."""

    def __init__(self, folder: Path, environ: Mapping[str, str], changed: Callable[[str], str] = str) -> None:
        """Run commands in `folder`. `changed` returns what is run, or expected, in place of a text of the page."""
        self._folder = folder
        self._environ = environ
        self._changed = changed

    def __enter__(self) -> Self:
        self._log = (self._folder / "terminal.log").open("w+b")
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=self._folder,
            env=dict(self._environ),
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.run("kill -KILL $(jobs -p) 2> jobs.log")
        finally:
            self._shell.kill()
            self._shell.communicate()
            self._log.close()

    def run(self, command: str) -> str:
        """Run a command; return what it printed."""
        assert self._shell.stdin is not None
        start = self._log.seek(0, 2)
        mark = f"--- {start} ends with"
        self._shell.stdin.write(f'{command}\necho "{mark} $?"\n'.encode())
        self._shell.stdin.flush()
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            self._log.seek(start)
            printed = self._log.read().decode()
            if found := re.search(rf"(?m)^{mark} \d+\n", printed):
                return printed[: found.start()]
            assert time.monotonic() < give_up_at, f"{command!r} does not end. It printed:\n{printed}"
            time.sleep(LOOK_SECONDS / 10)

    def play(self, step: Step) -> None:
        """Run a step, and again until it prints what the page shows; fail if it never does."""
        expected = Step(command=self._changed(step.command), output=self._changed(step.output))
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not expected.is_shown(printed := self.run(expected.command)):
            shown = f"{step.command!r} prints:\n{printed}\nThe page shows:\n{expected.output}"
            assert _may_run_again(step.command), shown
            assert time.monotonic() < give_up_at, shown
            time.sleep(LOOK_SECONDS)


def _may_run_again(command: str) -> bool:
    """Return whether a command only looks, so that its output may become what the page shows."""
    return command.startswith(("bridge why", "bridge builds", "curl"))
