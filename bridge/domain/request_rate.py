"""The rate at which one account calls one API of CodeArts: found by probing, because the limits are not published.

The rate starts at `polling.requests_per_minute`, which it never exceeds. Each throttled call halves it, once per round
trip. It recovers additively to just below the rate that was accepted before, holds it, and only then probes above it.
If hardly any calls were made before the throttled one, they show no limit: the rate recovers to what it was.
Calls are spaced evenly, and a slot that passes unused is lost: so there is no burst at a start or after an outage.

The values are those of table `request_rates`, so that all gateways of a ledger keep one rate.
"""

import re
from dataclasses import replace
from enum import StrEnum

from bridge.domain.instants import EPOCH, HOUR, MINUTE, SECOND, ZERO, Duration, Instant, after, between
from bridge.domain.text_format import counted
from bridge.values import dataclass


class Api(StrEnum):
    """A call that CodeArts limits by itself."""

    BUILD_INFO = "build_info"
    RECORD_INFO = "record_info"
    RECORD_DETAILS = "record_details"
    RECORD_LIST = "record_list"  # the builds of a job
    JOB_LIST = "job_list"  # the jobs of a project
    CODE_CHECK = "code_check"


_PATHS = {
    Api.BUILD_INFO: re.compile(r"/v1/job/[^/]+/[^/]+/build-info"),
    Api.RECORD_INFO: re.compile(r"/v1/record/[^/]+/[^/]+/record-info|/v4/jobs/[^/]+/[^/]+/record-info"),
    Api.RECORD_DETAILS: re.compile(r"/v1/record/[^/]+/info"),
    Api.RECORD_LIST: re.compile(r"/v1/record/[^/]+/list"),
    Api.JOB_LIST: re.compile(r"/v1/job/[^/]+/list"),
    Api.CODE_CHECK: re.compile(r"/v1/jobs/[^/]+/result/refresh"),
}


def api_of(path: str) -> Api | None:
    """Return the API that a path of CodeArts belongs to; None if the bridge does not call it itself."""
    return next((api for api, pattern in _PATHS.items() if pattern.fullmatch(path)), None)


MIN_PER_MINUTE = 0.2
"""However often CodeArts throttles, it is called once in five minutes, to notice that it takes more again."""

MARGIN = 0.9
"""The share of the accepted rate that is used while no higher one is probed."""

RECOVERY_CALLS = 5
"""Answered calls in which the rate recovers from a halving to MARGIN of what was accepted before."""

MIN_SHOWN = 3
"""Fewer answered calls in a minute show no limit: others use up the account's, or the bridge had little to ask. Only if
the recovery is throttled again is the limit taken for a lower one. All that are known are of 10 calls or more."""

LOW_STEP = 1.0
"""Calls a minute that each answered call adds to such a low limit once it is probed: it may be gone."""

HOLD = Duration(10 * MINUTE)
HOLD_CALLS = 120
MAX_HOLD = Duration(HOUR)
"""The rate is not raised above what was accepted for HOLD, and for as long as HOLD_CALLS calls take. Each probe that
finds about the same limit again doubles this, up to MAX_HOLD: probes cost throttled calls."""

PROBE_STEP = 0.005
"""The share of the accepted rate that each answered call of a probe adds."""

PROBED_ABOVE = 1.15
"""A probe that goes this far above the accepted rate has shown that the limit is not there any more."""

FREE_STEPS = 50
"""Without a known limit, this many answered calls raise the rate from nothing to the highest permitted."""

MAX_PAUSE = Duration(10 * MINUTE)
"""A Retry-After counts up to this."""

MAX_AHEAD = Duration(2 * MINUTE)
"""No slot is further away than this, or than two calls are apart, except in the pause after a throttled call. If one
is, a wrong clock assigned it."""

NEAR = Duration(50_000)
"""A call may be made so long before its slot, unless one was just throttled: asking again would take a commit."""

REFUSED_FOR = Duration(HOUR)
"""After so long, a call is tried again that the account was not permitted to make."""

MAX_QUEUE = MINUTE
"""Calls beyond a queue of this length come back after that time: what they are for may have passed by then."""

IN_USE = 0.7
"""Only a rate of which this share is used is raised: an unused one shows nothing of the limit."""


