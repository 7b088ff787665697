"""Checking processes: their verdicts, their deaths, and what is left of them."""

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
from bridge.server.validation import pool
from bridge.server.validation.child_main import MEMORY_SIZE, WORN_FILES
from bridge.server.validation.pool import ValidationPool
from bridge.server.validation.transform import TransformOptions, TransformResult

REPORT = b'<testsuite time="1.5" tests="9"><testcase name="a"><failure/></testcase><testcase name="b"/></testsuite>'


def inspectors() -> set[int]:
    """Process ids of the checking processes that this test process has, zombies too."""
    mine = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name_end = (stat := (entry / "stat").read_text()).rindex(")")
            command = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(stat[name_end + 1 :].split()[1]) == os.getpid() and (b"inspector" in command or not command):
            mine.add(int(entry.name))
    return mine


def reading_from(fifo: Path) -> int:
    """Process id of the checking process that has `fifo` open."""
    (pid,) = (pid for pid in inspectors() if fifo in [fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir()])
    return pid


@pytest.fixture
async def checker() -> AsyncIterator[ValidationPool]:
    before = inspectors()
    async with ValidationPool(workers=1) as checker:
        yield checker
    assert inspectors() <= before


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
    """Wait until an inspector reads from the pipe; gives the writing end."""
    return await asyncio.to_thread(os.open, fifo, os.O_WRONLY)


