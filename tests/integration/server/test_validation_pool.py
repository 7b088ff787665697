"""Validation processes: their results, what happens if they die, and that none stays behind."""

import asyncio
import contextlib
import hashlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.domain.junit.validator import Invalid, Valid, validate_bytes
from bridge.errors import Unavailable
from bridge.server.validation import pool as pool_module
from bridge.server.validation.child_main import MEMORY_BYTES, WORN_FILES
from bridge.server.validation.messages import TransformOptions, TransformResult
from bridge.server.validation.pool import ValidationPool

REPORT = b'<testsuite time="1.5" tests="9"><testcase name="a"><failure/></testcase><testcase name="b"/></testsuite>'


@pytest.fixture(scope="module", autouse=True)
def children_in_process() -> None:
    """Start validation processes here."""


def children() -> set[int]:
    """Process ids of the validation processes that this test process has, zombies too."""
    mine = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name_end = (stat := (entry / "stat").read_text()).rindex(")")
            command = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(stat[name_end + 1 :].split()[1]) == os.getpid() and (b"child_main" in command or not command):
            mine.add(int(entry.name))
    return mine


def reading_from(fifo: Path) -> int:
    """Process id of the validation process that has `fifo` open."""
    (pid,) = (pid for pid in children() if fifo in [fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir()])
    return pid


@pytest.fixture
async def pool() -> AsyncIterator[ValidationPool]:
    before = children()
    async with ValidationPool(workers=1) as pool:
        yield pool
    assert children() <= before


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A file that holds its reader for as long as the test likes."""
    path = tmp_path / "slow.xml"
    os.mkfifo(path)
    return path


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report 测试 \n.xml"
    path.write_bytes(REPORT)
    return path


async def opened(fifo: Path) -> int:
    """Wait until a validation process reads from the pipe; gives the writing end."""
    return await asyncio.to_thread(os.open, fifo, os.O_WRONLY)


async def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill a process and wait until it has closed its files."""
    end = os.pidfd_open(pid)
    os.kill(pid, number)
    await asyncio.to_thread(select.select, [end], [], [])
    os.close(end)


async def test_results_are_those_of_the_validator(pool: ValidationPool, report: Path, tmp_path: Path):
    broken = tmp_path / "broken.xml"
    broken.write_bytes(REPORT[:50])
    assert await pool.validate_file(report) == validate_bytes(REPORT)
    assert await pool.validate_file(broken) == validate_bytes(REPORT[:50])


COLOURED = REPORT.replace(b"<failure/>", b"<failure>\x1b[31mred</failure><system-out>x</system-out>")
MAX_SIZE = 1 << 20
BOTH = TransformOptions(max_size=MAX_SIZE, repair=True, strip=("system-out",))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out.xml"
    path.write_bytes(b"left by another process, longer than the output" * 10)
    return path


async def test_a_transformed_file_is_written_to_another_file(pool: ValidationPool, report: Path, out: Path):
    report.write_bytes(COLOURED)
    transformed = await pool.transform_file(report, BOTH, out)
    assert isinstance(transformed, TransformResult)
    assert transformed.changes == ("Color codes removed: 1.", "Left out: 1 system-out.")
    assert transformed.accepted.counts == validate_bytes(REPORT).counts
    assert transformed.written == (len(out.read_bytes()), hashlib.sha256(out.read_bytes()).hexdigest())
    assert validate_bytes(out.read_bytes()).counts == validate_bytes(REPORT).counts
    assert report.read_bytes() == COLOURED


async def test_a_file_without_need_of_a_transformation_is_only_validated(pool: ValidationPool, report: Path, out: Path):
    assert await pool.transform_file(report, BOTH, out) == TransformResult(accepted=validate_bytes(REPORT))


async def test_a_file_that_cannot_be_transformed_is_rejected_by_the_validator(
    pool: ValidationPool, report: Path, out: Path
):
    report.write_bytes(b"<html/>")
    assert await pool.transform_file(report, BOTH, out) == validate_bytes(b"<html/>")


