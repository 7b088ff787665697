"""Fetch a build's record and state from CodeArts, within the rates that all gateways share."""

import asyncio

from bridge.client.codearts import CodeArts
from bridge.domain.circuit_breaker import CODEARTS
from bridge.domain.instants import SECOND, Duration, after
from bridge.domain.lifecycle import build_end
from bridge.domain.lifecycle.breaker_signals import of_codearts
from bridge.domain.outcomes import CredentialsRejected, NotSent, RecordOutcome
from bridge.domain.request_rate import Api
from bridge.worker.reconcile import BuildReconciler
from bridge.worker.request_rates import RequestRates

MAX_CALLS = 24  # of each kind, of 64 reconcilers: if CodeArts is slow, the others still deliver reports
BUSY_US = Duration(2 * SECOND)
BUSY = NotSent(message="CodeArts is slow: as many builds as permitted are being requested already.")


class BuildStatusFetcher:
    """Makes the calls to `codearts`, which is None if it is not configured."""

    def __init__(self, codearts: CodeArts | None, rates: RequestRates) -> None:
        self._codearts = codearts
        self._rates = rates
        self._record_calls, self._poll_calls = asyncio.Semaphore(MAX_CALLS), asyncio.Semaphore(MAX_CALLS)

    async def fetch_record(self, reconciler: BuildReconciler) -> None:
        """Fetch record-info (branch, commit, repository)."""
        if self._codearts is None:
            return
        if (turn_at := await self._rates.admit(Api.RECORD_INFO)) is not None:
            await reconciler.write_changes(*build_end.defer_record(turn_at))
            return
        build = reconciler.build
        if self._record_calls.locked():  # counts as an attempt, so that reports wait no longer than for one that fails
            outcome: RecordOutcome = BUSY
        else:
            async with self._record_calls:
                sent_at = reconciler.now()
                outcome = await self._codearts.record_info(build.job_id, build.build_no)
            await self._rates.record(Api.RECORD_INFO, outcome, sent_at)
            await reconciler.report_upstream_health(of_codearts(outcome))
            if isinstance(outcome, CredentialsRejected) and reconciler.is_left_to_others(CODEARTS):
                return  # nothing was learned about the build, so it is not delayed
        changes = build_end.after_record(reconciler.build, outcome, reconciler.now(), reconciler.config.policy)
        await reconciler.write_changes(*changes)

    async def poll(self, reconciler: BuildReconciler, *, reserved: bool) -> None:
        """Fetch build-info (whether the build still runs), if it is the turn of the build."""
        if self._codearts is None:
            return
        poller, build = reconciler.config.poller, reconciler.build
        if poller is not None and not reserved and CODEARTS not in reconciler.breakers.probing:
            poller.wake(build.job_id)
            if build_end.can_wait(build):
                await reconciler.write_changes(*build_end.leave_to_poller(reconciler.now()))
                return
        if (turn_at := await self._rates.admit(Api.BUILD_INFO)) is not None:
            await reconciler.write_changes(*build_end.defer_poll(turn_at))
            return
        if self._poll_calls.locked():
            await reconciler.write_changes(*build_end.defer_poll(after(reconciler.now(), BUSY_US)))
            return
        async with self._poll_calls:
            requested_at = reconciler.now()
            outcome = await self._codearts.build_info(build.job_id, build.build_no)
        await self._rates.record(Api.BUILD_INFO, outcome, requested_at)
        await reconciler.report_upstream_health(of_codearts(outcome))
        if isinstance(outcome, CredentialsRejected) and reconciler.is_left_to_others(CODEARTS):
            return  # as above
        policy, now, outage_us = reconciler.config.policy, reconciler.now(), reconciler.health().total_outage_us
        changes = build_end.after_poll(reconciler.build, outcome, now, policy, outage_us, requested_at=requested_at)
        await reconciler.write_changes(*changes)
