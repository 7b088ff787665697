"""The queue of a job: a build waits until an earlier build of the same job has opened its run at TestNod.

TestNod compares a run with those before it, so after an outage the order of the runs matters.
"""

from typing import Final

from bridge.domain.build import Build, DeliveryTarget
from bridge.domain.circuit_breaker import TESTNOD, register_breaker, route_breaker
from bridge.domain.steps import Wait

QUEUE_PREFIX = "queue:"

HOLDS_REPORTS: Final = (TESTNOD, route_breaker(""), register_breaker(""), QUEUE_PREFIX)
"""What a build is `waiting_on` begins with one of these if none of its reports can be sent: TestNod's breakers, or an
earlier build. New reports then make it due no sooner, because what it waits for makes old and new ones due together."""


def queue_of(job_id: str) -> str:
    """Return what a build in the queue of its job is `waiting_on`."""
    return f"{QUEUE_PREFIX}{job_id}"


def is_queue(waiting_on: str | None) -> bool:
    """Return whether a build waits in the queue of its job."""
    return waiting_on is not None and waiting_on.startswith(QUEUE_PREFIX)


def reports_wait(waiting_on: str | None) -> bool:
    """Return whether new reports of a build wait with the others."""
    return waiting_on is not None and waiting_on.startswith(HOLDS_REPORTS)


def wakes_next_build(build: Build, end: Wait) -> bool:
    """Return whether the next build in the queue may open its run when a reconciliation of `build` ends with `end`.

    It may not while `build` is in the queue itself. It may if no report of `build` is pending, if one has failed, or if
    `build` is blocked or waits on something else: one faulty build delays only itself.
    """
    if is_queue(end.waiting_on):
        return False
    pending = build.sendable(DeliveryTarget.TESTNOD)
    waits = end.waiting_on is not None or end.blocked_reason is not None
    return not pending or waits or any(delivery.attempts for delivery in pending)
