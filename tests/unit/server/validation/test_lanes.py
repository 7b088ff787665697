"""How files share the validation processes, with processes and a clock of the test's own: order, not time."""

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge.domain.junit.validator import validate_bytes
from bridge.errors import Unavailable
from bridge.server.validation import pool as pool_module
from bridge.server.validation.messages import BatchRequest, FileRequest, TransformResult, ValidationResponse
from bridge.server.validation.pool import BATCH_FILES, BatchLane, FileLane, ProcessDied
from bridge.server.validation.turns import Party

HONEST, HOSTILE = Party("honest", "payments"), Party("hostile", "web")
COSTS = {"honest": 0.001, "hostile": 0.4, "sixteen-times-an-ordinary-one": 0.016, "huge": 1.4, "large": 0.1}
VALID = TransformResult(accepted=validate_bytes(b"<testsuite><testcase/></testsuite>"))  # type: ignore[arg-type]


class FakeSlot:
    """A process that answers when `step` is called; the first word of a file says what it costs."""

    def __init__(self, log: list[list[str]]) -> None:
        self._log = log
        self._steps: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def request(self, request: BatchRequest | FileRequest) -> ValidationResponse:
        files = [body.decode() for body in request.bodies] if isinstance(request, BatchRequest) else [str(request.path)]
        self._log.append(files)
        if error := await self._steps.get():
            raise error
        return ValidationResponse((VALID,) * len(files), tuple(COSTS[file.split()[0]] for file in files))

    async def step(self, error: BaseException | None = None) -> None:
        self._steps.put_nowait(error)
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def log() -> list[list[str]]:
    return []


@pytest.fixture
def slots(log: list[list[str]]) -> list[FakeSlot]:
    return [FakeSlot(log), FakeSlot(log), FakeSlot(log)]


@pytest.fixture
def files(slots: Sequence[FakeSlot]) -> FileLane:
    return FileLane(slots[1:])  # type: ignore[arg-type]


@pytest.fixture
def batches(slots: Sequence[FakeSlot], files: FileLane) -> BatchLane:
    return BatchLane(slots[0], files)  # type: ignore[arg-type]


async def started(*calls: Awaitable[Any]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.ensure_future(call) for call in calls]
    await settle()
    return tasks


@pytest.mark.parametrize("file", ["hostile", "sixteen-times-an-ordinary-one"])
async def test_small_files_that_cost_much_are_found_out_and_hold_up_no_small_file_of_others(batches, slots, log, file):
    hostile = await started(*(batches.validate(b"%s %d" % (file.encode(), n), HOSTILE) for n in range(128)))
    honest = await started(*(batches.validate(b"honest %d" % number, HONEST) for number in range(3)))
    assert log == [[f"{file} 0"]]
    await slots[0].step()
    assert log[1] == ["honest 0"]  # after one file
    for _ in range(3):
        await slots[0].step()
    assert all(task.done() for task in honest)
    assert not any(len({file.split()[0] for file in batch}) > 1 for batch in log)
    del log[:]
    (late,) = await started(batches.validate(b"honest late", HONEST))
    assert ["honest late"] in log  # at once, although hostile files wait
    await slots[0].step()
    assert late.done()
    for task in hostile:
        task.cancel()


async def test_cheap_small_files_of_several_callers_share_batches(batches, slots, log):
    parties = [Party(f"caller {number}") for number in range(4)]
    warm = await started(*(batches.validate(b"honest", party) for party in parties for _ in range(40)))
    while not all(task.done() for task in warm):
        await slots[0].step()
    del log[:]
    tasks = await started(*(batches.validate(b"honest %d" % i, party) for i, party in enumerate(parties * 3)))
    while not all(task.done() for task in tasks):
        await slots[0].step()
    assert sorted(map(len, log)) == [12 - BATCH_FILES, BATCH_FILES] or sorted(map(len, log)) == [1, 3, BATCH_FILES]


async def test_large_files_of_one_caller_stop_no_large_file_of_another(files, slots, log):
    hostile = await started(*(files.run(FileRequest(Path(f"huge {number}")), HOSTILE) for number in range(24)))
    assert log == [["huge 0"]]  # a caller of which nothing is known leaves a process free
    (honest,) = await started(files.run(FileRequest(Path("large 0")), HONEST))
    assert log[1:] == [["large 0"]]
    await slots[1].step()
    assert honest.done()
    await slots[2].step()
    assert log[2:] == [["huge 1"]]  # and so does one whose files cost that much
    (honest,) = await started(files.run(FileRequest(Path("large 1")), HONEST))
    assert log[3:] == [["large 1"]]
    for task in (honest, *hostile):
        task.cancel()


async def test_a_full_line_fails_the_files_of_the_caller_that_filled_it(monkeypatch, slots):
    monkeypatch.setattr(pool_module, "MAX_WAITING", 10)
    files = FileLane(slots[1:])
    hostile = await started(*(files.run(FileRequest(Path(f"huge {number}")), HOSTILE) for number in range(12)))
    (honest,) = await started(files.run(FileRequest(Path("large 0")), HONEST))
    assert not honest.done()
    lost = [task for task in hostile if task.done()]
    assert len(lost) == 2
    for task in lost:
        with pytest.raises(Unavailable, match="Too many reports wait"):
            task.result()
    for task in (honest, *hostile):
        task.cancel()


async def test_a_canceled_file_frees_its_place(files, log):
    first, second, third = await started(
        *(files.run(FileRequest(Path(f"large {number}")), HONEST) for number in range(3))
    )
    third.cancel()
    await settle()
    first.cancel()
    await settle()
    (fourth,) = await started(files.run(FileRequest(Path("large 3")), HONEST))
    assert log == [["large 0"], ["large 1"], ["large 3"]]
    for task in (second, fourth):
        task.cancel()


async def test_small_files_go_on_after_a_batch_without_files_and_after_deaths(batches, slots, log):
    (first,) = await started(batches.validate(b"honest 0", HONEST))
    gone = await started(*(batches.validate(b"honest gone", HONEST) for _ in range(5)))
    for task in gone:
        task.cancel()
    await slots[0].step(ProcessDied(-9))
    await slots[0].step(ProcessDied(-9))
    assert first.done()
    assert first.result().reason == "checker_died"
    (next_one,) = await started(batches.validate(b"honest 1", HONEST))
    assert log[-1] == ["honest 1"]
    next_one.cancel()


async def test_small_files_go_on_after_an_answer_of_the_wrong_length(batches, slots, monkeypatch):
    async def answer(_request: object) -> ValidationResponse:
        return ValidationResponse((VALID, VALID), (0.1,))

    monkeypatch.setattr(slots[0], "request", answer)
    with pytest.raises(ValueError, match="zip"):
        await batches.validate(b"honest 0", HONEST)
    monkeypatch.undo()
    (task,) = await started(batches.validate(b"honest 1", HONEST))
    await slots[0].step()
    assert task.result() == VALID
