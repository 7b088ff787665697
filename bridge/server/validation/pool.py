"""Validate reports in child processes, so that a hostile file cannot harm the gateway.

`async with ValidationPool() as pool: result = await pool.validate(body)`. Each child runs `child_main`.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

import bridge
from bridge.domain.junit.result import Invalid, ValidationResult
from bridge.errors import Unavailable
from bridge.server.validation.messages import (
    CPU_SECONDS,
    BatchRequest,
    FileRequest,
    TransformOptions,
    TransformResult,
    ValidationRequest,
    ValidationResponse,
    read_response,
)
from bridge.server.validation.turns import Party, Turn, TurnQueue
from bridge.values import dataclass

START_SECONDS: Final = 30  # a process is ready in 0.2 seconds, but the machine may be busy
RETRY_SECONDS: Final = 2.0  # that a health check waits for another try
WALL_SECONDS: Final = 60  # for one request: CPU time has a limit of its own, so beyond this the disk or machine hangs
TRIES: Final = 2  # one death may come from outside, for example from the OOM killer; two in a row come from the file
RESPONSE_BYTES: Final = 4 << 20  # of one line: a batch with digests of cases, or errors with names that JSON escapes

BATCH_FILES: Final = 8  # with more, all uploads move through the gateway in step, and wait for each other
BATCH_SECONDS: Final = 0.01  # of CPU time that a batch is expected to cost: others wait for all of it
SLOW_SECONDS: Final = 0.01  # of CPU time: small files of callers whose files cost that much go to the other processes
COSTLY_SECONDS: Final = 0.25  # of CPU time: callers whose files cost that much never occupy all processes
NICE: Final = 5  # of the processes for large files: the gateway and small files get the CPU first
MAX_WAITING_SMALL: Final = 4096  # small files: two seconds of work, 80 MB of ordinary ones
MAX_WAITING: Final = 256  # large files: at ten a second, clients would time out behind more

OWN: Final = Party()  # files that the bridge validates for itself
TOO_MANY: Final = "Too many reports wait for validation. Upload again in a moment."
_STOPPING: Final = "The bridge is stopping. Upload again in a moment."
_NOT_STARTED: Final = "No validation process could be started: {error}. Upload again in a moment."

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
    """Child processes that validate files; callers and their routes take turns by the CPU time of their files.

    `workers` processes read large files one by one, and one more takes small files in batches, except those of callers
    whose small files cost much. Each starts with its first file, which waits for it: a gateway that gets no uploads
    needs none. All methods raise Unavailable if the fault is not in the file. `party` is the caller and the route that
    the file is for.
    """

    def __init__(self, *, workers: int = 2) -> None:
        self._files = FileLane([ProcessSlot(nice=NICE) for _ in range(workers)])
        self._small_slot = ProcessSlot()
        self._batches = BatchLane(self._small_slot, self._files)
        self._retry: asyncio.Task[None] | None = None  # of a start that has failed

    async def __aenter__(self) -> Self:
        """Raise Unavailable if this system lets the gateway start no processes."""
        await _require_processes()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all processes, even if they are working, and wait until they are gone."""
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.wait((self._retry,))
        await self._batches.close()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._files.close())
            tasks.create_task(self._small_slot.close())

    async def fault(self) -> str | None:
        """Return why the process for small files could not be started, None if it could or has not been needed.

        A start that has failed is tried again, so that the fault ends without an upload.
        """
        if self._small_slot.fault is not None and (self._retry is None or self._retry.done()):
            self._retry = asyncio.create_task(self._small_slot.retry_start())
            await asyncio.wait((self._retry,), timeout=RETRY_SECONDS)
        return self._small_slot.fault

    async def validate(self, body: bytes, party: Party = OWN) -> ValidationResult:
        """Validate a small file in memory."""
        return _validated(await self._batches.validate(body, party))

    async def validate_file(self, path: Path, party: Party = OWN) -> ValidationResult:
        """Validate the file at `path`. If the call is canceled, its process is killed and replaced."""
        result, _ = await self._files.run(FileRequest(path), party)
        return _validated(result)

    async def transform_file(
        self, path: Path, options: TransformOptions, out: Path, party: Party = OWN
    ) -> TransformResult | Invalid:
        """Validate the file at `path`, and write the bytes to send in its place, if any, into the existing `out`."""
        result, _ = await self._files.run(FileRequest(path, options, out), party)
        return result


def _validated(result: TransformResult | Invalid) -> ValidationResult:
    return result.accepted if isinstance(result, TransformResult) else result