async def test_a_process_makes_no_file_that_was_taken_away(pool: ValidationPool, report: Path, tmp_path: Path):
    with pytest.raises(Unavailable, match="could not be validated"):
        await pool.transform_file(report, BOTH, tmp_path / "gone.xml")
    assert not (tmp_path / "gone.xml").exists()


async def test_more_files_than_processes_are_validated_in_turn(pool: ValidationPool, report: Path):
    results = await asyncio.gather(*(pool.validate_file(report) for _ in range(20)))
    assert set(results) == {validate_bytes(REPORT)}


async def test_a_file_is_tried_once_more_when_its_process_is_killed(pool: ValidationPool, fifo: Path):
    waiting = asyncio.create_task(pool.validate_file(fifo))
    first = await opened(fifo)
    pid = reading_from(fifo)
    await kill(pid)
    second = await opened(fifo)
    os.close(first)
    os.write(second, REPORT)
    os.close(second)
    assert isinstance(await waiting, Valid)
    assert children().isdisjoint({pid})


async def test_a_file_that_ends_two_processes_is_rejected_alone(pool: ValidationPool, fifo: Path, report: Path):
    waiting = asyncio.create_task(pool.validate_file(fifo))
    for _ in range(2):
        end = await opened(fifo)
        await kill(reading_from(fifo))
        os.close(end)
    result = await waiting
    assert isinstance(result, Invalid)
    assert result.reason == "checker_died"
    assert isinstance(await pool.validate_file(report), Valid)


async def test_a_process_that_died_while_idle_is_replaced_unseen(pool: ValidationPool, report: Path):
    await pool.validate_file(report)
    await pool.validate(REPORT)
    for pid in (idle := children()):
        await kill(pid)
    assert len(idle) == 2
    assert isinstance(await pool.validate_file(report), Valid)
    assert isinstance(await pool.validate(REPORT), Valid)


async def test_a_file_that_takes_too_much_cpu_time_is_rejected(pool: ValidationPool, fifo: Path, report: Path):
    waiting = asyncio.create_task(pool.validate_file(fifo))
    end = await opened(fifo)
    pid = reading_from(fifo)
    await kill(pid, signal.SIGXCPU)  # as the kernel does at the limit
    result = await waiting
    os.close(end)
    assert isinstance(result, Invalid)
    assert result.reason == "too_slow"
    assert isinstance(await pool.validate_file(report), Valid)


def test_the_kernel_ends_a_process_at_its_limit_of_cpu_time():
    endless = "import bridge.server.validation.child_main as i; i.CPU_SECONDS = 1; i.limit_cpu_time()\nwhile True: pass"
    ended = subprocess.run([sys.executable, "-c", endless], check=False)
    assert ended.returncode == -signal.SIGXCPU


async def test_a_file_that_takes_too_much_memory_is_rejected_alone(pool: ValidationPool, fifo: Path, report: Path):
    def pour(end: int) -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(end, "wb") as pipe:
            pipe.write(b"<testsuite><testcase><system-out><![CDATA[")
            for _ in range(MEMORY_BYTES >> 20):
                pipe.write(b"x" * (1 << 20))

    waiting = asyncio.create_task(pool.validate_file(fifo))
    await asyncio.to_thread(pour, await opened(fifo))
    result = await waiting
    assert isinstance(result, Invalid)
    assert result.reason == "too_much_memory"
    assert isinstance(await pool.validate_file(report), Valid)


async def test_a_canceled_validation_ends_its_process_and_frees_its_slot(
    pool: ValidationPool, fifo: Path, report: Path
):
    waiting = asyncio.create_task(pool.validate_file(fifo))
    end = await opened(fifo)
    pid = reading_from(fifo)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    os.close(end)
    assert isinstance(await pool.validate_file(report), Valid)
    assert pid not in children()


async def test_a_validation_canceled_in_the_queue_leaves_the_queue(pool: ValidationPool, fifo: Path, report: Path):
    reading = asyncio.create_task(pool.validate_file(fifo))
    end = await opened(fifo)
    waiting = asyncio.create_task(pool.validate_file(report))
    following = asyncio.create_task(pool.validate_file(report))
    await asyncio.sleep(0)
    waiting.cancel()
    os.write(end, REPORT)
    os.close(end)
    assert isinstance(await reading, Valid)
    assert isinstance(await following, Valid)


