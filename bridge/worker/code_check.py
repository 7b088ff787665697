"""Fetch the CodeArts Check report of a build, for no longer than the run waits for it."""

import asyncio
from collections.abc import Awaitable

import structlog

from bridge.client.codearts import CodeArtsCheck
from bridge.domain.code_check.models import CodeCheckRules, CodeCheckState
from bridge.domain.code_check.outcomes import after_check, defer_fetch
from bridge.domain.code_check.when import rules_for
from bridge.domain.instants import SECOND, after
from bridge.domain.lifecycle.context import route_of
from bridge.domain.outcomes import CheckOutcome, CheckReportFetched, NotSent, OutcomeUnknown
from bridge.domain.request_rate import Api
from bridge.domain.steps import FetchCheckReport
from bridge.worker.reconcile import BuildReconciler
from bridge.worker.request_rates import RequestRates

MAX_CALLS = 16  # a quarter of all reconcilers: if Check hangs, the others still deliver reports
BUSY_US = SECOND
TOO_SLOW = OutcomeUnknown(message="CodeArts Check did not answer for as long as the run waited.")
NOT_CONFIGURED = NotSent(message="codearts.check_endpoint is not set.")

log = structlog.get_logger(__name__)


class CodeCheckFetcher:
    """Makes the calls to `check`, which is None if it is not configured."""

    def __init__(self, check: CodeArtsCheck | None, rates: RequestRates) -> None:
        self._check = check
        self._rates = rates
        self._calls = asyncio.Semaphore(MAX_CALLS)

    async def fetch(self, reconciler: BuildReconciler, call: FetchCheckReport) -> None:
        """Fetch the report and record what it changes."""
        build, policy = reconciler.build, reconciler.config.policy
        rules, code_check = rules_for(build, route_of(build, policy), policy), build.code_check
        if rules is None or code_check is None:
            return
        outcome = await self._call(reconciler, rules, code_check, call)
        if outcome is None:
            return
        await reconciler.write_changes(*after_check(build, code_check, rules, outcome, reconciler.now(), policy))
        if isinstance(outcome, CheckReportFetched):
            log.info("check_report_fetched", **reconciler.log_fields())

    async def _call(
        self, reconciler: BuildReconciler, rules: CodeCheckRules, code_check: CodeCheckState, call: FetchCheckReport
    ) -> CheckOutcome | None:
        """Return the outcome; None if no call is possible now, in which case the next attempt is recorded."""
        if self._calls.locked():
            await reconciler.write_changes(
                *defer_fetch(code_check, after(reconciler.now(), BUSY_US), reserved=call.reserved)
            )
            return None
        async with self._calls:
            if self._check is None:
                return NOT_CONFIGURED
            if (turn_at := await self._rates.admit(Api.CODE_CHECK)) is not None:
                await reconciler.write_changes(*defer_fetch(code_check, turn_at, reserved=True))
                return None
            sent_at = reconciler.now()
            refresh = self._check.refresh(rules, in_background=call.in_background)
            outcome = await _within(reconciler, refresh, code_check.until)
            await self._rates.record(Api.CODE_CHECK, outcome, sent_at)
            return outcome


async def _within(reconciler: BuildReconciler, call: Awaitable[CheckOutcome], until: int) -> CheckOutcome:
    """Return the outcome of `call`, or TOO_SLOW at `until` by the ledger's clock."""
    clock = reconciler.config.clock
    request = asyncio.ensure_future(call)
    deadline = asyncio.ensure_future(clock.sleep_until(until - (reconciler.now() - clock.now())))
    try:
        await asyncio.wait((request, deadline), return_when=asyncio.FIRST_COMPLETED)
        return request.result() if request.done() else TOO_SLOW
    finally:
        request.cancel()
        deadline.cancel()
        await asyncio.gather(request, deadline, return_exceptions=True)