class FileLane:
    """Runs requests of one file each, in as many processes as there are slots."""

    def __init__(self, slots: Sequence["ProcessSlot"]) -> None:
        self._slots = slots
        self._free = list(slots)  # the last one is used first, so that idle processes stay swapped out
        self._turns: TurnQueue[asyncio.Future[_Start]] = TurnQueue(
            max_waiting=MAX_WAITING, costly_seconds=COSTLY_SECONDS, costly_places=max(1, len(slots) - 1)
        )

    async def close(self) -> None:
        """End the processes; calls that wait raise Unavailable."""
        async with asyncio.TaskGroup() as tasks:
            for slot in self._slots:
                tasks.create_task(slot.close())

    async def run(self, request: ValidationRequest, party: Party) -> tuple[TransformResult | Invalid, float]:
        """Return the result of the one file of `request`, after the turns of others, and the CPU seconds it took."""
        turn, slot = await self._wait_for_turn(party)
        began, seconds = time.monotonic(), None
        try:
            response = await request_results(slot, request)
            (result,), (seconds,) = response.results, response.cpu_seconds
            return result, seconds
        finally:
            self._end(turn, slot, time.monotonic() - began if seconds is None else seconds)

    async def _wait_for_turn(self, party: Party) -> "_Start":
        start: asyncio.Future[_Start] = asyncio.get_running_loop().create_future()
        _set_exception(self._turns.put(party, start), Unavailable(TOO_MANY))
        self._start_next()
        try:
            return await start
        except asyncio.CancelledError:
            if started := _result_of(start):  # at the same moment
                turn, slot = started
                self._end(turn, slot, None)
            self._turns.discard(party, start)
            raise

    def _start_next(self) -> None:
        while self._free and (turn := self._turns.take()):
            if turn.item.done():  # canceled
                self._turns.charge(turn, None)
            else:
                turn.item.set_result((turn, self._free.pop()))

    def _end(self, turn: Turn[Any], slot: "ProcessSlot", seconds: float | None) -> None:
        self._turns.charge(turn, seconds)
        self._free.append(slot)
        self._start_next()


_Start = tuple[Turn[Any], "ProcessSlot"]


@dataclass(frozen=True, slots=True, eq=False)
class _SmallFile:
    body: bytes
    result: "asyncio.Future[TransformResult | Invalid | Turn[_SmallFile]]"  # a turn: in another process


class BatchLane:
    """Sends small files to the process of `slot` in batches: while one batch is validated, the next one gathers.

    Files of parties whose small files cost SLOW_SECONDS or more go to `files`, so that they share no batch.
    """

    def __init__(self, slot: "ProcessSlot", files: FileLane) -> None:
        self._slot = slot
        self._files = files
        self._turns: TurnQueue[_SmallFile] = TurnQueue(max_waiting=MAX_WAITING_SMALL)
        self._sent: list[Turn[_SmallFile]] = []
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Cancel the work, and raise Unavailable in all calls that wait."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        for file in (*(turn.item for turn in self._sent), *self._turns.waiting()):
            _set_exception(file.result, Unavailable(_STOPPING))

    async def validate(self, body: bytes, party: Party) -> TransformResult | Invalid:
        """Return the result of a file, after the turns of others."""
        file = _SmallFile(body, asyncio.get_running_loop().create_future())
        if displaced := self._turns.put(party, file):
            _set_exception(displaced.result, Unavailable(TOO_MANY))
        if self._task is None:
            self._task = asyncio.create_task(self._validate_all())
        try:
            result = await file.result
        except asyncio.CancelledError:
            if isinstance(turn := _result_of(file.result), Turn):  # at the same moment
                self._turns.charge(turn, None)
            self._turns.discard(party, file)
            raise
        return await self._validate_apart(result) if isinstance(result, Turn) else result

    async def _validate_apart(self, turn: Turn[_SmallFile]) -> TransformResult | Invalid:
        seconds = None
        try:
            result, seconds = await self._files.run(BatchRequest([turn.item.body]), turn.party)
        finally:
            self._turns.charge(turn, seconds)
        return result

    async def _validate_all(self) -> None:
        try:
            while batch := self._next_batch():
                self._sent = batch
                await self._validate(batch)
        finally:
            self._task = None

    def _next_batch(self) -> list[Turn[_SmallFile]]:
        batch: list[Turn[_SmallFile]] = []
        seconds = 0.0
        while len(batch) < BATCH_FILES:
            turn = self._turns.take(max_expected=BATCH_SECONDS - seconds if batch else None)
            if turn is None:
                break
            if turn.item.result.done():  # canceled
                self._turns.charge(turn, None)
            elif turn.expected >= SLOW_SECONDS:
                turn.item.result.set_result(turn)
            else:
                batch.append(turn)
                seconds += turn.expected
        return batch

    async def _validate(self, batch: Sequence[Turn[_SmallFile]]) -> None:
        began = time.monotonic()
        try:
            response = await request_results(self._slot, BatchRequest([turn.item.body for turn in batch]))
            results = list(zip(batch, response.results, response.cpu_seconds, strict=True))
        except Exception as error:  # noqa: BLE001 -- every kind is passed on to the calls that wait
            if len(batch) > 1 and not isinstance(error, Unavailable):
                for turn in batch:  # one of them is the cause: validate each alone to find it
                    await self._validate([turn])
                return
            for turn in batch:
                _set_exception(turn.item.result, error)
                self._turns.charge(turn, (time.monotonic() - began) / len(batch))
        else:
            for turn, result, seconds in results:
                if not turn.item.result.done():  # its upload may have been canceled
                    turn.item.result.set_result(result)
                self._turns.charge(turn, seconds)


