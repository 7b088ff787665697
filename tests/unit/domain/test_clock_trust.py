"""What speaks for and against a clock, and how the ledger's times are corrected: as tables."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.clock_trust import PROVEN_US, STEP_US, ClockState, ClockTrust, LedgerTimes, trusting
from bridge.domain.instants import SECOND

MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 24 * 3600 * SECOND
NOW = 20_000 * DAY
RIGHT = LedgerTimes(latest=NOW - HOUR, newest=NOW - HOUR, began=NOW - HOUR)
AHEAD_OF_US = LedgerTimes(latest=NOW + 8 * HOUR, newest=NOW + 8 * HOUR, began=NOW + 8 * HOUR)
LONG_AGO = LedgerTimes(latest=NOW - 40 * DAY, newest=NOW - 40 * DAY, began=NOW - 40 * DAY)
OUT_OF_ORDER = LedgerTimes(latest=NOW - HOUR, newest=NOW - 3652 * DAY, began=NOW - 3653 * DAY)
TRUSTED, UNPROVEN, SUSPECT = ClockState.TRUSTED, ClockState.UNPROVEN, ClockState.SUSPECT


def at(trust, *, after=0, set_by=0):
    """Return what is known after a look `after` the start, the clock having been set meanwhile, and the step."""
    return trust.after_reading(NOW + after + set_by, after)


def with_date(trust, *, off=0, upstream="testnod", after=0):
    return trust.with_date(upstream, NOW + after + off, after)


@pytest.mark.parametrize(
    ("times", "dates", "ran", "state", "reason"),
    [
        (None, {}, 0, UNPROVEN, "No upstream has confirmed"),
        (RIGHT, {}, 0, UNPROVEN, "No upstream has confirmed"),
        (RIGHT, {}, PROVEN_US - 1, UNPROVEN, "No upstream has confirmed"),
        (RIGHT, {}, PROVEN_US, TRUSTED, None),
        (LONG_AGO, {}, PROVEN_US - 1, SUSPECT, "was 40 days old at the start"),
        (LONG_AGO, {}, PROVEN_US, TRUSTED, None),
        (AHEAD_OF_US, {}, 0, SUSPECT, "times that are 8 hours ahead"),
        (OUT_OF_ORDER, {}, 0, SUSPECT, "the clock was behind"),
        (RIGHT, {"testnod": 0}, 0, TRUSTED, None),
        (RIGHT, {"testnod": -29 * MINUTE}, 0, TRUSTED, None),
        (LONG_AGO, {"testnod": MINUTE}, 0, TRUSTED, None),
        (RIGHT, {"testnod": HOUR}, 0, SUSPECT, "1 hour behind that of testnod"),
        (RIGHT, {"testnod": -40 * DAY}, 0, SUSPECT, "40 days ahead of that of testnod"),
        (RIGHT, {"testnod": -40 * DAY}, 100 * DAY, SUSPECT, "40 days ahead"),
        (RIGHT, {"testnod": -40 * DAY, "storage": 0}, 0, TRUSTED, None),
        (RIGHT, {"testnod": -40 * DAY, "codearts": HOUR}, 0, SUSPECT, "1 hour behind that of codearts"),
    ],
)
def test_what_is_known_decides_how_far_the_clock_is_trusted(times, dates, ran, state, reason):
    trust = ClockTrust.started(NOW, 0, times)
    for upstream, off in dates.items():
        trust = with_date(trust, off=off, upstream=upstream)
    verdict = trust.verdict(ran)
    assert verdict.state is state
    assert verdict.doubted is (state is not TRUSTED)
    assert verdict.wants_date is (state is SUSPECT and not dates)
    assert reason is None if verdict.reason is None else reason in verdict.reason


@pytest.mark.parametrize("by", [STEP_US + 1, -STEP_US - 1, HOUR, -40 * DAY])
def test_a_step_takes_trust_away_until_the_clock_is_back_or_has_run_long_enough(by):
    trust, _ = at(ClockTrust.started(NOW, 0, RIGHT), after=PROVEN_US)
    trust, step = at(trust, after=PROVEN_US + MINUTE, set_by=by)
    assert step is not None
    assert step.by_us == by
    assert not step.was_behind
    assert trust.verdict(PROVEN_US + MINUTE).state is SUSPECT
    assert trust.verdict(2 * PROVEN_US + MINUTE).state is TRUSTED

    trust, back = at(trust, after=PROVEN_US + 2 * MINUTE)
    assert back is not None
    assert back.by_us == -by
    verdict = trust.verdict(PROVEN_US + 2 * MINUTE)
    assert verdict.state is TRUSTED
    assert not verdict.settled
    assert trust.verdict(PROVEN_US + 2 * HOUR).settled


def test_small_steps_add_up_unless_they_are_hours_apart():
    trust = ClockTrust.started(NOW, 0)
    for hours in range(1, 100):
        trust, step = at(trust, after=hours * HOUR, set_by=hours * STEP_US // 2)
        assert step is None
    trust, step = at(ClockTrust.started(NOW, 0), after=MINUTE, set_by=STEP_US)
    assert step is None
    trust, step = at(trust, after=2 * MINUTE, set_by=2 * STEP_US)
    assert step is not None
    assert step.by_us == 2 * STEP_US


@pytest.mark.parametrize(
    ("times", "dates", "by", "was_behind"),
    [
        (AHEAD_OF_US, {}, 8 * HOUR, True),
        (RIGHT, {"testnod": 8 * HOUR}, 8 * HOUR, True),
        (RIGHT, {"testnod": 8 * HOUR}, -8 * HOUR, False),
        (RIGHT, {"testnod": 0}, 8 * HOUR, False),
        (RIGHT, {}, 8 * HOUR, False),
    ],
)
def test_it_is_known_whether_the_clock_was_behind_before_a_step(times, dates, by, was_behind):
    trust = ClockTrust.started(NOW, 0, times)
    for upstream, off in dates.items():
        trust = with_date(trust, off=off, upstream=upstream)
    _, step = at(trust, after=MINUTE, set_by=by)
    assert step.was_behind is was_behind
    assert step.began <= NOW < NOW + MINUTE <= step.before


@pytest.mark.parametrize(
    ("times", "by"),
    [
        (None, None),
        (RIGHT, None),
        (AHEAD_OF_US, -8 * HOUR),
        (OUT_OF_ORDER, 3652 * DAY),
        (LONG_AGO, 40 * DAY),
    ],
)
def test_what_other_gateways_left_is_corrected_once_and_only_when_the_clock_is_trusted(times, by):
    trust = ClockTrust.started(NOW, 0, times)
    assert trust.correction(0) is None
    trust = with_date(trust)
    step = trust.correction(0)
    assert (step and step.by_us) == by
    assert trust.after_correction().correction(0) is None


def test_what_was_a_pause_by_a_wrong_clock_is_none_by_the_right_one():
    trust = ClockTrust.started(NOW + 40 * DAY, 0, RIGHT)
    trust = trust.with_date("testnod", NOW, 0)
    trust, _ = trust.after_reading(NOW + MINUTE, MINUTE)
    assert trust.verdict(MINUTE).state is TRUSTED
    assert trust.correction(MINUTE) is None


@given(st.lists(st.tuples(st.integers(0, 2 * HOUR), st.integers(-2 * HOUR, 2 * HOUR)), max_size=30))
def test_steps_account_for_all_that_a_clock_was_set_by_but_for_its_drift(looks):
    trust, steady, ahead, told = ClockTrust.started(NOW, 0), 0, 0, 0
    anchors = 0
    for passed, by in looks:
        steady, ahead = steady + passed, ahead + by
        before = trust.offset
        trust, step = trust.after_reading(NOW + steady + ahead, steady)
        told += step.by_us if step else 0
        anchors += step is None and trust.offset != before
    assert abs(ahead - told) <= (anchors + 1) * STEP_US


def test_without_evidence_the_clock_is_trusted():
    assert not trusting().doubted


@pytest.mark.parametrize(
    ("corrected_at", "read_at", "outdated"),
    [(None, NOW - DAY, False), (NOW, NOW - 1, True), (NOW, NOW, False), (NOW - DAY, NOW + 8 * HOUR, True)],
)
def test_what_was_read_before_a_correction_is_outdated(corrected_at, read_at, outdated):
    trust = with_date(ClockTrust.started(NOW, 0))
    verdict = replace(trust.verdict(0), corrected_at=corrected_at)
    assert verdict.outdates(read_at, NOW) is outdated