@dataclass(frozen=True, kw_only=True)
class RequestRate:
    """The calls per minute that one account makes to one API, and what is known of the limit."""

    per_minute: float
    next_at: Instant = EPOCH  # the next free slot
    queued_until: Instant = EPOCH  # the last turn that a call in the queue got
    accepted: float | None = None  # calls per minute that CodeArts took when it last began to throttle
    throttled_at: Instant | None = None  # the last throttled answer
    halved_at: Instant | None = None  # calls that were sent before do not halve the rate again
    recovers_from: float | None = None  # the rate after the last halving, until it has recovered
    probe_at: Instant = EPOCH  # the rate is not raised above `accepted` before
    probes: int = 0  # that found about the same limit, one after another
    window_at: Instant = EPOCH  # the answered calls of the minute that began then, and of the one before it
    answered: int = 0
    answered_before: int = 0
    refused_until: Instant | None = None  # the account may not make this call, as far as is known

    @property
    def interval(self) -> Duration:
        """Return the time between two calls."""
        return Duration(int(MINUTE / self.per_minute))

    def answered_per_minute(self, now: Instant) -> float:
        """Return how many calls were answered in the last minute, estimated from two windows."""
        windows = _windows(self, now)
        share = 1 - between(windows.window_at, now) / MINUTE
        return windows.answered + windows.answered_before * min(1.0, max(0.0, share))


def corrected(rate: RequestRate, now: Instant, highest: float) -> RequestRate:
    """Return the rate within the configured one, and without times that only a wrong clock can have written."""
    latest = latest_slot(rate, now)
    return replace(
        rate,
        per_minute=min(rate.per_minute, highest),
        next_at=rate.next_at if rate.next_at <= latest else now,
        queued_until=rate.queued_until if rate.queued_until <= after(latest, MAX_QUEUE) else now,
        halved_at=None if rate.halved_at is None or rate.halved_at > now else rate.halved_at,
        probe_at=min(rate.probe_at, after(now, MAX_HOLD)),
        refused_until=None if rate.refused_until is None else min(rate.refused_until, after(now, REFUSED_FOR)),
    )


def latest_slot(rate: RequestRate, now: Instant) -> Instant:
    """Return the time after which no slot can be that was assigned by a correct clock."""
    latest = after(now, max(MAX_AHEAD, Duration(2 * rate.interval)))
    paused = rate.throttled_at is not None and rate.throttled_at <= now
    return max(latest, after(rate.throttled_at or now, MAX_PAUSE)) if paused else latest


def take_slots(rate: RequestRate, now: Instant, count: int) -> tuple[RequestRate, list[Instant]]:
    """Return the rate after `count` slots were taken, and their times."""
    next_at = max(rate.next_at, now)
    slots = [after(next_at, Duration(number * rate.interval)) for number in range(count)]
    return replace(rate, next_at=after(next_at, Duration(count * rate.interval))), slots


def admit(rate: RequestRate, now: Instant) -> tuple[RequestRate, Instant | None]:
    """Return the rate, and None if a call may be made now, else when it is its turn to be admitted.

    A turn is no slot: the call asks again then, because the rate may have changed.
    """
    if rate.next_at <= after(now, NEAR if rate.recovers_from is None else ZERO):
        return take_slots(rate, now, 1)[0], None
    turn = max(rate.next_at, after(rate.queued_until, rate.interval))
    if turn > after(rate.next_at, MAX_QUEUE):
        return rate, after(rate.next_at, MAX_QUEUE)
    return replace(rate, queued_until=turn), turn


def count_answered(
    rate: RequestRate, now: Instant, count: int, highest: float, *, sent_at: Instant | None = None
) -> RequestRate:
    """Return the rate after `count` calls, the last of them sent at `sent_at`, were answered without throttling."""
    rate = _windows(rate, now)
    rate = replace(rate, answered=rate.answered + count)
    if rate.halved_at is not None and (sent_at or now) < rate.halved_at:
        return rate
    for _ in range(count):
        rate = _recover(rate, now, highest)
    return rate


def _recover(rate: RequestRate, now: Instant, highest: float) -> RequestRate:
    if rate.recovers_from is not None:
        known = highest if rate.accepted is None else MARGIN * rate.accepted
        target = min(highest, max(MIN_PER_MINUTE, known))
        step = max(target - rate.recovers_from, 0) / RECOVERY_CALLS
        raised = min(target, rate.per_minute + step)
        recovered = raised >= target or step == 0
        return replace(rate, per_minute=raised, recovers_from=None if recovered else rate.recovers_from)
    if rate.accepted is None:
        return _raised(rate, highest / FREE_STEPS, now, highest)
    if now < rate.probe_at:
        return rate
    is_low = rate.accepted < MIN_SHOWN
    probed = _raised(rate, LOW_STEP if is_low else PROBE_STEP * rate.accepted, now, highest)
    is_shown = not is_low or rate.answered_per_minute(now) >= MIN_SHOWN
    if is_shown and probed.per_minute > PROBED_ABOVE * rate.accepted:
        return replace(probed, accepted=None, probes=0)
    return probed


