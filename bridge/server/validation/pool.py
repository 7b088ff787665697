"""Checks reports in processes of their own, so that a hostile file hurts nobody but itself.

Bytes or a path in, verdict out, and where a route asks for it another file. It knows deadlines and queues; what a
JUnit report is, the gate knows.
"""

import asyncio
import contextlib
import fcntl
import signal
import sys
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, cast

import bridge
from bridge.domain.junit.result import Invalid, ValidationResult
from bridge.errors import Unavailable
from bridge.server.validation.child_main import CPU_SECONDS
from bridge.server.validation.messages import (
    BatchRequest,
    FileRequest,
    ValidationRequest,
    ValidationResponse,
    read_response,
)
from bridge.server.validation.transform import TransformOptions, TransformResult

# The checking processes: each started when it is needed, asked one question at a time, and killed one by one.
#
# It knows processes and pipes; it knows neither which question waits next nor what a JUnit report is.


START_SECONDS: Final = 30  # a process is ready in a fifth of one; a machine may be busy
WALL_SECONDS: Final = 60  # for one question: CPU time is bounded besides, so past this the disk or the machine hangs
TRIES: Final = 2  # a process that is killed from outside says nothing about its file; twice in a row does
PIPE_SIZE: Final = 1 << 20  # bytes of a question that wait in its pipe: a whole batch, so that it is written at once
ANSWER_SIZE: Final = 1 << 20  # bytes of its line: a batch of files whose faults are told in scripts that JSON escapes

TOO_SLOW: Final = Invalid(
    reason="too_slow",
    found=f"reading it takes more than {CPU_SECONDS} seconds of computing.",
    remedy="Split the report, or write less output into it.",
)
CHECKER_DIED: Final = Invalid(
    reason="checker_died",
    found=f"it could not be checked: the checking process died {TRIES} times in a row.",
    remedy="Upload it again, and if that fails too, hand the file to those who run the bridge.",
)


async def ask_twice(place: "ProcessSlot", question: ValidationRequest) -> tuple[TransformResult | Invalid, ...]:
    """Return the verdicts; a question of one file that ends its process twice is answered for it.

    Raise Died where one of several files did it, Unavailable where the fault is the bridge's own.
    """
    for _ in range(TRIES):
        try:
            async with asyncio.timeout(WALL_SECONDS):
                answer = await place.ask(question)
        except ProcessDied as died:
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


class ProcessDied(Exception):
    """The process ended instead of answering."""

    def __init__(self, return_code: int) -> None:
        super().__init__(return_code)
        self.ran_out_of_time = return_code == -signal.SIGXCPU


class ProcessSlot:
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

    async def ask(self, question: ValidationRequest) -> ValidationResponse:
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
    """One process that runs `bridge.server.validation.child_main`."""

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
                "bridge.server.validation.child_main",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={"PYTHONPATH": str(Path(bridge.__file__).parent.parent)},
                start_new_session=True,
                limit=ANSWER_SIZE,
            )
            inspector = cls(process)
            inspector._widen_pipe()
            await inspector._expect_ready()
        except (OSError, ProcessDied) as error:
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

    async def ask(self, question: ValidationRequest) -> ValidationResponse:
        with contextlib.suppress(ConnectionError):  # it died while idle: the reading below says how
            self._questions.write(question.written())
            await self._questions.drain()
        return read_response(await self._read_line())

    async def _read_line(self) -> bytes:
        line = await self._answers.readline()
        if not line.endswith(b"\n"):
            raise ProcessDied(await self._process.wait())
        return line

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> None:
        """Wait until the process is gone and its pipes are closed."""
        self._questions.close()
        await self._process.wait()


# Small files, judged many at a time: while one batch is with the checking process, the next one gathers.
#
# It knows neither pipes nor what a JUnit report is. In the gateway itself a parse would hold every other upload up.


MAX_FILES: Final = 8  # in one batch: with more, all uploads go from stage to stage together, and each stage waits
MAX_SIZE: Final = 1 << 20  # bytes of one batch: read in some milliseconds
MAX_WAITING_FILES: Final = 4096  # files: two seconds' work, 80 MB of ordinary ones


class _Waiting(NamedTuple):
    body: bytes
    verdict: "asyncio.Future[ValidationResult]"


