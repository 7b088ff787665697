"""A run that a lost registration holds in pending, through the real worker and ledger."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from bridge.domain.build import DeliveryState, RegistrationState
from bridge.domain.lifecycle.replacement import replace_run
from bridge.domain.outcomes import OutcomeUnknown, RunStatus
from bridge.store.blobs.disk import DiskSpool
from bridge.store.queries import find_build
from bridge.store.retention import body_location
from bridge.telemetry.metrics import Metrics
from tests.support.builders import MINUTE
from tests.support.fake_clock import FakeClock
from tests.support.labels import label
from tests.support.ledger import report
from tests.support.worker_play import JOBS, Outside, Play

JOB = next(iter(JOBS))
BUILD = {"job_id": JOB, "build_no": 1}
FIRST, SECOND, THIRD = f"codearts-{JOB}-1", f"codearts-{JOB}-1.2", f"codearts-{JOB}-1.3"


class Holding(Outside):
    """TestNod with runs that stay pending: those in which it opened an upload and its answer was lost."""

    def __init__(self, clock, *, loses):
        super().__init__(clock)
        self.held = set(loses)
        self.odd = {("register", build_id): iter([OutcomeUnknown(message="cut")]) for build_id in loses}
        self.asked = []

    async def finalize(self, token, build_id):
        self.asked.append(build_id)
        outcome = await super().finalize(token, build_id)
        return RunStatus(status="pending") if build_id in self.held else outcome


@pytest.fixture
async def start(backend, tmp_path):
    """Return a function that begins a play in which the first register of each of these build_ids is lost."""
    clock = FakeClock()
    async with backend.fresh(clock) as database:

        async def begin(*loses, **policy):
            play = Play(database, clock, tmp_path, outside=Holding(clock, loses=loses), **policy)
            await play.ledger.accept(report("a.xml"), report("b.xml", b"<b/>"), complete=True, **BUILD)
            return play

        yield begin


async def shown(play):
    return await play.config.database.read(find_build, JOB, 1)


async def kept(play):
    return [(await play.config.database.read(body_location, number)).body is not None for number in (1, 2)]


async def test_the_whole_build_goes_out_again_and_both_runs_are_shown(start, monkeypatch):
    counted = []
    monkeypatch.setattr(Metrics, "count_replaced", lambda _: counted.append(1))
    play = await start(FIRST)

    with capture_logs() as logs:
        await play.hours(2)

    build = await shown(play)
    runs = [(run["build_id"], run["status"], run["counts"]) for run in build["testnod"]["runs"]]
    assert runs == [(FIRST, "pending", False), (SECOND, "processed", True)]
    assert [run["lost_registrations"] for run in build["testnod"]["runs"]] == [1, 0]
    assert (build["state"], build["stuck_reason"], build["testnod"]["build_id"]) == ("finalized", None, SECOND)
    assert play.outside.registered.count(SECOND) == 2
    assert await play.states() == [DeliveryState.DELIVERED] * 2
    replaced = [line for line in logs if line["event"] == "run_replaced"]
    assert [(line["build_id"], line["lost_registrations"]) for line in replaced] == [(FIRST, 1)]
    assert counted == [1]


async def test_the_bytes_are_kept_until_the_run_that_counts_has_left_pending(start):
    play = await start(FIRST)
    await play.until(play.clock.now() + 50 * MINUTE)
    assert await kept(play) == [True, True]

    await play.hours(1)

    assert await kept(play) == [False, False]


async def test_the_bytes_of_a_run_that_leaves_pending_are_released_at_once(start):
    play = await start()
    await play.until(play.clock.now() + MINUTE)

    assert await kept(play) == [False, False]
    assert play.outside.registered == [FIRST] * 2


async def test_without_replacement_bytes_go_with_the_delivery_and_the_build_is_stuck(start):
    play = await start(FIRST, replace_stuck_runs=False)
    await play.until(play.clock.now() + 5 * MINUTE)
    assert await kept(play) == [False, False]

    await play.hours(2)

    assert "it is not replaced: delivery.replace_stuck_runs is false" in (await shown(play))["stuck_reason"]
    assert SECOND not in play.outside.registered


async def test_three_runs_that_stay_pending_are_enough(start):
    play = await start(FIRST, SECOND, THIRD)

    await play.hours(5)

    build = await shown(play)
    assert [run["counts"] for run in build["testnod"]["runs"]] == [False, False, True]
    assert "3 runs in a row have stayed pending" in build["stuck_reason"]
    assert await kept(play) == [False, False]


async def test_a_run_that_leaves_pending_before_the_time_is_over_is_not_replaced(start):
    play = await start(FIRST)
    await play.until(play.clock.now() + 50 * MINUTE)
    play.outside.held.clear()

    await play.hours(3)

    assert SECOND not in play.outside.registered
    assert await kept(play) == [False, False]


async def test_a_gateway_that_was_down_before_the_next_run_was_opened_asks_about_the_last_one_first(start):
    """It was killed between the two: nothing was registered under the next build_id."""
    play = await start(FIRST)
    await play.until(play.clock.now() + 50 * MINUTE)
    play.clock.advance(20 * MINUTE)
    visit = await play.ledger.claimed(JOBS[JOB])
    assert await play.ledger.record(visit.build, *replace_run(visit.build, play.clock.now()))
    play.outside.held.clear()

    await play.hours(1)

    assert play.outside.registered == [FIRST] * 2
    runs = [(run["build_id"], run["status"], run["counts"]) for run in (await shown(play))["testnod"]["runs"]]
    assert runs == [(FIRST, "processed", True)]
    assert await play.states() == [DeliveryState.DELIVERED] * 2


async def test_a_report_that_comes_later_goes_to_the_newest_run(start):
    play = await start(FIRST)
    await play.hours(2)

    await play.ledger.accept(report("late.xml", b"<c/>"), **BUILD)
    await play.hours(1)

    assert play.outside.registered[-1] == SECOND
    assert (await shown(play))["state"] == "finalized"


async def test_a_report_that_the_spool_does_not_return_is_waited_for(start, tmp_path):
    play = await start(FIRST)
    content = b"<testsuite name='large'/>"
    spool = DiskSpool(tmp_path)
    writer = await spool.create()
    await writer.write(content)
    blob = await writer.commit(label(content))
    await play.ledger.accept(replace(report("large.xml", content), body=None, blob=blob), **BUILD)
    await play.until(play.clock.now() + 5 * MINUTE)
    path = spool._path(blob)
    path.rename(tmp_path / "away")

    await play.hours(3)

    assert SECOND not in play.outside.registered
    assert (await shown(play))["last_error"] is not None
    (tmp_path / "away").rename(path)
    await play.hours(1)
    assert play.outside.registered.count(SECOND) == 3


async def test_ids_that_arrive_after_the_run_was_replaced_are_recorded_and_change_nothing(start):
    play = await start(FIRST)
    await play.hours(2)
    before = await play.ledger.build()
    late = next(each for each in before.registrations.values() if each.state is RegistrationState.LOST)

    assert await play.ledger.late_ids(before, late)
    await play.hours(2)

    build = await play.ledger.build()
    assert (build.registrations[late.id].upload_id, build.registrations[late.id].generation) == ("up-9", 1)
    assert [run.test_run_id for run in build.current_runs] == [SECOND]
    assert (build.state, build.stuck_reason, build.report_seq) == ("finalized", None, build.finalized_seq)
