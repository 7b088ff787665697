"""The checking processes: each started when it is needed, asked one question at a time, and killed one by one.

It knows processes and pipes; it knows neither which question waits next nor what a JUnit report is.
"""

import asyncio
import contextlib
import fcntl
import signal
import sys
from pathlib import Path
from typing import Final, cast

import bridge
from bridge.domain.junit.verdict import Refused
from bridge.errors import Unavailable
from bridge.server.checking.inspection import Answer, Question, read_answer
from bridge.server.checking.inspector import CPU_SECONDS
from bridge.server.checking.treatment import Treated

START_SECONDS: Final = 30  # a process is ready in a fifth of one; a machine may be busy
WALL_SECONDS: Final = 60  # for one question: CPU time is bounded besides, so past this the disk or the machine hangs
TRIES: Final = 2  # a process that is killed from outside says nothing about its file; twice in a row does
PIPE_SIZE: Final = 1 << 20  # bytes of a question that wait in its pipe: a whole batch, so that it is written at once
ANSWER_SIZE: Final = 1 << 20  # bytes of its line: a batch of files whose faults are told in scripts that JSON escapes

TOO_SLOW: Final = Refused(
    reason="too_slow",
    found=f"reading it takes more than {CPU_SECONDS} seconds of computing.",
    remedy="Split the report, or write less output into it.",
)
CHECKER_DIED: Final = Refused(
    reason="checker_died",
    found=f"it could not be checked: the checking process died {TRIES} times in a row.",
    remedy="Upload it again, and if that fails too, hand the file to those who run the bridge.",
)


async def ask_twice(place: "Place", question: Question) -> tuple[Treated | Refused, ...]:
    """Return the verdicts; a question of one file that ends its process twice is answered for it.

    Raise Died where one of several files did it, Unavailable where the fault is the bridge's own.
    """
    for _ in range(TRIES):
        try:
            async with asyncio.timeout(WALL_SECONDS):
                answer = await place.ask(question)
        except Died as died:
            if question.files > 1:
                raise
            if died.ran_out_of_time:
                return (TOO_SLOW,)
        except TimeoutError:
            raise Unavailable("Checking a report takes too long just now. Upload it again in a moment.") from None
        else:
            if answer.failed:
                raise Unavailable(f"A report could not be checked: {answer.failed}. Upload it again.")
            return answer.verdicts
    return (CHECKER_DIED,)


class Died(Exception):
    """The process ended instead of answering."""

    def __init__(self, return_code: int) -> None:
        super().__init__(return_code)
        self.ran_out_of_time = return_code == -signal.SIGXCPU


class Place:
    """Room for one process: filled when needed, emptied when the process did not answer or has served its time."""

    def __init__(self) -> None:
        self._inspector: _Inspector | None = None
        self._ends: set[asyncio.Task[None]] = set()
        self._closed = False

    async def fill(self) -> "_Inspector":
        if self._closed:
            raise Unavailable("The bridge is stopping. Upload again in a moment.")
        if self._inspector is None:
            self._inspector = await _Inspector.start()
        return self._inspector

    async def ask(self, question: Question) -> Answer:
        inspector = await self.fill()
        try:
            answer = await inspector.ask(question)
        except BaseException:
            self._empty()
            raise
        if answer.worn:
            self._empty()
        return answer

    async def close(self) -> None:
        self._closed = True
        self._empty()
        await asyncio.gather(*self._ends)

    def _empty(self) -> None:
        inspector, self._inspector = self._inspector, None
        if inspector is not None:
            inspector.kill()
            end = asyncio.create_task(inspector.wait())
            self._ends.add(end)
            end.add_done_callback(self._ends.discard)


class _Inspector:
    """One process that runs `bridge.server.checking.inspector`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._questions = cast(asyncio.StreamWriter, process.stdin)  # both are pipes
        self._answers = cast(asyncio.StreamReader, process.stdout)

    @classmethod
    async def start(cls) -> "_Inspector":
        try:
            # Nothing of the environment is passed on, since secrets may stand in it, and no signal of the terminal.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bridge.server.checking.inspector",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={"PYTHONPATH": str(Path(bridge.__file__).parent.parent)},
                start_new_session=True,
                limit=ANSWER_SIZE,
            )
            inspector = cls(process)
            inspector._widen_pipe()
            await inspector._expect_ready()
        except (OSError, Died) as error:
            raise Unavailable(f"A checking process could not be started: {error}. Upload again in a moment.") from error
        return inspector

    async def _expect_ready(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._read_line()
        except BaseException:
            self.kill()
            await self.wait()
            raise

    def _widen_pipe(self) -> None:
        with contextlib.suppress(OSError):  # where the system grants no more, a batch is written piece by piece
            fcntl.fcntl(self._questions.get_extra_info("pipe"), fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    async def ask(self, question: Question) -> Answer:
        with contextlib.suppress(ConnectionError):  # it died while idle: the reading below says how
            self._questions.write(question.written())
            await self._questions.drain()
        return read_answer(await self._read_line())

    async def _read_line(self) -> bytes:
        line = await self._answers.readline()
        if not line.endswith(b"\n"):
            raise Died(await self._process.wait())
        return line

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> None:
        """Wait until the process is gone and its pipes are closed."""
        self._questions.close()
        await self._process.wait()
