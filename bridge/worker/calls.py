"""The calls of a visit, each with whoever makes it: what is committed before it, the call, what is committed after it.

It knows neither when a call is due nor what its answer means; domain/ says both.
"""

import asyncio

from bridge.domain import step
from bridge.domain.step import AskCheck, Call, Describe, Finalize, Poll, Put, Register, ReportFailed
from bridge.store.archives.archive import Archive
from bridge.store.spools.blobs import Spool
from bridge.worker.archiving import Archiving
from bridge.worker.checking import Checking
from bridge.worker.delivering import Delivering
from bridge.worker.finalizing import Finalizing
from bridge.worker.mirroring import Beside, Mirroring
from bridge.worker.observer import Observer
from bridge.worker.polling import Polling
from bridge.worker.rate import Rate
from bridge.worker.tails import Tails
from bridge.worker.upstreams import Upstreams
from bridge.worker.visit import Visit


class Calls:
    """Makes the calls of all visits; at most as many to TestNod and its storage at once as there are `places`."""

    def __init__(  # noqa: PLR0913 -- everything it meets, each once
        self,
        upstreams: Upstreams,
        spool: Spool,
        archive: Archive | None,
        observe: Observer,
        *,
        tails: Tails,
        beside: Beside,
        places: asyncio.Semaphore,
        polls_a_second: float,
    ) -> None:
        rate = Rate(polls_a_second)
        self._polling = Polling(upstreams.codearts, rate)
        self._checking = Checking(upstreams.check, rate)
        self._delivering = Delivering(upstreams, spool, observe, tails=tails, places=places)
        self._finalizing = Finalizing(upstreams, observe, places=places)
        self._mirroring = Mirroring(upstreams.codearts, upstreams.reports, spool, observe, beside)
        self._archiving = Archiving(archive, spool, observe)

    async def make(self, call: Call, visit: Visit) -> None:
        """Make one call and write down what came of it."""
        match call:
            case Describe(reserved=reserved):
                await self._polling.describe(visit, reserved=reserved)
            case Poll(reserved=reserved):
                await self._polling.poll(visit, reserved=reserved)
            case Register(delivery_id):
                await self._delivering.register(visit, delivery_id)
            case Put(registration_id):
                await self._delivering.put(visit, visit.build.registrations[registration_id])
            case ReportFailed(registration_id):
                await self._delivering.report_failed(visit, visit.build.registrations[registration_id])
            case Finalize(confirm=confirm):
                await self._finalizing.finalize(visit, confirm=confirm)
            case AskCheck():
                await self._checking.ask(visit, call)
            case step.Mirror() | step.CompareMirror():
                await self._mirroring.begin(visit, call)
            case step.Archive(delivery_id):
                await self._archiving.keep(visit, delivery_id)
