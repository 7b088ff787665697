"""Huawei's rate limits, kept by all gateways together: a place for each call, and a pause when CodeArts asks for one.

It knows no call and no outcome but the one that says so.
"""

from bridge.domain.backoff import delay_us, retry_at
from bridge.domain.outcomes import SlowDown
from bridge.store.upstreams import slow_down, take_slot
from bridge.worker.visit import Visit


class Rate:
    """The common rate of all calls to CodeArts about builds."""

    def __init__(self, calls_a_second: float) -> None:
        self._interval_us = int(1_000_000 / calls_a_second)

    async def next_place(self, visit: Visit) -> int | None:
        """Take a place; return when it is, None where that is now."""
        slot_at = await visit.desk.database.write(take_slot, self._interval_us)
        return slot_at if slot_at > visit.now() else None

    async def obey(self, visit: Visit, outcome: object) -> None:
        """Pause for all where the outcome says that CodeArts is throttling."""
        if not isinstance(outcome, SlowDown):
            return
        policy = visit.desk.policy
        planned = delay_us(3, first_us=policy.first_delay, max_us=policy.max_delay, salt="slow down")
        pause = retry_at(0, planned, outcome.retry_after_seconds, max_us=policy.max_delay)
        await visit.desk.database.write(slow_down, pause)
