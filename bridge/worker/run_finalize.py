"""How a run is ended at TestNod, and how it is looked after until TestNod has processed it.

It knows neither when that is due nor what the answer means; domain/ says both.
"""

import asyncio

import structlog

from bridge.domain.build import SECOND
from bridge.domain.lifecycle import finalize
from bridge.domain.lifecycle.breaker_signals import of_testnod
from bridge.domain.outcomes import RunStatus
from bridge.errors import LeaseLost
from bridge.worker.clients import UpstreamClients
from bridge.worker.events import DeliveryEvents
from bridge.worker.reconcile import BuildReconciler

log = structlog.get_logger(__name__)


class RunFinalizer:
    """Makes the calls for runs, in the same `places` as those for reports."""

    def __init__(self, upstreams: UpstreamClients, observe: DeliveryEvents, *, places: asyncio.Semaphore) -> None:
        self._upstreams = upstreams
        self._observe = observe
        self._places = places

    async def finalize(self, visit: BuildReconciler, *, confirm: bool) -> None:
        pinned = visit.build.run_parameters
        if pinned is None:
            raise LeaseLost("A build without a pin has nothing to finalize.")
        async with self._places:
            outcome = await self._upstreams.testnod.finalize(self._upstreams.token(pinned.route), pinned.build_id)
        now, policy = visit.now(), visit.desk.policy
        if confirm:
            changes = finalize.after_confirm(visit.build, outcome, now, policy)
        else:
            changes = finalize.after_finalize(visit.build, outcome, now, policy, visit.health().total_outage_us)
        await visit.record(*changes)
        if isinstance(outcome, RunStatus) and not confirm:
            self._observe.finalized((now - (visit.build.ended_at or now)) / SECOND)
            log.info("run finalized", status=outcome.status, build_id=pinned.build_id, **visit.names())
        await visit.tell(of_testnod(outcome, pinned.route))
