from dataclasses import replace

import pytest

from bridge.domain.instants import HOUR, MINUTE, SECOND, Instant
from bridge.domain.request_rate import (
    HOLD,
    MARGIN,
    MAX_PAUSE,
    MAX_QUEUE,
    MIN_PER_MINUTE,
    NEAR,
    RECOVERY_CALLS,
    REFUSED_FOR,
    Api,
    RequestRate,
    admit,
    api_of,
    corrected,
    count_answered,
    describe_rate,
    refuse,
    take_slots,
    throttle,
)
from tests.support.builders import NOW

CONFIGURED = 50.0
LATENCY = SECOND // 5
MILLISECOND = SECOND // 1000


class Window:
    """A limit of calls in each minute of the clock, as API gateways have it."""

    def __init__(self, limit):
        self.limit, self.taken = limit, {}

    def takes(self, at):
        self.taken[at // MINUTE] = self.taken.get(at // MINUTE, 0) + 1
        return self.taken[at // MINUTE] <= self.limit


class Bucket:
    """A limit that refills evenly and takes a burst of `limit`."""

    def __init__(self, limit):
        self.limit, self.tokens, self.at = limit, float(limit), None

    def takes(self, at):
        passed = 0 if self.at is None else at - self.at
        self.tokens, self.at = min(self.limit, self.tokens + passed * self.limit / MINUTE), at
        taken = self.tokens >= 1
        self.tokens -= taken
        return taken


def drive(limit, minutes, *, configured=CONFIGURED, start=NOW, rate=None, retry_after=None):
    """Make as many calls as the rate permits; return the rate, the answered times and the throttled ones."""
    rate = rate or RequestRate(per_minute=configured)
    answered, throttled = [], []
    now = start
    while now < start + minutes * MINUTE:
        rate, (slot,) = take_slots(rate, now, 1)
        now = slot + LATENCY
        if limit.takes(slot):
            answered.append(slot)
            rate = count_answered(rate, now, 1, configured, sent_at=slot)
        else:
            throttled.append(slot)
            rate = throttle(rate, now, sent_at=slot, retry_after_seconds=retry_after)
    return rate, answered, throttled


@pytest.mark.parametrize("kind", [Window, Bucket])
@pytest.mark.parametrize("per_minute", [5, 10, 30, 50, 120])
@pytest.mark.parametrize("configured", [50.0, 600.0])
def test_the_limit_is_found_within_a_minute_and_hardly_ever_exceeded_after_it(kind, per_minute, configured):
    _, answered, throttled = drive(kind(per_minute), 60, configured=configured)
    late = [at for at in throttled if at >= NOW + 2 * MINUTE]
    late_calls = len(late) + len([at for at in answered if at >= NOW + 2 * MINUTE])
    assert len(late) <= 0.02 * late_calls + 1
    assert len(answered) >= 0.75 * 58 * min(per_minute, configured)


class Sliding:
    """A limit of calls within each span of time."""

    def __init__(self, limit, span=MINUTE):
        self.limit, self.span, self.taken = limit, span, []

    def takes(self, at):
        self.taken = [each for each in self.taken if each > at - self.span]
        is_taken = len(self.taken) < self.limit
        self.taken += [at] if is_taken else []
        return is_taken


@pytest.mark.parametrize(
    ("kind", "limit", "per_minute"),
    [
        (Window, [1], 1),
        (Window, [2], 2),
        (Bucket, [1], 1),
        (Bucket, [2], 2),
        (Sliding, [1], 1),
        (Sliding, [2], 2),
        (Sliding, [1, 2 * MINUTE], 0.5),
    ],
)
@pytest.mark.parametrize("configured", [50.0, 600.0])
def test_a_limit_below_three_calls_a_minute_is_found_too(kind, limit, per_minute, configured):
    _, answered, throttled = drive(kind(*limit), 360, configured=configured)
    assert len(answered) >= 0.5 * 360 * per_minute
    late = [at for at in throttled if at >= NOW + HOUR]
    assert len(late) <= 0.3 * len([at for at in answered if at >= NOW + HOUR])


def test_a_low_limit_that_is_gone_is_noticed_within_an_hour():
    rate, _, _ = drive(Window(1), 60)
    assert rate.accepted < 2
    rate, _, _ = drive(Window(1000), 70, rate=rate, start=NOW + HOUR)
    assert rate.per_minute == CONFIGURED


def test_if_codearts_takes_no_call_one_is_made_in_some_minutes():
    rate, answered, throttled = drive(Window(0), 120)
    assert (answered, rate.per_minute) == ([], MIN_PER_MINUTE)
    assert len(throttled) < 120


@pytest.mark.parametrize("per_minute", [10, 50, 120])
def test_a_limit_of_a_sliding_minute_is_found_with_one_throttled_call(per_minute):
    _, _, throttled = drive(Sliding(per_minute), 5, configured=600.0)
    assert len(throttled) == 1


@pytest.mark.parametrize("seconds", [70, 91, 115, 300])
def test_so_it_is_after_some_calls_and_a_pause(seconds):
    rate = RequestRate(per_minute=CONFIGURED, window_at=NOW, answered=4)
    rate, _, throttled = drive(Sliding(10), 5, rate=rate, start=Instant(NOW + seconds * SECOND))
    assert len(throttled) == 1
    assert rate.accepted == 10


def test_a_limit_that_was_raised_is_found_again():
    rate, _, _ = drive(Window(10), 30)
    rate, answered, _ = drive(Window(1000), 120, rate=rate, start=NOW + 30 * MINUTE)
    assert rate.per_minute == CONFIGURED
    assert len([at for at in answered if at > NOW + 140 * MINUTE]) > 0.9 * CONFIGURED * 9


def test_calls_are_never_made_in_a_burst():
    rate = RequestRate(per_minute=60)
    rate, first = take_slots(rate, NOW, 3)
    assert first == [NOW, NOW + SECOND, NOW + 2 * SECOND]
    _, later = take_slots(rate, Instant(NOW + HOUR), 3)
    assert later == [NOW + HOUR, NOW + HOUR + SECOND, NOW + HOUR + 2 * SECOND]


def test_calls_in_flight_halve_the_rate_once():
    rate = RequestRate(per_minute=CONFIGURED, answered=40, window_at=NOW)
    once = throttle(rate, Instant(NOW + SECOND), sent_at=NOW, retry_after_seconds=None)
    twice = throttle(once, Instant(NOW + SECOND), sent_at=NOW, retry_after_seconds=None)
    assert twice.per_minute == once.per_minute <= CONFIGURED / 2
    later = throttle(twice, Instant(NOW + MINUTE), sent_at=Instant(NOW + 30 * SECOND), retry_after_seconds=None)
    assert later.per_minute == max(MIN_PER_MINUTE, once.per_minute / 2)


@pytest.mark.parametrize(("seconds", "pause"), [(20, 20 * SECOND), (1e9, MAX_PAUSE)])
def test_retry_after_is_waited_for_up_to_a_limit(seconds, pause):
    rate = throttle(RequestRate(per_minute=600), NOW, sent_at=NOW, retry_after_seconds=seconds)
    _, (slot,) = take_slots(rate, NOW, 1)
    assert slot == max(NOW + pause, NOW + rate.interval)


def test_it_recovers_to_just_below_what_was_accepted_and_holds_that():
    rate = RequestRate(per_minute=CONFIGURED, answered=40, window_at=NOW)
    rate = throttle(rate, NOW, sent_at=NOW, retry_after_seconds=None)
    for number in range(2 * RECOVERY_CALLS):
        sent_at = Instant(NOW + SECOND + number)
        rate = count_answered(rate, sent_at, 1, CONFIGURED, sent_at=sent_at)
    assert rate.per_minute == pytest.approx(MARGIN * 40)
    assert rate.probe_at >= NOW + HOLD


@pytest.mark.parametrize("answered", range(3))
def test_a_throttled_call_after_hardly_any_shows_no_limit(answered):
    rate = RequestRate(per_minute=CONFIGURED, answered=answered, window_at=NOW)
    once = throttle(rate, NOW, sent_at=NOW, retry_after_seconds=None)
    assert (once.per_minute, once.accepted, once.next_at) == (CONFIGURED / 2, None, NOW + once.interval)
    again = throttle(once, once.next_at, sent_at=once.next_at, retry_after_seconds=None)
    assert (again.per_minute, again.accepted) == (CONFIGURED / 4, None)
    assert describe_rate(Api.CODE_CHECK, again, NOW).startswith("CodeArts throttled code-check after few calls.")
    for number in range(RECOVERY_CALLS):
        now = Instant(again.next_at + number * MINUTE)
        again = count_answered(again, now, 1, CONFIGURED, sent_at=now)
    assert (again.per_minute, again.recovers_from) == (CONFIGURED, None)


def test_a_throttled_call_after_hardly_any_leaves_the_known_limit():
    rate = RequestRate(per_minute=27, accepted=30, answered=2, window_at=NOW)
    assert throttle(rate, NOW, sent_at=NOW, retry_after_seconds=None).accepted == 30


def test_an_answer_to_a_call_from_before_the_throttling_recovers_nothing():
    rate = throttle(RequestRate(per_minute=CONFIGURED), NOW, sent_at=NOW, retry_after_seconds=None)
    after = count_answered(rate, Instant(NOW + SECOND), 1, CONFIGURED, sent_at=Instant(NOW - 1))
    assert after.per_minute == rate.per_minute


def test_a_rate_that_is_not_used_is_not_raised():
    rate = RequestRate(per_minute=10, accepted=11, probe_at=NOW)
    after = count_answered(rate, NOW, 1, CONFIGURED)
    assert after.per_minute == rate.per_minute


def test_calls_that_wait_get_turns_one_after_another_and_no_slot():
    rate, turn = admit(RequestRate(per_minute=60), NOW)
    assert turn is None
    turns = []
    for _ in range(100):
        rate, turn = admit(rate, NOW)
        turns.append(turn)
    assert turns[:3] == [NOW + SECOND, NOW + 2 * SECOND, NOW + 3 * SECOND]
    assert max(turns) <= NOW + SECOND + MAX_QUEUE
    assert admit(rate, Instant(NOW + SECOND))[1] is None


def test_calls_whose_slots_are_near_are_admitted_together_and_none_before_the_end_of_a_pause():
    rate, turns = RequestRate(per_minute=60_000), []
    for _ in range(60):
        rate, turn = admit(rate, NOW)
        turns.append(turn)
    assert turns.index(None) == 0
    assert turns.count(None) == NEAR // MILLISECOND + 1
    assert rate.next_at == NOW + NEAR + MILLISECOND  # each has a slot of its own, so the rate is kept

    paused = throttle(RequestRate(per_minute=60_000), NOW, sent_at=NOW, retry_after_seconds=1)
    assert admit(paused, Instant(NOW + SECOND - 1))[1] is not None


def test_what_only_a_wrong_clock_can_have_written_is_corrected():
    ahead = Instant(NOW + 24 * HOUR)
    rate = RequestRate(
        per_minute=600, next_at=ahead, queued_until=ahead, halved_at=ahead, probe_at=ahead, refused_until=ahead
    )
    right = corrected(rate, NOW, CONFIGURED)
    assert (right.per_minute, right.next_at, right.queued_until, right.halved_at) == (CONFIGURED, NOW, NOW, None)
    assert right.probe_at <= NOW + HOUR
    assert right.refused_until == NOW + REFUSED_FOR


def test_a_slot_some_minutes_ahead_is_kept_only_in_the_pause_after_a_throttled_call():
    ahead = Instant(NOW + 9 * MINUTE)
    rate = RequestRate(per_minute=CONFIGURED, next_at=ahead, queued_until=ahead)
    assert (corrected(rate, NOW, CONFIGURED).next_at, corrected(rate, NOW, CONFIGURED).queued_until) == (NOW, NOW)
    by_wrong_clock = replace(rate, throttled_at=Instant(NOW + 8 * MINUTE))
    assert corrected(by_wrong_clock, NOW, CONFIGURED).next_at == NOW
    paused = replace(rate, throttled_at=NOW)
    assert corrected(paused, NOW, CONFIGURED).next_at == ahead
    slow = RequestRate(per_minute=0.25, next_at=Instant(NOW + 4 * MINUTE))
    assert corrected(slow, NOW, CONFIGURED).next_at == slow.next_at


def test_the_sentence_states_what_codearts_takes():
    rate = RequestRate(per_minute=CONFIGURED)
    assert describe_rate(Api.BUILD_INFO, rate, NOW) == (
        "CodeArts has not throttled build-info lately. The bridge makes at most 50 calls a minute."
    )
    limited = replace(rate, accepted=12.3)
    assert describe_rate(Api.BUILD_INFO, limited, NOW) == "CodeArts takes about 12 calls a minute for build-info."
    one = replace(rate, accepted=1.2)
    assert describe_rate(Api.BUILD_INFO, one, NOW) == "CodeArts takes about 1 call a minute for build-info."
    rare = replace(rate, accepted=0.25)
    assert describe_rate(Api.BUILD_INFO, rare, NOW) == "CodeArts takes about 1 call in 4 minutes for build-info."
    assert describe_rate(Api.RECORD_LIST, refuse(rate, NOW), NOW).startswith("CodeArts does not answer record-list")


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/job/j/1/build-info", Api.BUILD_INFO),
        ("/v4/jobs/j/1/record-info", Api.RECORD_INFO),
        ("/v1/record/j/1/record-info", Api.RECORD_INFO),
        ("/v1/record/j/list", Api.RECORD_LIST),
        ("/v1/job/p/list", Api.JOB_LIST),
        ("/v1/jobs/j/result/refresh", Api.CODE_CHECK),
        ("/v1/report/junit/report/upload", None),
        ("/v1/job/j/1/build-info/more", None),
    ],
)
def test_a_path_belongs_to_the_api_that_is_limited(path, api):
    assert api_of(path) is api
