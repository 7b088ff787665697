import asyncio
import gc
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from bridge.domain.instants import SECOND
from bridge.errors import Unavailable
from bridge.worker.background_tasks import HANG_US, MAX_RESTART_US, BackgroundTasks, SupervisedTask, Supervisor
from tests.support.fake_clock import FakeClock


@pytest.fixture
async def unheard():
    """Return what the event loop reports of errors that were never retrieved."""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    return told


async def fails_after(event, error):
    await event.wait()
    raise error


async def cut_off(tasks, work):
    """Let a visit begin `work`, and cut it off."""
    visit = asyncio.create_task(tasks.run_shielded(work))
    await asyncio.sleep(0)
    visit.cancel()
    await asyncio.wait([visit])
    assert visit.cancelled()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unavailable("The ledger is away. Later."), ("reconcile_interrupted", "warning")),
        (ValueError("a bug"), ("reconcile_failed", "error")),
    ],
)
async def test_what_a_visit_left_behind_says_in_one_line_that_it_failed(unheard, error, said):
    tasks, now = BackgroundTasks(), asyncio.Event()
    await cut_off(tasks, fails_after(now, error))
    with capture_logs() as logs:
        now.set()
        await tasks.finish()
        await asyncio.sleep(0)
        gc.collect()
    assert [(line["event"], line["log_level"]) for line in logs] == [said]
    assert unheard == []


async def test_a_failure_is_raised_for_a_caller_that_waits_and_not_logged(unheard):
    tasks, now = BackgroundTasks(), asyncio.Event()
    now.set()
    with capture_logs() as logs, pytest.raises(Unavailable, match="away"):
        await tasks.run_shielded(fails_after(now, Unavailable("The ledger is away. Later.")))
    assert (logs, unheard) == ([], [])


async def test_it_goes_on_where_its_visit_is_cut_off_and_is_waited_for():
    tasks, now, done = BackgroundTasks(), asyncio.Event(), []

    async def work():
        await now.wait()
        done.append("written")

    await cut_off(tasks, work())
    now.set()
    await tasks.finish()
    assert (done, tasks.running) == (["written"], set())


async def test_what_is_not_waited_for_any_longer_ends():
    tasks = BackgroundTasks()
    await cut_off(tasks, asyncio.Event().wait())
    (left,) = tasks.running
    finish = asyncio.create_task(tasks.finish())
    await asyncio.sleep(0)
    finish.cancel()
    await asyncio.wait([finish, left])
    assert left.cancelled()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def watch(clock):
    """Run loops under a supervisor; what is returned are these loops as it keeps them."""
    running: list[asyncio.Task[None]] = []

    def start(**runs) -> list[SupervisedTask]:
        supervisor = Supervisor(clock)
        for name, run in runs.items():
            supervisor.add(name, run)
        running.append(asyncio.create_task(supervisor.run()))
        return supervisor.tasks

    yield start
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def turns() -> None:
    """Let everything happen that can happen now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def hang(beat: Callable[[], None]) -> None:
    beat()
    await asyncio.Event().wait()


async def test_a_loop_that_falls_over_is_said_and_begun_again(watch, clock):
    began = []

    async def fall(_beat):
        began.append(clock.now())
        raise ValueError("a bug")

    [loop] = watch(fall=fall)
    await turns()
    assert (len(began), loop.restarts, loop.last_error) == (1, 1, "ValueError")
    for _ in range(3):
        clock.advance(MAX_RESTART_US)
        await turns()
    assert (len(began), loop.restarts) == (4, 4)


async def test_a_loop_that_hangs_is_ended_and_begun_again(watch, clock):
    ended = []

    async def once(beat):
        try:
            await hang(beat)
        finally:
            ended.append(clock.now())

    [loop] = watch(once=once)
    await turns()
    clock.advance(HANG_US - 1)
    await turns()
    assert (ended, loop.restarts) == ([], 0)
    clock.advance(1)
    await turns()
    assert (len(ended), loop.restarts, loop.last_error) == (1, 1, "TimeoutError")
    clock.advance(MAX_RESTART_US)
    await turns()
    assert loop.beat_at == clock.steady()  # it turns again
    assert len(ended) == 1


async def test_a_loop_that_hangs_is_noticed_as_soon_after_the_clock_was_set_back(watch, clock):
    [loop] = watch(hang=hang)
    await turns()
    clock.advance(-48 * 3600 * SECOND)
    await turns()
    clock.advance(HANG_US)
    await turns()
    clock.advance(48 * 3600 * SECOND)  # wakes the waits of a clock that was set; those of a real one do not need it
    await turns()
    assert loop.restarts == 1


async def test_a_loop_that_turns_is_left_alone_however_long_it_runs(watch, clock):
    async def turn(beat):
        while True:
            beat()
            await clock.wait(asyncio.Event(), clock.now() + HANG_US // 2)

    [loop] = watch(turn=turn)
    for _ in range(10):
        await turns()
        clock.advance(HANG_US // 2)
    await turns()
    assert (loop.restarts, loop.beat_at) == (0, clock.steady())


async def test_one_that_hangs_takes_no_other_with_it(watch, clock):
    others = 0

    async def other(beat):
        nonlocal others
        others += 1
        while True:
            beat()
            await clock.wait(asyncio.Event(), clock.now() + HANG_US // 3)

    hung, well = watch(hung=hang, other=other)
    for _ in range(4):
        await turns()
        clock.advance(HANG_US // 3)
    await turns()
    assert (hung.restarts, well.restarts, others) == (1, 0, 1)


async def test_a_loop_that_returns_has_ended(watch):
    async def at_once(_beat):
        pass

    [loop] = watch(at_once=at_once)
    await turns()
    assert loop.restarts == 0


async def test_a_loop_that_is_cancelled_from_within_is_begun_again(watch, clock):
    began = []

    async def cancelled(_beat):
        began.append(clock.now())
        raise asyncio.CancelledError

    [loop] = watch(cancelled=cancelled)
    await turns()
    clock.advance(MAX_RESTART_US)
    await turns()
    assert (len(began), loop.restarts, loop.last_error) == (2, 2, "RuntimeError")