class BatchValidator:
    """Hands small files to the process at `place`; `close` lets those who wait go with Unavailable."""

    def __init__(self, place: ProcessSlot) -> None:
        self._place = place
        self._gathered: deque[_Waiting] = deque()
        self._out: list[_Waiting] = []  # with the process
        self._work: asyncio.Task[None] | None = None

    async def check(self, body: bytes) -> ValidationResult:
        """Judge one file of at most MAX_SIZE bytes; raise Unavailable where the fault is the bridge's own."""
        if len(self._gathered) >= MAX_WAITING_FILES:
            raise Unavailable("Too many reports wait to be checked. Upload again in a moment.")
        verdict: asyncio.Future[ValidationResult] = asyncio.get_running_loop().create_future()
        self._gathered.append(_Waiting(body, verdict))
        if self._work is None:
            self._work = asyncio.create_task(self._judge_all())
        return await verdict

    async def close(self) -> None:
        """Give up what is under way and let those who wait for it go."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait((self._work,))
        for waiting in (*self._out, *self._gathered):
            if not waiting.verdict.done():
                waiting.verdict.set_exception(Unavailable("The bridge is stopping. Upload again in a moment."))

    async def _judge_all(self) -> None:
        while self._gathered:
            self._out = self._next_batch()
            await self._judge(self._out)
        self._work = None

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._gathered and len(batch) < MAX_FILES and size + len(self._gathered[0].body) <= MAX_SIZE:
            waiting = self._gathered.popleft()
            if not waiting.verdict.done():  # whoever sent it may be gone
                batch.append(waiting)
                size += len(waiting.body)
        return batch

    async def _judge(self, batch: list[_Waiting]) -> None:
        try:
            verdicts = await ask_twice(self._place, BatchRequest([waiting.body for waiting in batch]))
        except Exception as error:  # noqa: BLE001 -- whatever it was, those who wait are told
            if len(batch) == 1 or isinstance(error, Unavailable):
                for waiting in batch:
                    if not waiting.verdict.done():
                        waiting.verdict.set_exception(error)
                return
            for waiting in batch:  # one of them is to blame: each on its own tells which
                await self._judge([waiting])
        else:
            for waiting, verdict in zip(batch, verdicts, strict=True):
                if not waiting.verdict.done():
                    waiting.verdict.set_result(verdict.accepted if isinstance(verdict, TransformResult) else verdict)


MAX_WAITING: Final = 256  # files in the queue: at ten a second, more would outlast their callers' patience


class ValidationPool:
    """Checking processes, at most so many: `async with Checker(workers=2) as checker: …`.

    `workers` read files one by one; one more, which is there from the start, takes small ones, many at a time.
    """

    def __init__(self, *, workers: int = 2) -> None:
        self._places = [ProcessSlot() for _ in range(workers)]
        self._free: asyncio.LifoQueue[ProcessSlot] = (
            asyncio.LifoQueue()
        )  # last in, first out: what is idle stays swapped out
        self._waiting = 0
        self._small = ProcessSlot()
        self._batches = BatchValidator(self._small)

    async def __aenter__(self) -> Self:
        await self._small.fill()  # nearly every upload needs it; the others begin with the first file of theirs
        for place in self._places:
            self._free.put_nowait(place)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all processes, whatever they are doing, and wait until they are gone."""
        await self._batches.close()
        async with asyncio.TaskGroup() as ends:
            for place in (*self._places, self._small):
                ends.create_task(place.close())

    async def check(self, body: bytes) -> ValidationResult:
        """Judge a small file that is at hand; raises Unavailable where the fault is the bridge's own."""
        return await self._batches.check(body)

    async def check_file(self, path: Path) -> ValidationResult:
        """Judge the file at `path`; raises Unavailable where the fault is the bridge's own and not the file's.

        Cancelled while the file is being read, it kills that process; the next file gets a new one.
        """
        verdict = await self._ask(FileRequest(path))
        return verdict.accepted if isinstance(verdict, TransformResult) else verdict

    async def treat_file(self, path: Path, treatment: TransformOptions, out: Path) -> TransformResult | Invalid:
        """Judge the file at `path` likewise, and write what is to be sent in its place into the file `out`."""
        return await self._ask(FileRequest(path, treatment, out))

    async def _ask(self, question: FileRequest) -> TransformResult | Invalid:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("Too many large reports wait to be checked. Upload again in a moment.")
        self._waiting += 1
        try:
            place = await self._free.get()
        finally:
            self._waiting -= 1
        try:
            (verdict,) = await ask_twice(place, question)
            return verdict
        finally:
            self._free.put_nowait(place)