async def test_a_full_queue_asks_to_come_again(report: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_module, "MAX_WAITING", 0)
    async with ValidationPool() as pool:
        with pytest.raises(Unavailable, match="Too many"):
            await pool.validate_file(report)


async def test_a_deadline_passed_is_no_fault_of_the_file(
    pool: ValidationPool, fifo: Path, report: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pool_module, "WALL_SECONDS", 0)
    with pytest.raises(Unavailable, match="too long"):
        await pool.validate_file(fifo)
    monkeypatch.undo()
    assert isinstance(await pool.validate_file(report), Valid)


async def test_a_file_that_cannot_be_read_is_the_bridges_fault_and_its_path_stays_hidden(
    pool: ValidationPool, tmp_path: Path
):
    with pytest.raises(Unavailable) as failure:
        await pool.validate_file(tmp_path / "gone.xml")
    assert "No such file" in str(failure.value)
    assert str(tmp_path) not in str(failure.value)


async def test_closing_ends_a_validation_and_all_processes(fifo: Path):
    pool = ValidationPool(workers=2)
    async with pool:
        waiting = asyncio.create_task(pool.validate_file(fifo))
        end = await opened(fifo)
    assert not children()
    with pytest.raises(Unavailable, match="stopping"):
        await waiting
    os.close(end)


async def test_processes_inherit_no_environment(monkeypatch: pytest.MonkeyPatch, report: Path):
    monkeypatch.setenv("BRIDGE_TESTNOD__TOKEN", "canary")
    async with ValidationPool(workers=1) as pool:
        await pool.validate_file(report)
        await pool.validate(REPORT)
        assert len(children()) == 2
        for pid in children():
            assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_a_process_is_replaced_after_its_number_of_files(pool: ValidationPool, report: Path):
    await pool.validate_file(report)
    first = children()
    for _ in range(WORN_FILES - 2):
        await pool.validate_file(report)
    assert children() == first
    await pool.validate_file(report)
    await pool.validate_file(report)
    assert children() != first


async def test_a_process_that_kept_a_files_names_is_replaced(pool: ValidationPool, report: Path, tmp_path: Path):
    many = tmp_path / "many.xml"
    many.write_bytes(b"<testsuite>" + b"".join(b"<a%d/>" % number for number in range(1_000_000)) + b"</testsuite>")
    await pool.validate_file(report)
    first = children()
    await pool.validate_file(many)
    await pool.validate_file(report)
    assert children() != first


# -- starts of processes -----------------------------------------------------------------------------------------

NOWHERE = "/nowhere/python"


async def test_a_process_starts_with_its_first_file_which_waits_for_it(pool: ValidationPool, report: Path):
    assert not children()
    assert await asyncio.gather(*(pool.validate(body) for body in (REPORT, b"<html/>"))) == [
        validate_bytes(REPORT),
        validate_bytes(b"<html/>"),
    ]
    assert len(children()) == 1
    assert isinstance(await pool.validate_file(report), Valid)
    assert len(children()) == 2


