"""Count the modules that one upload passes through: `python -m tools.upload_path` prints them.

A gateway runs in this process under a profiler, the sandbox in a thread without one. A module counts if one of its
functions is called while an upload is handled: until the answer, and until its run is finalized. What the gateway's
child processes do (validation, the SQLite writer) is not seen.
"""

import asyncio
import inspect
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

import bridge
from bridge.sandbox.sandbox import Sandbox
from tests.support.whole import JOB, running_gateway, upload

ROOT = Path(bridge.__file__).parent
STRANGERS = ("sandbox", "demo")  # they run beside the gateway
UPLOADS = 5  # a module counts for the answer if each of them calls it: background tasks are then left out
IDLE_SECONDS = 5.0  # for which the gateway is watched without an upload
LOOK_SECONDS = 0.02
ANSWER_TARGET, FINALIZE_TARGET = 25, 65

T = TypeVar("T")


class Profiler:
    """Counts the calls of the gateway's functions, in every thread that is started after it."""

    def __init__(self) -> None:
        self._calls: Counter[CodeType] = Counter()
        self._imports = threading.local()  # the depth of module bodies that are running: what they call is set-up
        self._ours: dict[CodeType, bool] = {}

    def start(self) -> None:
        """Profile this thread and those to come."""
        threading.setprofile(self._see)
        sys.setprofile(self._see)

    def stop(self) -> None:
        """Profile no longer."""
        sys.setprofile(None)
        threading.setprofile(None)

    def take(self) -> Counter[CodeType]:
        """Return the calls since the last take."""
        taken, self._calls = self._calls, Counter()
        return taken

    def _see(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if code.co_name == "<module>" and event in ("call", "return"):
            depth = getattr(self._imports, "depth", 0)
            self._imports.depth = depth + (1 if event == "call" else -1)
        elif event == "call" and not getattr(self._imports, "depth", 0):
            ours = self._ours.get(code)
            if ours is None:
                ours = self._ours[code] = is_ours(code)
            if ours:
                self._calls[code] += 1


def is_ours(code: CodeType) -> bool:
    """Return whether code is a function of the gateway: no class body, nothing generated, no stand-in."""
    path = Path(code.co_filename)
    if not code.co_flags & inspect.CO_OPTIMIZED or not path.is_relative_to(ROOT):
        return False
    return path.relative_to(ROOT).parts[0] not in STRANGERS


class Aside:
    """An event loop in a thread of its own, which the profiler does not see."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and return its result."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function there and return its result."""

        async def called() -> T:
            return function()

        return await self.run(called())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once a condition holds there."""

        async def held() -> None:
            while not condition():  # noqa: ASYNC110 -- nothing announces it
                await asyncio.sleep(LOOK_SECONDS)

        await self.run(held())

    def close(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadPath:
    """The modules of one upload, as paths below bridge/."""

    until_answer: list[str]
    until_finalize: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The calls of one upload and how long they took in all."""

    until_answer: Counter[CodeType]
    until_finalize: Counter[CodeType]
    seconds: float


async def measure(folder: Path) -> UploadPath:
    """Run a gateway below `folder`, watch it idle, then play uploads one by one; return what they passed through."""
    aside = Aside()  # before the profiler, so that it is not profiled
    profiler = Profiler()
    try:
        async with _sandbox(aside) as sandbox:
            profiler.start()
            table = f'[codearts]\nendpoint = "{sandbox.codearts_url}"\n'
            async with running_gateway(folder, sandbox, table) as running:
                await asyncio.sleep(IDLE_SECONDS / 5)  # what only starts it is over
                profiler.take()
                await asyncio.sleep(IDLE_SECONDS)
                idle = profiler.take()
                windows = [await _play(running, sandbox, aside, profiler, number) for number in range(1, UPLOADS + 1)]
            profiler.stop()
    finally:
        aside.close()
    answered = _in_each([set(window.until_answer) for window in windows])
    finalized = _in_each([_beyond(idle, window) for window in windows])
    return UploadPath(until_answer=_modules(answered), until_finalize=_modules(answered | finalized))


@asynccontextmanager
async def _sandbox(aside: Aside) -> AsyncIterator[Sandbox]:
    stack = AsyncExitStack()
    sandbox = await aside.run(stack.enter_async_context(Sandbox()))
    try:
        yield sandbox
    finally:
        await aside.run(stack.aclose())


async def _play(running: Any, sandbox: Sandbox, aside: Aside, profiler: Profiler, build_no: int) -> Window:
    world = sandbox.state
    await aside.call(lambda: world.builds.start(JOB, build_no, at=world.micros()))
    profiler.take()
    began = time.monotonic()
    await aside.run(upload(running, build_no))
    until_answer = profiler.take()
    await aside.call(lambda: world.builds.end(JOB, build_no, at=world.micros()))
    await aside.until(lambda: any(run.finalize_calls for run in world.runs.all(f"codearts-{JOB}-{build_no}")))
    await asyncio.sleep(LOOK_SECONDS)  # the answer of finalize is recorded
    until_finalize = until_answer + profiler.take()
    return Window(until_answer=until_answer, until_finalize=until_finalize, seconds=time.monotonic() - began)


def _beyond(idle: Counter[CodeType], window: Window) -> set[CodeType]:
    """Return the functions that were called more often than an idle gateway calls them in the same time."""
    share = window.seconds / IDLE_SECONDS
    return {code for code, count in window.until_finalize.items() if count > ceil(idle[code] * share)}


def _in_each(sets: Iterable[set[CodeType]]) -> set[CodeType]:
    return set.intersection(*sets)


def _modules(codes: Iterable[CodeType]) -> list[str]:
    return sorted({Path(code.co_filename).relative_to(ROOT).as_posix() for code in codes})


def main() -> None:
    """Print both lists and their targets."""
    with tempfile.TemporaryDirectory() as folder:
        path = asyncio.run(measure(Path(folder)))
    print(f"until the answer: {len(path.until_answer)} modules (target: {ANSWER_TARGET})")
    print("\n".join(f"  {name}" for name in path.until_answer))
    more = [name for name in path.until_finalize if name not in path.until_answer]
    print(f"until finalize: {len(path.until_finalize)} modules (target: {FINALIZE_TARGET}), besides those above:")
    print("\n".join(f"  {name}" for name in more))


if __name__ == "__main__":
    main()
