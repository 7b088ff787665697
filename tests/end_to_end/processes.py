"""Runs the real gateway as a process of its own: started, looked at, killed and started again on the same settings.

It knows the command line, the log and the addresses of a gateway, nothing of its inside, and signals none but its own.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.children import children_of, start_of
from tests.end_to_end.starting import Running, Start, fork, interpret
from tests.ports import held_port

START_SECONDS = 90.0  # it takes one or two; the machine may be busy with other tests
END_SECONDS = 90.0  # more than any server.shutdown_timeout of these tests
LOOK_SECONDS = 0.02

Table = Mapping[str, object]
Settings = Mapping[str, Table | Sequence[Table]]
"""Tables of the settings file by name; a sequence is an array of tables."""


def toml(settings: Settings) -> str:
    """Write settings whose values are texts, numbers, truths and lists of these: JSON writes those as TOML does."""
    lines: list[str] = []
    for name, content in settings.items():
        tables, heading = ([content], f"[{name}]") if isinstance(content, Mapping) else (content, f"[[{name}]]")
        for table in tables:
            lines += [heading, *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join([*lines, ""])


async def until(
    condition: Callable[[], bool | Awaitable[bool]],
    what: str,
    *,
    seconds: float = 90.0,
    look_seconds: float = LOOK_SECONDS,
) -> None:
    """Return once `condition` holds; fail, saying `what` was waited for, where it does not within `seconds`."""
    give_up_at = time.monotonic() + seconds
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return
        if time.monotonic() > give_up_at:
            raise AssertionError(f"Waited {seconds} s in vain: {what}.")
        await asyncio.sleep(look_seconds)


class GatewayProcess:
    """`bridge serve` with `options` on one settings file; at most one process of it runs at a time.

    It is `forked`, or else interpreted from its first line as a person's would be, which costs a second of CPU.
    Port 0 of a listener becomes a port that is held for this gateway until `close`, over all its restarts: no other
    process can answer there while it does not run.
    """

    def __init__(self, folder: Path, settings: Settings, *options: str, forked: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._options = options
        self._begin: Start = fork if forked else interpret
        self.config = folder / "bridge.toml"
        self._ends = ExitStack()
        self._ports: dict[str, int] = {}
        self.write(settings)
        self._process: Running | None = None
        self._started: dict[int, str | None] = {}  # processes of the gateway, with the moments when they started
        self._log_start = 0
        self.server_url = ""
        self.admin_url = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Kill the process if it still runs, and let its ports go."""
        if self.running:
            await self.kill()
        self._ends.close()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode if self._process else None

    def write(self, settings: Settings) -> None:
        """Write the settings file anew, for the next start or reload."""
        placed = {name: self._placed(name, table) for name, table in settings.items()}
        self.config.write_text(toml(placed), encoding="utf-8")

    def _placed(self, name: str, table: Table | Sequence[Table]) -> Table | Sequence[Table]:
        if not isinstance(table, Mapping) or table.get("port") != 0:
            return table
        if name not in self._ports:
            self._ports[name] = self._ends.enter_context(held_port())
        return {**table, "port": self._ports[name]}

    # -- start ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start a process and return once it says that it is ready for uploads."""
        await self.spawn()
        await until(self.listens, "the gateway says where it listens", seconds=START_SECONDS)
        await until(self.ready, "the gateway is ready", seconds=START_SECONDS)
        self._note_children()

    def program(self) -> list[str]:
        """Return what the next process runs: a module and its arguments."""
        return ["bridge", "serve", "--config", str(self.config), *self._options]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def spawn(self) -> None:
        """Start a process and return at once."""
        assert not self.running
        self._started = {}
        self._log_start = log.stat().st_size if (log := self._folder / "stderr").exists() else 0  # bytes
        self._process = await self._begin(self.program(), self._folder / "stdout", self._folder / "stderr")

    def listens(self) -> bool:
        """Tell whether it has said where it listens; then `server_url` and `admin_url` are known."""
        listening = self.events("listening")
        if listening:
            self.server_url, self.admin_url = listening[-1]["server"], listening[-1]["admin"]
        assert listening or self.running, (
            f"The gateway ended by itself, with {self.exit_code}:\n{self.stderr()[-4000:]}"
        )
        return bool(listening)

    async def ready(self) -> bool:
        """Tell whether the server answers /readyz with 200 now."""
        return await self.status_of(f"{self.server_url}/readyz") == 200

    @staticmethod
    async def status_of(url: str) -> int | None:
        """Return the status that a GET answers, None where nobody answers."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
            try:
                async with http.get(url) as answer:
                    return answer.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                return None

    # -- end -----------------------------------------------------------------------------------------------------

    async def kill(self) -> None:
        """SIGKILL, and return when the process is gone."""
        self.signal(signal.SIGKILL)
        await self.wait()

    async def terminate(self) -> int:
        """SIGTERM, and return the exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process that runs now.

        Not by asyncio's own door: it first looks whether the process has just ended, and then its code is lost.
        """
        assert self.running
        self._note_children()
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _note_children(self) -> None:
        self._started |= {child: start_of(child) for child in children_of(self.pid)}

    async def wait(self) -> int:
        """Return the exit code, negative for the signal that ended it."""
        try:
            async with asyncio.timeout(END_SECONDS):
                return await self.wait_for_ever()
        except TimeoutError:
            raise AssertionError(f"The gateway does not end. Its log ends:\n{self.stderr()[-4000:]}") from None

    async def wait_for_ever(self) -> int:
        """Return the exit code too, however long that takes.

        What the process had started has ended too: the writer of a killed gateway first ends its commit.
        """
        assert self._process is not None
        code = await self._process.wait()
        await until(lambda: all(start_of(pid) != start for pid, start in self._started.items()), "its processes end")
        return code

    # -- what it says --------------------------------------------------------------------------------------------

    def stdout(self) -> str:
        return self._read("stdout")

    def stderr(self) -> str:
        return self._read("stderr")

    def _read(self, name: str) -> str:
        path = self._folder / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of this name that were written since the last start."""
        if self._process is None:
            return []
        with (self._folder / "stderr").open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().splitlines(keepends=True)
        logged = [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"\n")]
        return [line for line in logged if line.get("event") == name]