@pytest.mark.parametrize("program", [NOWHERE, "/bin/false"])
async def test_a_pool_does_not_open_where_no_process_can_be_started(program: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(Unavailable, match="No validation process could be started"):
        await ValidationPool().__aenter__()


IGNORING = """
import asyncio, signal
from bridge.server.validation.pool import ValidationPool

async def open_pool():
    async with ValidationPool():
        print("open")

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
asyncio.run(open_pool())
"""


def test_a_pool_opens_where_the_system_does_not_report_how_processes_end():
    ended = subprocess.run([sys.executable, "-c", IGNORING], capture_output=True, check=False)
    assert ended.stdout == b"open\n", ended.stderr.decode()


async def test_a_start_that_fails_is_a_fault_until_one_succeeds(pool: ValidationPool, monkeypatch: pytest.MonkeyPatch):
    assert await pool.fault() is None
    monkeypatch.setattr(sys, "executable", NOWHERE)
    with pytest.raises(Unavailable, match="No validation process could be started"):
        await pool.validate(REPORT)
    assert "No validation process could be started" in (await pool.fault() or "")
    monkeypatch.undo()
    assert await pool.fault() is None
    assert len(children()) == 1
    assert isinstance(await pool.validate(REPORT), Valid)


async def test_a_health_check_does_not_wait_for_a_start_that_hangs(
    pool: ValidationPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(sys, "executable", NOWHERE)
    with pytest.raises(Unavailable):
        await pool.validate(REPORT)
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexec cat\n")
    silent.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(silent))
    monkeypatch.setattr(pool_module, "RETRY_SECONDS", 0)
    assert await pool.fault() is not None
    assert await pool.fault() is not None


# -- small files, many at a time ---------------------------------------------------------------------------------


async def test_each_small_file_gets_its_own_result(pool: ValidationPool):
    bodies = [REPORT, REPORT[:50], b"<html/>", b"", REPORT.replace(b"1.5", b"2.5")] * 40
    results = await asyncio.gather(*(pool.validate(body) for body in bodies))
    assert results == [validate_bytes(body) for body in bodies]


async def test_small_files_that_exceed_a_batch_together_are_all_validated(pool: ValidationPool):
    bodies = [REPORT + b" " * 128_000] * 30
    results = await asyncio.gather(*(pool.validate(body) for body in bodies))
    assert results == [validate_bytes(REPORT)] * 30


def stopped_children() -> set[int]:
    """Stop all validation processes where they are; gives their process ids."""
    pids = children()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


async def test_small_files_whose_process_dies_are_validated_alone(pool: ValidationPool):
    await pool.validate(REPORT)
    before = stopped_children()
    assert len(before) == 1
    waiting = [asyncio.create_task(pool.validate(body)) for body in (REPORT, b"<html/>")]
    await asyncio.sleep(0)
    for pid in before:
        await kill(pid)
    assert await asyncio.gather(*waiting) == [validate_bytes(REPORT), validate_bytes(b"<html/>")]


async def test_a_small_file_of_a_canceled_upload_delays_no_other(pool: ValidationPool):
    waiting = [asyncio.create_task(pool.validate(REPORT)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    assert isinstance(await waiting[1], Valid)
    assert isinstance(await waiting[2], Valid)
    assert waiting[0].cancelled()


async def test_closing_ends_calls_that_wait_for_a_small_file():
    async with ValidationPool(workers=1) as pool:
        await pool.validate(REPORT)
        assert len(stopped_children()) == 1
        waiting = asyncio.create_task(pool.validate(REPORT))
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="stopping"):
        await waiting


async def test_too_many_small_files_are_asked_to_come_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_module, "MAX_WAITING_SMALL", 0)
    async with ValidationPool() as pool:
        with pytest.raises(Unavailable, match="Too many"):
            await pool.validate(REPORT)


def test_a_process_whose_gateway_was_killed_meanwhile_ends_without_a_word():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "bridge.server.validation.child_main"]
    with open(writing, "wb") as out:  # noqa: PTH123 -- a descriptor
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, check=False)
    assert ended.stderr == b""


async def test_many_small_files_with_long_messages_each_get_their_own(pool: ValidationPool):
    tag = "测" * 300  # six bytes each in the answer, of which a message shows 60
    bodies = [
        f"<testsuite><{tag}></{tag}{number}></testsuite>".encode() for number in range(2 * pool_module.BATCH_FILES)
    ]
    results = await asyncio.gather(*(pool.validate(body) for body in bodies))
    assert results == [validate_bytes(body) for body in bodies]


async def test_a_small_file_whose_result_is_too_long_fails_alone(monkeypatch):
    monkeypatch.setattr(pool_module, "RESPONSE_BYTES", 600)
    tag = "测" * 300  # six bytes each in the answer, of which a message shows 60
    untold = f"<testsuite><{tag}></{tag}1></testsuite>".encode()
    async with ValidationPool(workers=1) as pool:
        waiting = (pool.validate(body) for body in (REPORT, untold, b"<html/>"))
        told = await asyncio.gather(*waiting, return_exceptions=True)
    assert (told[0], type(told[1]), told[2]) == (validate_bytes(REPORT), ValueError, validate_bytes(b"<html/>"))
