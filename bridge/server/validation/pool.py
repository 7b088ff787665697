"""Validate reports in child processes, so that a hostile file cannot harm the gateway.

`async with ValidationPool() as pool: result = await pool.validate(body)`. Each child runs `child_main`.
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

START_SECONDS: Final = 30  # a process is ready in 0.2 seconds, but the machine may be busy
WALL_SECONDS: Final = 60  # for one request: CPU time has a limit of its own, so beyond this the disk or machine hangs
TRIES: Final = 2  # one death may come from outside, for example from the OOM killer; two in a row come from the file
PIPE_BYTES: Final = 1 << 20  # buffer of the request pipe: a whole batch is written at once
RESPONSE_BYTES: Final = 1 << 20  # of one line: a batch of errors that quote names which JSON escapes

BATCH_FILES: Final = 8  # with more, all uploads move through the gateway in step, and wait for each other
BATCH_BYTES: Final = 1 << 20  # read in some milliseconds
MAX_WAITING_SMALL: Final = 4096  # small files: two seconds of work, 80 MB of ordinary ones
MAX_WAITING: Final = 256  # large files: at ten a second, clients would time out behind more

_STOPPING: Final = "The bridge is stopping. Upload again in a moment."

TOO_SLOW: Final = Invalid(
    reason="too_slow",
    found=f"reading it takes more than {CPU_SECONDS} seconds of CPU time.",
    remedy="Split the report, or write less output into it.",
)
CHECKER_DIED: Final = Invalid(
    reason="checker_died",
    found=f"it could not be validated: the validation process died {TRIES} times in a row.",
    remedy="Upload it again. If that fails too, give the file to the operator of the bridge.",
)


class ValidationPool:
    """Child processes that validate files.

    `workers` processes read large files one by one and start with the first such file. One more process starts at
    once and takes small files in batches. All methods raise Unavailable if the fault is not in the file.
    """

    def __init__(self, *, workers: int = 2) -> None:
        self._slots = [ProcessSlot() for _ in range(workers)]
        # Last in, first out: idle processes stay swapped out.
        self._free_slots: asyncio.LifoQueue[ProcessSlot] = asyncio.LifoQueue()
        self._waiting = 0
        self._small_slot = ProcessSlot()
        self._batches = BatchValidator(self._small_slot)

    async def __aenter__(self) -> Self:
        await self._small_slot.start()  # nearly every upload needs it
        for slot in self._slots:
            self._free_slots.put_nowait(slot)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all processes, even if they are working, and wait until they are gone."""
        await self._batches.close()
        async with asyncio.TaskGroup() as tasks:
            for slot in (*self._slots, self._small_slot):
                tasks.create_task(slot.close())

    async def validate(self, body: bytes) -> ValidationResult:
        """Validate a small file in memory."""
        return await self._batches.validate(body)

    async def validate_file(self, path: Path) -> ValidationResult:
        """Validate the file at `path`. If the call is canceled, its process is killed and replaced."""
        result = await self._request(FileRequest(path))
        return result.accepted if isinstance(result, TransformResult) else result

    async def transform_file(self, path: Path, options: TransformOptions, out: Path) -> TransformResult | Invalid:
        """Validate the file at `path`, and write the bytes to send in its place, if any, into the existing `out`."""
        return await self._request(FileRequest(path, options, out))

    async def _request(self, request: FileRequest) -> TransformResult | Invalid:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("Too many large reports wait for validation. Upload again in a moment.")
        self._waiting += 1
        try:
            slot = await self._free_slots.get()
        finally:
            self._waiting -= 1
        try:
            (result,) = await request_results(slot, request)
            return result
        finally:
            self._free_slots.put_nowait(slot)


