"""How CodeArts is asked about a build: what it is, and whether it has ended, under the common rate.

It knows neither when it is asked nor what an answer means; domain/ says both.
"""

import asyncio

from bridge.client.codearts import CodeArts
from bridge.domain.build import SECOND
from bridge.domain.lifecycle import build_end
from bridge.domain.lifecycle.breaker_signals import of_codearts
from bridge.domain.outcomes import NotSent, RecordOutcome, Throttled
from bridge.domain.retry import delay_us, retry_at
from bridge.store.rate_limit import pause_rate, take_rate_slot
from bridge.worker.reconcile import BuildReconciler

# Huawei's rate limits, kept by all gateways together: a place for each call, and a pause when CodeArts asks for one.
#
# It knows no call and no outcome but the one that says so.


class SharedRateLimit:
    """The common rate of all calls to CodeArts about builds."""

    def __init__(self, calls_a_second: float) -> None:
        self._interval_us = int(1_000_000 / calls_a_second)

    async def next_place(self, visit: BuildReconciler) -> int | None:
        """Take a place; return when it is, None where that is now."""
        slot_at = await visit.desk.database.write(take_rate_slot, self._interval_us)
        return slot_at if slot_at > visit.now() else None

    async def obey(self, visit: BuildReconciler, outcome: object) -> None:
        """Pause for all where the outcome says that CodeArts is throttling."""
        if not isinstance(outcome, Throttled):
            return
        policy = visit.desk.policy
        planned = delay_us(3, first_us=policy.first_delay, max_us=policy.max_delay, salt="slow down")
        pause = retry_at(0, planned, outcome.retry_after_seconds, max_us=policy.max_delay)
        await visit.desk.database.write(pause_rate, pause)


PLACES = 24  # for each question, of the 64 visits: a CodeArts that is slow, and not away, leaves others to reports
BUSY_US = 2 * SECOND
CROWDED = NotSent(message="CodeArts is slow: as many builds as may be are being asked about already.")


class BuildStatusFetcher:
    """Makes the calls to `codearts`, None where the settings name none."""

    def __init__(self, codearts: CodeArts | None, rate: SharedRateLimit) -> None:
        self._codearts = codearts
        self._rate = rate
        self._describing, self._polling = asyncio.Semaphore(PLACES), asyncio.Semaphore(PLACES)

    async def describe(self, visit: BuildReconciler, *, reserved: bool) -> None:
        if self._codearts is None:
            return
        if not reserved and (slot_at := await self._rate.next_place(visit)):
            await visit.record(*build_end.describe_deferred(slot_at))
            return
        if self._describing.locked():  # counts as a try, so that reports wait no longer than for one that fails
            outcome: RecordOutcome = CROWDED
        else:
            async with self._describing:
                outcome = await self._codearts.record_info(visit.build.job_id, visit.build.build_no)
            await visit.tell(of_codearts(outcome))
            await self._rate.obey(visit, outcome)
        await visit.record(*build_end.after_describe(visit.build, outcome, visit.now(), visit.desk.policy))

    async def poll(self, visit: BuildReconciler, *, reserved: bool) -> None:
        if self._codearts is None:
            return
        if not reserved and (slot_at := await self._rate.next_place(visit)):
            await visit.record(*build_end.poll_deferred(slot_at))
            return
        if self._polling.locked():
            await visit.record(*build_end.poll_deferred(visit.now() + BUSY_US))
            return
        async with self._polling:
            requested_at = visit.now()
            outcome = await self._codearts.build_info(visit.build.job_id, visit.build.build_no)
        await visit.tell(of_codearts(outcome))
        await self._rate.obey(visit, outcome)
        now, away = visit.now(), visit.health().total_outage_us
        await visit.record(
            *build_end.after_poll(visit.build, outcome, now, visit.desk.policy, away, requested_at=requested_at)
        )