def _raised(rate: RequestRate, step: float, now: Instant, highest: float) -> RequestRate:
    if rate.answered_per_minute(now) < IN_USE * rate.per_minute:
        return rate
    return replace(rate, per_minute=min(highest, rate.per_minute + step))


def throttle(rate: RequestRate, now: Instant, *, sent_at: Instant, retry_after_seconds: float | None) -> RequestRate:
    """Return the rate after a call that was sent at `sent_at` was throttled."""
    pause = Duration(min(int((retry_after_seconds or 0) * SECOND), MAX_PAUSE))
    paused = replace(rate, throttled_at=now, next_at=max(rate.next_at, after(now, pause)))
    if rate.halved_at is not None and sent_at < rate.halved_at:
        return paused
    if rate.recovers_from is None or rate.accepted is None:
        paused = _learn_limit(paused, now)
    elif rate.per_minute > rate.recovers_from:  # calls were answered at a lower rate, and not at this one
        paused = replace(paused, accepted=min(rate.accepted, rate.per_minute))
    if paused.accepted != rate.accepted and _is_burst(paused):  # more are throttled until these are a minute old
        paused = replace(paused, next_at=max(paused.next_at, after(paused.window_at, MINUTE)))
    # The limit is often one of a minute: what it takes in a minute bounds the rate at which its end is awaited.
    halved = max(MIN_PER_MINUTE, min(rate.per_minute, paused.accepted or rate.per_minute) / 2)
    paused = replace(paused, per_minute=halved, recovers_from=halved, halved_at=now)
    next_at = max(paused.next_at, after(now, paused.interval))
    return replace(paused, next_at=next_at, queued_until=next_at)


def _learn_limit(rate: RequestRate, now: Instant) -> RequestRate:
    """Return the rate with what CodeArts took in the last minute as its limit, if that was enough to show one."""
    rate = _windows(rate, now)
    answered = rate.answered if _is_burst(rate) else rate.answered_per_minute(now)
    if answered >= min(MIN_SHOWN, IN_USE * rate.per_minute):
        taken = min(rate.per_minute, answered)
    elif rate.accepted is not None:
        is_low = rate.accepted < MIN_SHOWN  # the calls are too few to show by how much it is lower
        taken = min(rate.accepted, rate.per_minute) if is_low else rate.accepted
    elif rate.recovers_from is not None and rate.per_minute > rate.recovers_from:
        taken = rate.recovers_from / MARGIN  # at that rate calls were answered again
    else:
        return rate
    taken = max(MIN_PER_MINUTE, taken)
    same = rate.accepted is not None and rate.probe_at <= now and taken >= MARGIN * rate.accepted
    probes = rate.probes + 1 if same else 0
    hold = HOLD if taken < MIN_SHOWN else max(HOLD, Duration(int(HOLD_CALLS * MINUTE / taken)))
    return replace(
        rate,
        accepted=taken,
        probes=probes,
        probe_at=after(now, Duration(min(hold << min(probes, 8), max(MAX_HOLD, hold)))),
    )


def _is_burst(rate: RequestRate) -> bool:
    """Return whether nearly all calls of the last minute were made since `window_at`."""
    return rate.answered >= 2 * rate.answered_before


def _windows(rate: RequestRate, now: Instant) -> RequestRate:
    """Return the rate with its windows of a minute; if a minute is over, a new window begins at `now`."""
    passed = between(rate.window_at, now)
    if ZERO <= passed < MINUTE:
        return rate
    before = round(rate.answered * (2 - passed / MINUTE)) if MINUTE <= passed < 2 * MINUTE else 0
    return replace(rate, window_at=now, answered_before=before, answered=0)


def refuse(rate: RequestRate, now: Instant) -> RequestRate:
    """Return the rate of a call that the account is not permitted to make."""
    return replace(rate, refused_until=after(now, REFUSED_FOR))


def describe_rate(api: Api, rate: RequestRate, now: Instant) -> str:
    """Return the state of the rate as a sentence for operators."""
    name = api.replace("_", "-")
    if rate.refused_until is not None and now < rate.refused_until:
        return f"CodeArts does not answer {name} to the bridge. Others of its calls are used in its place."
    limit = rate.per_minute if rate.accepted is None else rate.accepted
    minutes = round(1 / limit)
    calls = f"1 call in {minutes} minutes" if minutes > 1 else f"{counted(max(1, round(limit)), 'call')} a minute"
    if rate.accepted is None and rate.recovers_from is not None:
        return f"CodeArts throttled {name} after few calls. The bridge makes at most {calls} until more are answered."
    if rate.accepted is None:
        return f"CodeArts has not throttled {name} lately. The bridge makes at most {calls}."
    return f"CodeArts takes about {calls} for {name}."
