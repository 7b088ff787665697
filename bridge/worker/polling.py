"""How CodeArts is asked about a build: what it is, and whether it has ended, under the common rate.

It knows neither when it is asked nor what an answer means; domain/ says both.
"""

import asyncio

from bridge.client.codearts import CodeArts
from bridge.domain.build import SECOND
from bridge.domain.effects import ending
from bridge.domain.effects.signals import of_codearts
from bridge.domain.outcomes import DescribeOutcome, NotSent
from bridge.worker.rate import Rate
from bridge.worker.visit import Visit

PLACES = 24  # for each question, of the 64 visits: a CodeArts that is slow, and not away, leaves others to reports
BUSY_US = 2 * SECOND
CROWDED = NotSent(message="CodeArts is slow: as many builds as may be are being asked about already.")


class Polling:
    """Makes the calls to `codearts`, None where the settings name none."""

    def __init__(self, codearts: CodeArts | None, rate: Rate) -> None:
        self._codearts = codearts
        self._rate = rate
        self._describing, self._polling = asyncio.Semaphore(PLACES), asyncio.Semaphore(PLACES)

    async def describe(self, visit: Visit, *, reserved: bool) -> None:
        if self._codearts is None:
            return
        if not reserved and (slot_at := await self._rate.next_place(visit)):
            await visit.record(*ending.describe_deferred(slot_at))
            return
        if self._describing.locked():  # counts as a try, so that reports wait no longer than for one that fails
            outcome: DescribeOutcome = CROWDED
        else:
            async with self._describing:
                outcome = await self._codearts.record_info(visit.build.job_id, visit.build.build_no)
            await visit.tell(of_codearts(outcome))
            await self._rate.obey(visit, outcome)
        await visit.record(*ending.after_describe(visit.build, outcome, visit.now(), visit.desk.policy))

    async def poll(self, visit: Visit, *, reserved: bool) -> None:
        if self._codearts is None:
            return
        if not reserved and (slot_at := await self._rate.next_place(visit)):
            await visit.record(*ending.poll_deferred(slot_at))
            return
        if self._polling.locked():
            await visit.record(*ending.poll_deferred(visit.now() + BUSY_US))
            return
        async with self._polling:
            asked_at = visit.now()
            outcome = await self._codearts.build_info(visit.build.job_id, visit.build.build_no)
        await visit.tell(of_codearts(outcome))
        await self._rate.obey(visit, outcome)
        now, away = visit.now(), visit.health().away_us
        await visit.record(*ending.after_poll(visit.build, outcome, now, visit.desk.policy, away, asked_at=asked_at))
