"""The report `codearts-build`, played: added once and delivered before finalize, wherever the worker dies."""

from contextlib import suppress

import pytest

from bridge.domain.instants import SECOND
from bridge.domain.result_mismatch import MismatchKind
from bridge.domain.routing import ResultSuite, Route
from bridge.store.queries import one_build
from tests.support.builders import MINUTE
from tests.support.fake_clock import FakeClock
from tests.support.ledger import Ledger, report
from tests.support.worker_play import JOBS, Play

JOB = next(job for job, route in JOBS.items() if route == "api")
BUILD = f"codearts-{JOB}-1"
SUITE = "codearts-build.xml"
MOST_WRITES = 60  # of one build, by far


class Died(Exception):
    """The worker died at a write."""


class Mortal:
    """A ledger at whose n-th write the worker dies, before or after the commit."""

    def __init__(self, database, count, when):
        self._database, self._left, self._when = database, count, when

    def __getattr__(self, name):
        return getattr(self._database, name)

    @property
    def died(self):
        return self._left <= 0

    async def write(self, function, item):
        self._left -= 1
        if self._left <= 0 and self._when == "before":
            raise Died
        written = await self._database.write(function, item)
        if self._left <= 0:
            raise Died
        return written


def play_of(database, clock, folder, suite=ResultSuite.MISMATCH, **more):
    """Return a play of one route, with CodeArts."""
    routes = (Route(name="api", result_suite=suite),)
    return Play(database, clock, folder, has_codearts=True, routes=routes, **more)


async def reports_of(database):
    build = await database.read(one_build, 1)
    return build, [(each["name"], each["deliveries"][0]["state"]) for each in build["reports"]]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_death_at_any_write_leaves_one_report_that_is_delivered_before_finalize(backend, tmp_path, when):
    for count in range(1, MOST_WRITES):
        clock = FakeClock()
        async with backend.fresh(clock) as database:
            await Ledger(database).accept(report(), job_id=JOB, build_no=1)
            mortal = Mortal(database, count, when)
            play = play_of(mortal, clock, tmp_path)
            play.outside.result = "SUCCESS"
            with suppress(ExceptionGroup, Died):
                await play.until(clock.now() + 10 * MINUTE)
            clock.advance(20 * SECOND)  # beyond the lease of the dead
            await play_of(database, clock, tmp_path, outside=play.outside).until(clock.now() + 10 * MINUTE)
            build, reports = await reports_of(database)
            assert reports == [("junit.xml", "delivered"), (SUITE, "delivered")]
            assert (build["state"], build["result_mismatch"] is None) == ("finalized", False)
            assert play.outside.finalized == {BUILD}
            assert play.outside.stored_at_finalize[-1] >= 2
        if not mortal.died:
            return
    raise AssertionError(f"The play has more than {MOST_WRITES} writes.")


@pytest.mark.parametrize(
    ("suite", "result", "reports"),
    [
        (ResultSuite.OFF, "FAILURE", 1),
        (ResultSuite.MISMATCH, "FAILURE", 1),
        (ResultSuite.MISMATCH, "SUCCESS", 2),
        (ResultSuite.ALWAYS, "FAILURE", 2),
        (ResultSuite.ALWAYS, "SUCCESS", 2),
        (ResultSuite.ALWAYS, None, 1),
    ],
)
async def test_a_red_report_brings_the_suite_if_the_route_wants_it(backend, tmp_path, suite, result, reports):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        play = play_of(database, clock, tmp_path, suite)
        play.outside.result = result
        await play.ledger.accept(report(), job_id=JOB, build_no=1)
        await play.until(clock.now() + 10 * MINUTE)
        build, found = await reports_of(database)
        assert found == [("junit.xml", "delivered"), (SUITE, "delivered")][:reports]
        assert play.outside.stored_at_finalize == [reports]
        kept = (await play.ledger.build()).result_mismatch
        assert kept == (MismatchKind.FAILED_TESTS if result == "SUCCESS" else None)
        assert (build["result_mismatch"] is None) == (kept is None)