async def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill a process and wait until it has closed its files."""
    end = os.pidfd_open(pid)
    os.kill(pid, number)
    await asyncio.to_thread(select.select, [end], [], [])
    os.close(end)


async def test_verdicts_are_those_of_the_gate(checker: ValidationPool, report: Path, tmp_path: Path):
    broken = tmp_path / "broken.xml"
    broken.write_bytes(REPORT[:50])
    assert await checker.check_file(report) == validate_bytes(REPORT)
    assert await checker.check_file(broken) == validate_bytes(REPORT[:50])


COLOURED = REPORT.replace(b"<failure/>", b"<failure>\x1b[31mred</failure><system-out>x</system-out>")
MAX_SIZE = 1 << 20
BOTH = TransformOptions(max_size=MAX_SIZE, repair=True, strip=("system-out",))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out.xml"
    path.write_bytes(b"what another process left there, longer than what is to be written" * 10)
    return path


async def test_a_treated_file_is_written_beside_it_and_described(checker: ValidationPool, report: Path, out: Path):
    report.write_bytes(COLOURED)
    treated = await checker.treat_file(report, BOTH, out)
    assert isinstance(treated, TransformResult)
    assert treated.changes == ("Color codes removed: 1.", "Left out: 1 system-out.")
    assert treated.accepted.counts == validate_bytes(REPORT).counts
    assert treated.written == (len(out.read_bytes()), hashlib.sha256(out.read_bytes()).hexdigest())
    assert validate_bytes(out.read_bytes()).counts == validate_bytes(REPORT).counts
    assert report.read_bytes() == COLOURED


async def test_a_file_that_needs_no_treatment_is_only_judged(checker: ValidationPool, report: Path, out: Path):
    assert await checker.treat_file(report, BOTH, out) == TransformResult(accepted=validate_bytes(REPORT))


async def test_a_file_that_cannot_be_treated_is_refused_by_the_gates_word(
    checker: ValidationPool, report: Path, out: Path
):
    report.write_bytes(b"<html/>")
    assert await checker.treat_file(report, BOTH, out) == validate_bytes(b"<html/>")


async def test_a_process_makes_no_file_that_was_taken_away(checker: ValidationPool, report: Path, tmp_path: Path):
    with pytest.raises(Unavailable, match="could not be checked"):
        await checker.treat_file(report, BOTH, tmp_path / "gone.xml")
    assert not (tmp_path / "gone.xml").exists()


async def test_more_files_than_processes_are_checked_in_turn(checker: ValidationPool, report: Path):
    verdicts = await asyncio.gather(*(checker.check_file(report) for _ in range(20)))
    assert set(verdicts) == {validate_bytes(REPORT)}


async def test_a_file_is_tried_once_more_when_its_process_is_killed(checker: ValidationPool, fifo: Path):
    waiting = asyncio.create_task(checker.check_file(fifo))
    first = await opened(fifo)
    pid = reading_from(fifo)
    await kill(pid)
    second = await opened(fifo)
    os.close(first)
    os.write(second, REPORT)
    os.close(second)
    assert isinstance(await waiting, Valid)
    assert inspectors().isdisjoint({pid})


async def test_a_file_that_takes_two_processes_with_it_is_refused_alone(
    checker: ValidationPool, fifo: Path, report: Path
):
    waiting = asyncio.create_task(checker.check_file(fifo))
    for _ in range(2):
        end = await opened(fifo)
        await kill(reading_from(fifo))
        os.close(end)
    verdict = await waiting
    assert isinstance(verdict, Invalid)
    assert verdict.reason == "checker_died"
    assert isinstance(await checker.check_file(report), Valid)


async def test_a_process_that_died_while_idle_is_replaced_unseen(checker: ValidationPool, report: Path):
    for pid in inspectors():
        await kill(pid)
    assert isinstance(await checker.check_file(report), Valid)
    assert isinstance(await checker.check(REPORT), Valid)


async def test_a_file_that_takes_too_much_computing_is_refused(checker: ValidationPool, fifo: Path, report: Path):
    waiting = asyncio.create_task(checker.check_file(fifo))
    end = await opened(fifo)
    pid = reading_from(fifo)
    await kill(pid, signal.SIGXCPU)  # as the kernel does at the limit
    verdict = await waiting
    os.close(end)
    assert isinstance(verdict, Invalid)
    assert verdict.reason == "too_slow"
    assert isinstance(await checker.check_file(report), Valid)


def test_the_kernel_ends_a_process_at_its_limit_of_computing():
    endless = "import bridge.server.validation.child_main as i; i.CPU_SECONDS = 1; i.limit_cpu_time()\nwhile True: pass"
    ended = subprocess.run([sys.executable, "-c", endless], check=False)
    assert ended.returncode == -signal.SIGXCPU


async def test_a_file_that_takes_too_much_memory_is_refused_alone(checker: ValidationPool, fifo: Path, report: Path):
    def pour(end: int) -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(end, "wb") as pipe:
            pipe.write(b"<testsuite><testcase><system-out><![CDATA[")
            for _ in range(MEMORY_SIZE >> 20):
                pipe.write(b"x" * (1 << 20))

    waiting = asyncio.create_task(checker.check_file(fifo))
    await asyncio.to_thread(pour, await opened(fifo))
    verdict = await waiting
    assert isinstance(verdict, Invalid)
    assert verdict.reason == "too_much_memory"
    assert isinstance(await checker.check_file(report), Valid)


async def test_a_cancelled_check_ends_its_process_and_frees_its_place(
    checker: ValidationPool, fifo: Path, report: Path
):
    waiting = asyncio.create_task(checker.check_file(fifo))
    end = await opened(fifo)
    pid = reading_from(fifo)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    os.close(end)
    assert isinstance(await checker.check_file(report), Valid)
    assert pid not in inspectors()


async def test_a_check_cancelled_in_the_queue_leaves_the_queue(checker: ValidationPool, fifo: Path, report: Path):
    reading = asyncio.create_task(checker.check_file(fifo))
    end = await opened(fifo)
    waiting = asyncio.create_task(checker.check_file(report))
    following = asyncio.create_task(checker.check_file(report))
    await asyncio.sleep(0)
    waiting.cancel()
    os.write(end, REPORT)
    os.close(end)
    assert isinstance(await reading, Valid)
    assert isinstance(await following, Valid)


async def test_a_full_queue_asks_to_come_again(checker: ValidationPool, report: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "MAX_WAITING", 0)
    with pytest.raises(Unavailable, match="Too many"):
        await checker.check_file(report)


async def test_a_deadline_passed_is_no_fault_of_the_file(
    checker: ValidationPool, fifo: Path, report: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pool, "WALL_SECONDS", 0)
    with pytest.raises(Unavailable, match="too long"):
        await checker.check_file(fifo)
    monkeypatch.undo()
    assert isinstance(await checker.check_file(report), Valid)


async def test_a_file_that_cannot_be_read_is_the_bridges_fault_and_its_path_stays_hidden(
    checker: ValidationPool, tmp_path: Path
):
    with pytest.raises(Unavailable) as failure:
        await checker.check_file(tmp_path / "gone.xml")
    assert "No such file" in str(failure.value)
    assert str(tmp_path) not in str(failure.value)


async def test_closing_ends_a_check_and_all_processes(fifo: Path):
    checker = ValidationPool(workers=2)
    async with checker:
        waiting = asyncio.create_task(checker.check_file(fifo))
        end = await opened(fifo)
    assert not inspectors()
    with pytest.raises(Unavailable, match="stopping"):
        await waiting
    os.close(end)


async def test_processes_inherit_no_environment(monkeypatch: pytest.MonkeyPatch, report: Path):
    monkeypatch.setenv("BRIDGE_TESTNOD__TOKEN", "canary")
    async with ValidationPool(workers=1) as checker:
        await checker.check_file(report)
        assert len(inspectors()) == 2
        for pid in inspectors():
            assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_a_process_is_replaced_after_its_number_of_files(checker: ValidationPool, report: Path):
    await checker.check_file(report)
    first = inspectors()
    for _ in range(WORN_FILES - 2):
        await checker.check_file(report)
    assert inspectors() == first
    await checker.check_file(report)
    await checker.check_file(report)
    assert inspectors() != first


async def test_a_process_that_kept_a_files_names_is_replaced(checker: ValidationPool, report: Path, tmp_path: Path):
    many = tmp_path / "many.xml"
    many.write_bytes(b"<testsuite>" + b"".join(b"<a%d/>" % number for number in range(1_000_000)) + b"</testsuite>")
    await checker.check_file(report)
    first = inspectors()
    await checker.check_file(many)
    await checker.check_file(report)
    assert inspectors() != first


# -- small files, many at a time ---------------------------------------------------------------------------------


async def test_small_files_get_the_verdicts_of_the_gate_each_its_own(checker: ValidationPool):
    bodies = [REPORT, REPORT[:50], b"<html/>", b"", REPORT.replace(b"1.5", b"2.5")] * 40
    verdicts = await asyncio.gather(*(checker.check(body) for body in bodies))
    assert verdicts == [validate_bytes(body) for body in bodies]


async def test_small_files_that_are_a_batch_too_large_together_are_judged_all(checker: ValidationPool):
    bodies = [REPORT + b" " * 128_000] * 30
    verdicts = await asyncio.gather(*(checker.check(body) for body in bodies))
    assert verdicts == [validate_bytes(REPORT)] * 30


def stopped_inspectors() -> set[int]:
    """Stop all checking processes where they are; gives their process ids."""
    pids = inspectors()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


async def test_small_files_whose_process_dies_are_judged_each_alone(checker: ValidationPool):
    before = stopped_inspectors()
    waiting = [asyncio.create_task(checker.check(body)) for body in (REPORT, b"<html/>")]
    await asyncio.sleep(0)
    for pid in before:
        await kill(pid)
    assert await asyncio.gather(*waiting) == [validate_bytes(REPORT), validate_bytes(b"<html/>")]


async def test_a_small_file_nobody_waits_for_holds_no_other_up(checker: ValidationPool):
    waiting = [asyncio.create_task(checker.check(REPORT)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    assert isinstance(await waiting[1], Valid)
    assert isinstance(await waiting[2], Valid)
    assert waiting[0].cancelled()


async def test_closing_lets_those_go_who_wait_for_a_small_file():
    async with ValidationPool(workers=1) as checker:
        stopped_inspectors()
        waiting = asyncio.create_task(checker.check(REPORT))
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="stopping"):
        await waiting


async def test_too_many_small_files_are_asked_to_come_again(checker: ValidationPool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "MAX_WAITING", 0)
    with pytest.raises(Unavailable, match="Too many"):
        await checker.check(REPORT)


def test_a_process_whose_gateway_was_killed_meanwhile_ends_without_a_word():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "bridge.server.validation.child_main"]
    with open(writing, "wb") as nobody:  # noqa: PTH123 -- a descriptor
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=nobody, stderr=subprocess.PIPE, check=False)
    assert ended.stderr == b""


async def test_many_small_files_whose_faults_take_many_words_are_each_told_theirs(checker: ValidationPool):
    tag = "测" * 300  # six bytes each in the answer, of which a message shows 60
    bodies = [f"<testsuite><{tag}></{tag}{number}></testsuite>".encode() for number in range(2 * pool.MAX_FILES)]
    verdicts = await asyncio.gather(*(checker.check(body) for body in bodies))
    assert verdicts == [validate_bytes(body) for body in bodies]


async def test_a_small_file_whose_verdict_cannot_be_told_takes_none_of_its_batch_with_it(monkeypatch):
    monkeypatch.setattr(pool, "ANSWER_SIZE", 600)
    tag = "测" * 300  # six bytes each in the answer, of which a message shows 60
    untold = f"<testsuite><{tag}></{tag}1></testsuite>".encode()
    async with ValidationPool(workers=1) as checker:
        waiting = (checker.check(body) for body in (REPORT, untold, b"<html/>"))
        told = await asyncio.gather(*waiting, return_exceptions=True)
    assert (told[0], type(told[1]), told[2]) == (validate_bytes(REPORT), ValueError, validate_bytes(b"<html/>"))
