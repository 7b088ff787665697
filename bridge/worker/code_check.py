"""How CodeArts Check is asked about a build: no longer than the run waits.

It knows neither when it is asked nor what its answer means; domain/ says both.
"""

import asyncio
from collections.abc import Awaitable

import structlog

from bridge.client.codearts import CodeArtsCheck
from bridge.domain.build import SECOND
from bridge.domain.code_check.models import CodeCheckRules, CodeCheckState
from bridge.domain.code_check.outcomes import after_check, deferred
from bridge.domain.code_check.when import rules_for
from bridge.domain.lifecycle.context import route_of
from bridge.domain.outcomes import CheckOutcome, CheckReportFetched, NotSent, OutcomeUnknown
from bridge.domain.steps import FetchCheckReport
from bridge.worker.build_status import SharedRateLimit
from bridge.worker.reconcile import BuildReconciler

PLACES = 16  # a quarter of all visits: a Check that hangs leaves the others to reports
BUSY_US = SECOND
TOO_SLOW = OutcomeUnknown(message="CodeArts Check did not answer for as long as the run waited.")
NOBODY = NotSent(message="codearts.check_endpoint is not set.")

log = structlog.get_logger(__name__)


class CodeCheckFetcher:
    """Makes the calls to `check`, None where the settings name none."""

    def __init__(self, check: CodeArtsCheck | None, rate: SharedRateLimit) -> None:
        self._check = check
        self._rate = rate
        self._places = asyncio.Semaphore(PLACES)

    async def ask(self, visit: BuildReconciler, call: FetchCheckReport) -> None:
        """Bring about the answer to one call, and write down what it changes."""
        build, policy = visit.build, visit.desk.policy
        rules, code_check = rules_for(build, route_of(build, policy), policy), build.code_check
        if rules is None or code_check is None:
            return
        outcome = await self._called(visit, rules, code_check, call)
        if outcome is None:
            return
        await visit.record(*after_check(build, code_check, rules, outcome, visit.now(), policy))
        if isinstance(outcome, CheckReportFetched):
            log.info("CodeArts Check answered", **visit.names())

    async def _called(
        self, visit: BuildReconciler, rules: CodeCheckRules, code_check: CodeCheckState, call: FetchCheckReport
    ) -> CheckOutcome | None:
        """Return what a call came to; None where there was no place for it, and when there is one is written down."""
        if self._places.locked():
            await visit.record(*deferred(code_check, visit.now() + BUSY_US, reserved=call.reserved))
            return None
        async with self._places:
            if not call.reserved and (slot_at := await self._rate.next_place(visit)):
                await visit.record(*deferred(code_check, slot_at, reserved=True))
                return None
            if self._check is None:
                return NOBODY
            asking = self._check.refresh(rules, in_background=call.in_background)
            outcome = await _in_time(visit, asking, code_check.until)
            await self._rate.obey(visit, outcome)
            return outcome


async def _in_time(visit: BuildReconciler, call: Awaitable[CheckOutcome], until: int) -> CheckOutcome:
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
