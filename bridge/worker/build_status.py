"""Fetch a build's record and state from CodeArts, within the request rate that all gateways share."""

import asyncio

from bridge.client.codearts import CodeArts
from bridge.domain.build import Build
from bridge.domain.circuit_breaker import CODEARTS
from bridge.domain.instants import EPOCH, HOUR, SECOND, Duration, Instant, after
from bridge.domain.lifecycle import build_end, build_record
from bridge.domain.lifecycle.breaker_signals import of_codearts
from bridge.domain.lifecycle.build_record import RecordQuestion
from bridge.domain.outcomes import CredentialsRejected, NotSent, Throttled
from bridge.domain.retry import delay_us, delay_with_retry_after
from bridge.store.rate_limit import pause_rate, take_rate_slot
from bridge.worker.reconcile import BuildReconciler

MAX_CALLS = 24  # of each kind, of 64 reconcilers: if CodeArts is slow, the others still deliver reports
BUSY_US = Duration(2 * SECOND)
REFUSAL_US = HOUR
"""For how long the details of records are not asked for after CodeArts refused them; rights may be granted later."""
BUSY = NotSent(message="CodeArts is slow: as many builds as permitted are being requested already.")


class SharedRateLimit:
    """The request rate of all calls to CodeArts about builds, kept in the ledger for all gateways."""

    def __init__(self, requests_per_minute: float) -> None:
        self._interval_us = int(60 * SECOND / requests_per_minute)

    async def take_rate_slot(self, reconciler: BuildReconciler) -> Instant | None:
        """Take the next slot; return its time if that is in the future, else None."""
        slot_at = await reconciler.config.database.write(take_rate_slot, self._interval_us)
        return Instant(slot_at) if slot_at > reconciler.now() else None

    async def pause_if_throttled(self, reconciler: BuildReconciler, outcome: object) -> None:
        """Delay the slots of all gateways if the outcome is that CodeArts throttles."""
        if not isinstance(outcome, Throttled):
            return
        policy = reconciler.config.policy
        planned = delay_us(3, first_us=policy.retry_initial_delay, max_us=policy.retry_max_delay, salt="slow down")
        pause = delay_with_retry_after(planned, outcome.retry_after_seconds, max_us=policy.retry_max_delay)
        await reconciler.config.database.write(pause_rate, pause)


class BuildStatusFetcher:
    """Makes the calls to `codearts`, which is None if it is not configured."""

    def __init__(self, codearts: CodeArts | None, rate_limit: SharedRateLimit) -> None:
        self._codearts = codearts
        self._rate_limit = rate_limit
        self._details_refused_until = EPOCH
        self._record_calls, self._poll_calls = asyncio.Semaphore(MAX_CALLS), asyncio.Semaphore(MAX_CALLS)

    async def fetch_record(self, reconciler: BuildReconciler, *, reserved: bool) -> None:
        """Fetch record-info (branch, commit, repository), or what it lacked if it was fetched before."""
        if self._codearts is None:
            return
        if not reserved and (slot_at := await self._rate_limit.take_rate_slot(reconciler)):
            reconciler.defer_changes(*build_end.defer_record(slot_at))
            return
        build, is_refused = reconciler.build, reconciler.now() < self._details_refused_until
        question = build_record.next_question(build, details_refused=is_refused)
        if self._record_calls.locked():  # counts as an attempt, so that reports wait no longer than for one that fails
            outcome: build_record.RecordAnswer = BUSY
        else:
            async with self._record_calls:
                outcome = await self._ask_record(self._codearts, build, question, reconciler.now())
            await reconciler.report_upstream_health(of_codearts(outcome))
            if isinstance(outcome, CredentialsRejected) and reconciler.is_left_to_others(CODEARTS):
                return  # nothing was learned about the build, so it is not delayed
            await self._rate_limit.pause_if_throttled(reconciler, outcome)
        now, policy = reconciler.now(), reconciler.config.policy
        changes = build_record.after_record(reconciler.build, outcome, now, policy, question=question)
        reconciler.defer_changes(*changes)

    async def _ask_record(
        self, codearts: CodeArts, build: Build, question: RecordQuestion, now: Instant
    ) -> build_record.RecordAnswer:
        match question:
            case RecordQuestion.DETAILS if build.record and build.record.build_record_id:
                outcome = await codearts.record_details(build.record.build_record_id)
                if build_record.is_refused(outcome):
                    self._details_refused_until = after(now, REFUSAL_US)
                return outcome
            case RecordQuestion.LIST:
                return await codearts.record_list(build.job_id, build.accepted_at, now)
        return await codearts.record_info(build.job_id, build.build_no)

    async def poll(self, reconciler: BuildReconciler, *, reserved: bool) -> None:
        """Fetch build-info (whether the build still runs)."""
        if self._codearts is None:
            return
        if not reserved and (slot_at := await self._rate_limit.take_rate_slot(reconciler)):
            reconciler.defer_changes(*build_end.defer_poll(slot_at))
            return
        if self._poll_calls.locked():
            reconciler.defer_changes(*build_end.defer_poll(after(reconciler.now(), BUSY_US)))
            return
        async with self._poll_calls:
            requested_at = reconciler.now()
            outcome = await self._codearts.build_info(reconciler.build.job_id, reconciler.build.build_no)
        await reconciler.report_upstream_health(of_codearts(outcome))
        if isinstance(outcome, CredentialsRejected) and reconciler.is_left_to_others(CODEARTS):
            return  # as above
        await self._rate_limit.pause_if_throttled(reconciler, outcome)
        policy, now, outage_us = reconciler.config.policy, reconciler.now(), reconciler.health().total_outage_us
        changes = build_end.after_poll(reconciler.build, outcome, now, policy, outage_us, requested_at=requested_at)
        reconciler.defer_changes(*changes)
