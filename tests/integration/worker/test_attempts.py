"""What people see of the calls for a build: its attempts, through the real worker and ledger."""

from itertools import repeat

import pytest

from bridge.domain.attempts import KEPT_ATTEMPTS
from bridge.domain.instants import SECOND
from bridge.domain.outcomes import NotSent, OutcomeUnknown, PutRejected, Rejected
from bridge.store.queries import one_build
from tests.support.builders import HOUR, MINUTE
from tests.support.fake_clock import FakeClock
from tests.support.ledger import report
from tests.support.worker_play import CALL_US, JOBS, Play

BUILD = {"job_id": next(iter(JOBS)), "build_no": 1}
BUILD_ID = f"codearts-{BUILD['job_id']}-1"


@pytest.fixture
async def play(backend, tmp_path):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        yield Play(database, clock, tmp_path, retry_max_delay=MINUTE)


async def shown(play):
    """Return the attempts of the only delivery, and those of finalize, as the API shows them."""
    view = await play.config.database.read(one_build, 1)
    (delivery,) = view["reports"][0]["deliveries"]
    return delivery["recent_attempts"], view["testnod"]["recent_finalizes"]


def in_short(attempts):
    return [(attempt["call"], attempt["outcome"], attempt["status"]) for attempt in attempts]


async def test_a_build_without_trouble_shows_one_attempt_of_each_call(play):
    await play.ledger.accept(report(), complete=True, **BUILD)
    await play.until(play.clock.now() + HOUR)
    calls, finalizes = await shown(play)
    assert in_short(calls) == [("register", "succeeded", 201), ("put", "succeeded", 200)]
    assert in_short(finalizes) == [("finalize", "succeeded", 200)]
    assert [attempt["duration_seconds"] for attempt in (*calls, *finalizes)] == [CALL_US / SECOND] * 3
    assert finalizes[0]["reason"] == "the run is processed"


async def test_attempts_that_failed_are_shown_with_status_and_reason_in_their_order(play):
    play.outside.odd["register", BUILD_ID] = iter([NotSent(message="refused"), Rejected(status=422, message="odd")])
    play.outside.odd["put", BUILD_ID] = iter(
        [OutcomeUnknown(message="HTTP 500", status=500), PutRejected(status=503, code="SlowDown", message="wait")]
    )
    await play.ledger.accept(report(), complete=True, **BUILD)
    await play.until(play.clock.now() + HOUR)
    calls, _ = await shown(play)
    assert in_short(calls) == [
        ("register", "not_sent", None),
        ("register", "rejected", 422),
        ("register", "succeeded", 201),
        ("put", "unknown", 500),
        ("put", "rejected", 503),
        ("put", "succeeded", 200),
    ]
    assert calls == sorted(calls, key=lambda attempt: attempt["at"])
    assert "SlowDown wait" in calls[4]["reason"]
    assert {attempt["duration_seconds"] for attempt in calls} == {CALL_US / SECOND}


async def test_only_the_newest_attempts_are_kept(play):
    play.outside.odd["register", BUILD_ID] = repeat(Rejected(status=422, message="always"))
    await play.ledger.accept(report(), complete=True, **BUILD)
    await play.until(play.clock.now() + 25 * MINUTE)
    calls, _ = await shown(play)
    assert len(calls) == KEPT_ATTEMPTS
    assert calls == sorted(calls, key=lambda attempt: attempt["at"])
    before = calls[-1]["at"]
    await play.until(play.clock.now() + 5 * MINUTE)
    assert (await shown(play))[0][-1]["at"] > before
    stored = await play.config.database.read(
        lambda connection: connection.exec_driver_sql("SELECT count(*) FROM attempts").scalar()
    )
    assert stored <= 2 * KEPT_ATTEMPTS


async def test_finalize_shows_what_failed_before_it_succeeded(play):
    play.outside.meanwhile.append(lambda: _away(play))
    await play.ledger.accept(report(), complete=True, **BUILD)
    await play.until(play.clock.now() + 2 * SECOND)
    await play.until(play.clock.now() + 5 * MINUTE)
    play.outside.away.clear()
    await play.until(play.clock.now() + 20 * MINUTE)
    _, finalizes = await shown(play)
    assert in_short(finalizes)[0] == ("finalize", "unknown", 503)
    assert in_short(finalizes)[-1] == ("finalize", "succeeded", 200)


async def _away(play):
    play.outside.away.add("testnod")
