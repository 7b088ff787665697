"""Finalize runs at TestNod, and confirm that TestNod has processed them."""

import asyncio

import structlog

from bridge.domain.build import SECOND
from bridge.domain.lifecycle import finalize
from bridge.domain.lifecycle.breaker_signals import of_testnod
from bridge.domain.outcomes import RunStatus
from bridge.errors import LeaseLost
from bridge.telemetry.metrics import Metrics
from bridge.worker.reconcile import BuildReconciler, UpstreamClients

log = structlog.get_logger(__name__)


class RunFinalizer:
    """Makes the calls for runs; `slots` are shared with the calls for reports."""

    def __init__(self, clients: UpstreamClients, metrics: Metrics, *, slots: asyncio.Semaphore) -> None:
        self._clients = clients
        self._metrics = metrics
        self._slots = slots

    async def finalize(self, reconciler: BuildReconciler, *, confirm: bool) -> None:
        """Call finalize; with `confirm`, call it again to see whether the run is still pending."""
        run = reconciler.build.run_parameters
        if run is None:
            raise LeaseLost("A build without run parameters has no run to finalize.")
        async with self._slots:
            outcome = await self._clients.testnod.finalize(self._clients.token(run.route), run.build_id)
        build, now, policy = reconciler.build, reconciler.now(), reconciler.config.policy
        if confirm:
            changes = finalize.after_confirm(build, outcome, now, policy)
        else:
            changes = finalize.after_finalize(build, outcome, now, policy, reconciler.health().total_outage_us)
        await reconciler.write_changes(*changes)
        if isinstance(outcome, RunStatus) and not confirm:
            self._metrics.observe_finalize_lag((now - (reconciler.build.ended_at or now)) / SECOND)
            log.info("run_finalized", status=outcome.status, build_id=run.build_id, **reconciler.log_fields())
        await reconciler.report_upstream_health(of_testnod(outcome, run.route))