def _set_exception(result: asyncio.Future[Any] | None, error: Exception) -> None:
    if result is not None and not result.done():
        result.set_exception(error)


def _result_of(done: asyncio.Future[Any]) -> Any:
    """Return the result of a future; None if it has none."""
    return None if not done.done() or done.cancelled() or done.exception() else done.result()


async def request_results(slot: "ProcessSlot", request: ValidationRequest) -> ValidationResponse:
    """Return the result of each file; a single file that ends its process TRIES times is Invalid.

    Raise ProcessDied if a request of several files ended the process, Unavailable if the fault is not in a file.
    """
    began = time.monotonic()
    for _ in range(TRIES):
        try:
            async with asyncio.timeout(WALL_SECONDS):
                response = await slot.request(request)
        except ProcessDied as died:
            if request.files > 1:
                raise
            if died.ran_out_of_time:
                return ValidationResponse((TOO_SLOW,), (CPU_SECONDS,))
        except TimeoutError:
            raise Unavailable("Validating a report takes too long. Upload it again in a moment.") from None
        else:
            if response.failed:
                raise Unavailable(f"A report could not be validated: {response.failed}. Upload it again.")
            return response
    return ValidationResponse((CHECKER_DIED,), (time.monotonic() - began,))


class ProcessDied(Exception):
    """The process ended instead of answering."""

    def __init__(self, return_code: int) -> None:
        super().__init__(return_code)
        self.ran_out_of_time = return_code == -signal.SIGXCPU


class ProcessSlot:
    """Holds one process: started if needed, replaced if it does not answer or is worn."""

    def __init__(self, *, nice: int = 0) -> None:
        self._nice = nice
        self._process: _ChildProcess | None = None
        self._starting = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self.fault: str | None = None  # why the last start failed

    async def retry_start(self) -> None:
        """Start the process if there is none; if that fails, keep the fault."""
        with contextlib.suppress(Unavailable):
            await self._start()

    async def _start(self) -> "_ChildProcess":
        """Return the process, started if there is none."""
        async with self._starting:
            if self._closed:
                raise Unavailable(_STOPPING)
            if self._process is None:
                try:
                    self._process = await _ChildProcess.start(self._nice)
                except Unavailable as error:
                    self.fault = str(error)
                    raise
                self.fault = None
            return self._process

    async def request(self, request: ValidationRequest) -> ValidationResponse:
        process = await self._start()
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
    async def start(cls, nice: int) -> "_ChildProcess":
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
            with contextlib.suppress(OSError):  # the system does not allow it, or the process has died
                os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + nice)
            await child._wait_until_ready()
        except (OSError, ProcessDied) as error:
            raise Unavailable(_NOT_STARTED.format(error=error)) from error
        return child

    async def _wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._read_line()
        except BaseException:
            self.kill()
            await self.wait()
            raise

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


async def _require_processes() -> None:
    """Raise Unavailable unless this program can be started as another process; `-V` ends it within milliseconds."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(sys.executable, "-V", stdin=null, stdout=pipe, env={})
    except OSError as error:
        raise Unavailable(_NOT_STARTED.format(error=error)) from error
    version, _ = await process.communicate()
    if not version:  # its return code is not known if SIGCHLD is ignored
        raise Unavailable(_NOT_STARTED.format(error=f"python -V failed with {process.returncode}"))
