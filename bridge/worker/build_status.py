"""Fetch a build's record and state from CodeArts, within the rates that all gateways share."""

from bridge.client.codearts import CodeArts
from bridge.domain.build import Build
from bridge.domain.circuit_breaker import CODEARTS
from bridge.domain.instants import EPOCH, HOUR, SECOND, Duration, Instant, after
from bridge.domain.lifecycle import build_end, build_record
from bridge.domain.lifecycle.breaker_signals import of_codearts
from bridge.domain.lifecycle.build_record import RecordQuestion
from bridge.domain.outcomes import CredentialsRejected, NotSent
from bridge.domain.request_rate import Api
from bridge.worker.call_slots import CallSlots
from bridge.worker.reconcile import BuildReconciler
from bridge.worker.request_rates import RequestRates

MAX_CALLS = 24  # of each kind, of 64 reconcilers: if CodeArts is slow, the others still deliver reports
BUSY_US = Duration(2 * SECOND)
REFUSAL_US = HOUR
"""For how long the details of records are not asked for after CodeArts refused them; rights may be granted later."""
BUSY = NotSent(message="CodeArts is slow: as many builds as permitted are being requested already.")


class BuildStatusFetcher:
    """Makes the calls to `codearts`, which is None if it is not configured."""

    def __init__(self, codearts: CodeArts | None, rates: RequestRates) -> None:
        self._codearts = codearts
        self._rates = rates
        self._details_refused_until = EPOCH
        self._record_calls, self._poll_calls = CallSlots(MAX_CALLS), CallSlots(MAX_CALLS)

    async def fetch_record(self, reconciler: BuildReconciler) -> None:
        """Fetch record-info (branch, commit, repository), or what it lacked if it was fetched before."""
        if self._codearts is None:
            return
        is_refused = reconciler.now() < self._details_refused_until
        build = reconciler.build
        question = build_record.next_question(build, details_refused=is_refused)
        api = Api(question.value)
        if (turn_at := await self._rates.admit(api)) is not None:
            reconciler.defer_changes(*build_end.defer_record(turn_at))
            return
        # Without a slot it counts as an attempt, so that reports wait no longer than for one that fails.
        outcome: build_record.RecordAnswer = BUSY
        async with self._record_calls.slot() as has_slot:
            sent_at = reconciler.now()
            if has_slot:
                outcome = await self._ask_record(self._codearts, build, question, sent_at)
        if has_slot:
            await self._rates.record(api, outcome, sent_at)
            await reconciler.report_upstream_health(of_codearts(outcome))
            if isinstance(outcome, CredentialsRejected) and reconciler.is_left_to_others(CODEARTS):
                return  # nothing was learned about the build, so it is not delayed
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
        return await codearts.record_info(build.job_id, build.number)

    async def poll(self, reconciler: BuildReconciler, *, reserved: bool) -> None:
        """Fetch build-info (whether the build still runs), if it is the turn of the build."""
        if self._codearts is None:
            return
        poller, build = reconciler.config.poller, reconciler.build
        left_to_poller = not reserved and not self._rates.are_plentiful
        if poller is not None and left_to_poller and CODEARTS not in reconciler.breakers.probing:
            poller.wake(build.job_id)
            if build_end.can_wait(build):
                reconciler.defer_changes(*build_end.leave_to_poller(reconciler.now()))
                return
        if (turn_at := await self._rates.admit(Api.BUILD_INFO)) is not None:
            reconciler.defer_changes(*build_end.defer_poll(turn_at))
            return
        async with self._poll_calls.slot() as has_slot:
            if not has_slot:
                reconciler.defer_changes(*build_end.defer_poll(after(reconciler.now(), BUSY_US)))
                return
            requested_at = reconciler.now()
            outcome = await self._codearts.build_info(build.job_id, build.number)
        await self._rates.record(Api.BUILD_INFO, outcome, requested_at)
        await reconciler.report_upstream_health(of_codearts(outcome))
        if isinstance(outcome, CredentialsRejected) and reconciler.is_left_to_others(CODEARTS):
            return  # as above
        policy, now, outage_us = reconciler.config.policy, reconciler.now(), reconciler.health().total_outage_us
        changes = build_end.after_poll(reconciler.build, outcome, now, policy, outage_us, requested_at=requested_at)
        reconciler.defer_changes(*changes)