class _WaitingFile(NamedTuple):
    body: bytes
    result: "asyncio.Future[ValidationResult]"

    def set_result(self, result: ValidationResult) -> None:
        if not self.result.done():  # its upload may have been canceled
            self.result.set_result(result)

    def set_exception(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class BatchValidator:
    """Sends small files to the process of `slot` in batches: while one batch is validated, the next one gathers."""

    def __init__(self, slot: "ProcessSlot") -> None:
        self._slot = slot
        self._queue: deque[_WaitingFile] = deque()
        self._sent: list[_WaitingFile] = []
        self._task: asyncio.Task[None] | None = None

    async def validate(self, body: bytes) -> ValidationResult:
        """Validate one file of at most BATCH_BYTES; raise Unavailable if the fault is not in the file."""
        if len(self._queue) >= MAX_WAITING_SMALL:
            raise Unavailable("Too many reports wait for validation. Upload again in a moment.")
        result: asyncio.Future[ValidationResult] = asyncio.get_running_loop().create_future()
        self._queue.append(_WaitingFile(body, result))
        if self._task is None:
            self._task = asyncio.create_task(self._validate_all())
        return await result

    async def close(self) -> None:
        """Cancel the work, and raise Unavailable in all calls that wait."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        for file in (*self._sent, *self._queue):
            file.set_exception(Unavailable(_STOPPING))

    async def _validate_all(self) -> None:
        while self._queue:
            self._sent = self._next_batch()
            await self._validate(self._sent)
        self._task = None

    def _next_batch(self) -> list[_WaitingFile]:
        batch: list[_WaitingFile] = []
        size = 0
        while self._queue and len(batch) < BATCH_FILES and size + len(self._queue[0].body) <= BATCH_BYTES:
            file = self._queue.popleft()
            if not file.result.done():
                batch.append(file)
                size += len(file.body)
        return batch

    async def _validate(self, batch: list[_WaitingFile]) -> None:
        try:
            results = await request_results(self._slot, BatchRequest([file.body for file in batch]))
        except Exception as error:  # noqa: BLE001 -- every kind is passed on to the calls that wait
            if len(batch) == 1 or isinstance(error, Unavailable):
                for file in batch:
                    file.set_exception(error)
                return
            for file in batch:  # one of them is the cause: validate each alone to find it
                await self._validate([file])
        else:
            for file, result in zip(batch, results, strict=True):
                file.set_result(result.accepted if isinstance(result, TransformResult) else result)


async def request_results(slot: "ProcessSlot", request: ValidationRequest) -> tuple[TransformResult | Invalid, ...]:
    """Return the result of each file; a single file that ends its process TRIES times is Invalid.

    Raise ProcessDied if a request of several files ended the process, Unavailable if the fault is not in a file.
    """
    for _ in range(TRIES):
        try:
            async with asyncio.timeout(WALL_SECONDS):
                response = await slot.request(request)
        except ProcessDied as died:
            if request.files > 1:
                raise
            if died.ran_out_of_time:
                return (TOO_SLOW,)
        except TimeoutError:
            raise Unavailable("Validating a report takes too long. Upload it again in a moment.") from None
        else:
            if response.failed:
                raise Unavailable(f"A report could not be validated: {response.failed}. Upload it again.")
            return response.results
    return (CHECKER_DIED,)


class ProcessDied(Exception):
    """The process ended instead of answering."""

    def __init__(self, return_code: int) -> None:
        super().__init__(return_code)
        self.ran_out_of_time = return_code == -signal.SIGXCPU


class ProcessSlot:
    """Holds one process: started if needed, replaced if it does not answer or is worn."""

    def __init__(self) -> None:
        self._process: _ChildProcess | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> "_ChildProcess":
        """Return the process, started if there is none."""
        if self._closed:
            raise Unavailable(_STOPPING)
        if self._process is None:
            self._process = await _ChildProcess.start()
        return self._process

    async def request(self, request: ValidationRequest) -> ValidationResponse:
        process = await self.start()
        try:
            response = await process.request(request)
        except BaseException:
            self._kill()
            raise
        if response.worn:
            self._kill()
        return response

    async def close(self) -> None:
        self._closed = True
        self._kill()
        await asyncio.gather(*self._ending)

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            task = asyncio.create_task(process.wait())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


class _ChildProcess:
    """One process that runs `bridge.server.validation.child_main`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast(asyncio.StreamWriter, process.stdin)  # both are pipes
        self._stdout = cast(asyncio.StreamReader, process.stdout)

    @classmethod
    async def start(cls) -> "_ChildProcess":
        try:
            # The child gets no environment, which may contain secrets, and no signals of the terminal.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bridge.server.validation.child_main",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={"PYTHONPATH": str(Path(bridge.__file__).parent.parent)},
                start_new_session=True,
                limit=RESPONSE_BYTES,
            )
            child = cls(process)
            child._widen_pipe()
            await child._wait_until_ready()
        except (OSError, ProcessDied) as error:
            raise Unavailable(f"No validation process could be started: {error}. Upload again in a moment.") from error
        return child

    async def _wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._read_line()
        except BaseException:
            self.kill()
            await self.wait()
            raise

    def _widen_pipe(self) -> None:
        with contextlib.suppress(OSError):  # if the system does not allow it, a batch is written in pieces
            fcntl.fcntl(self._stdin.get_extra_info("pipe"), fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    async def request(self, request: ValidationRequest) -> ValidationResponse:
        with contextlib.suppress(ConnectionError):  # it died while idle: reading raises ProcessDied
            self._stdin.write(request.to_bytes())
            await self._stdin.drain()
        return read_response(await self._read_line())

    async def _read_line(self) -> bytes:
        line = await self._stdout.readline()
        if not line.endswith(b"\n"):
            raise ProcessDied(await self._process.wait())
        return line

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> None:
        """Wait until the process has ended and its pipes are closed."""
        self._stdin.close()
        await self._process.wait()
