import asyncio
import gc

import pytest
from structlog.testing import capture_logs

from bridge.errors import Unavailable
from bridge.worker.background_tasks import BackgroundTasks


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


async def test_whoever_waits_is_told_alone(unheard):
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
