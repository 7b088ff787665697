"""How CodeArts Check is asked about a build: what passed by is used, else it is called, no longer than the run waits.

It knows neither when it is asked nor what its answer means; domain/ says both.
"""

import asyncio
from collections.abc import Awaitable

import structlog

from bridge.client.codearts_check import CodeArtsCheck
from bridge.domain.asking_check import rules_for
from bridge.domain.build import SECOND
from bridge.domain.effects.quality import after_check, deferred
from bridge.domain.outcomes import Checked, CheckOutcome, NotSent, Unknown
from bridge.domain.quality import Quality, QualityRules
from bridge.domain.rules.moment import route_of
from bridge.domain.step import AskCheck
from bridge.store.overheard_checks import heard_since
from bridge.worker.rate import Rate
from bridge.worker.visit import Visit

PLACES = 16  # a quarter of all visits: a Check that hangs leaves the others to reports
BUSY_US = SECOND
TOO_SLOW = Unknown(message="CodeArts Check did not answer for as long as the run waited.")
NOBODY = NotSent(message="codearts.check_endpoint is not set.")

log = structlog.get_logger(__name__)


class Checking:
    """Makes the calls to `check`, None where the settings name none."""

    def __init__(self, check: CodeArtsCheck | None, rate: Rate) -> None:
        self._check = check
        self._rate = rate
        self._places = asyncio.Semaphore(PLACES)

    async def ask(self, visit: Visit, call: AskCheck) -> None:
        """Bring about the answer to one call, and write down what it changes."""
        build, policy = visit.build, visit.desk.policy
        rules, quality = rules_for(build, route_of(build, policy), policy), build.quality
        if rules is None or quality is None:
            return
        outcome: CheckOutcome | None = await visit.desk.database.read(heard_since, rules.subject, build.accepted_at)
        if outcome is None:
            outcome = await self._called(visit, rules, quality, call)
        if outcome is None:
            return
        await visit.record(*after_check(build, quality, rules, outcome, visit.now(), policy))
        if isinstance(outcome, Checked):
            log.info("CodeArts Check answered", overheard=outcome.heard_at is not None, **visit.names())

    async def _called(self, visit: Visit, rules: QualityRules, quality: Quality, call: AskCheck) -> CheckOutcome | None:
        """Return what a call came to; None where there was no place for it, and when there is one is written down."""
        if self._places.locked():
            await visit.record(*deferred(quality, visit.now() + BUSY_US, reserved=call.reserved))
            return None
        async with self._places:
            if not call.reserved and (slot_at := await self._rate.next_place(visit)):
                await visit.record(*deferred(quality, slot_at, reserved=True))
                return None
            if self._check is None:
                return NOBODY
            asking = self._check.refresh(rules, in_background=call.in_background)
            outcome = await _in_time(visit, asking, quality.until)
            await self._rate.obey(visit, outcome)
            return outcome


async def _in_time(visit: Visit, call: Awaitable[CheckOutcome], until: int) -> CheckOutcome:
    """Return what `call` comes to, or at `until`, by the ledger's clock, that it took too long."""
    clock = visit.desk.clock
    asking = asyncio.ensure_future(call)
    patience = asyncio.ensure_future(clock.wait(asyncio.Event(), until - (visit.now() - clock.now())))
    try:
        await asyncio.wait((asking, patience), return_when=asyncio.FIRST_COMPLETED)
        return asking.result() if asking.done() else TOO_SLOW
    finally:
        asking.cancel()
        patience.cancel()
        await asyncio.gather(asking, patience, return_exceptions=True)
