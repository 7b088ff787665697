"""Checks large reports in processes of their own, so that a hostile file hurts nobody but itself.

Path in, verdict out, and where a route asks for it another file. It knows processes, deadlines and queues; what a
JUnit report is, the gate knows.
"""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

import bridge
from bridge.domain.junit_verdict import Refused, Verdict
from bridge.errors import Unavailable
from bridge.server.inspector import CPU_SECONDS, Answer, Question, read_answer, write_question
from bridge.server.treatment import Treated, Treatment

START_SECONDS: Final = 30  # a process is ready in a fifth of one; a machine may be busy
WALL_SECONDS: Final = 60  # for one file: CPU time is bounded besides, so past this the disk or the machine hangs
MAX_WAITING: Final = 256  # files in the queue: at ten a second, more would outlast their callers' patience
TRIES: Final = 2  # a process that is killed from outside says nothing about its file; twice in a row does

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


class Checker:
    """A fixed number of checking processes: `async with Checker(workers=2) as checker: …`."""

    def __init__(self, *, workers: int = 2) -> None:
        self._places = [_Place() for _ in range(workers)]
        self._free: asyncio.LifoQueue[_Place] = (
            asyncio.LifoQueue()
        )  # last in, first out: what is idle stays swapped out
        self._waiting = 0

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.TaskGroup() as starts:
                for place in self._places:
                    starts.create_task(place.fill())
        except* Unavailable as failures:
            await self.close()
            raise failures.exceptions[0] from None
        for place in self._places:
            self._free.put_nowait(place)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all processes, whatever they are doing, and wait until they are gone."""
        async with asyncio.TaskGroup() as ends:
            for place in self._places:
                ends.create_task(place.close())

    async def check_file(self, path: Path) -> Verdict:
        """Judge the file at `path`; raises Unavailable where the fault is the bridge's own and not the file's.

        Cancelled while the file is being read, it kills that process; the next file gets a new one.
        """
        verdict = await self._ask(Question(path))
        return verdict.accepted if isinstance(verdict, Treated) else verdict

    async def treat_file(self, path: Path, treatment: Treatment, out: Path) -> Treated | Refused:
        """Judge the file at `path` likewise, and write what is to be sent in its place into the file `out`."""
        return await self._ask(Question(path, treatment, out))

    async def _ask(self, question: Question) -> Treated | Refused:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("Too many large reports wait to be checked. Upload again in a moment.")
        self._waiting += 1
        try:
            place = await self._free.get()
        finally:
            self._waiting -= 1
        try:
            return await _check(place, question)
        finally:
            self._free.put_nowait(place)


async def _check(place: "_Place", question: Question) -> Treated | Refused:
    for _ in range(TRIES):
        try:
            async with asyncio.timeout(WALL_SECONDS):
                answer = await place.ask(question)
        except _Died as died:
            if died.ran_out_of_time:
                return TOO_SLOW
        except TimeoutError:
            raise Unavailable("Checking a large report takes too long just now. Upload it again in a moment.") from None
        else:
            if answer.verdict is None:
                raise Unavailable(f"A large report could not be checked: {answer.failed}. Upload it again.")
            return answer.verdict
    return CHECKER_DIED


class _Died(Exception):
    """The process ended instead of answering."""

    def __init__(self, return_code: int) -> None:
        super().__init__(return_code)
        self.ran_out_of_time = return_code == -signal.SIGXCPU


class _Place:
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
    """One process that runs `bridge.server.inspector`."""

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
                "bridge.server.inspector",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={"PYTHONPATH": str(Path(bridge.__file__).parent.parent)},
                start_new_session=True,
            )
            inspector = cls(process)
            await inspector._expect_ready()
        except (OSError, _Died) as error:
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

    async def ask(self, question: Question) -> Answer:
        with contextlib.suppress(ConnectionError):  # it died while idle: the reading below says how
            self._questions.write(write_question(question))
            await self._questions.drain()
        return read_answer(await self._read_line())

    async def _read_line(self) -> bytes:
        line = await self._answers.readline()
        if not line.endswith(b"\n"):
            raise _Died(await self._process.wait())
        return line

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> None:
        """Wait until the process is gone and its pipes are closed."""
        self._questions.close()
        await self._process.wait()
