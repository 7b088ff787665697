"""Brings faults about and ends them again, and keeps the book of all trouble."""

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from bridge.domain.instants import SECOND
from bridge.errors import BridgeError
from tests.chaos.faults import (
    DatabaseRestart,
    Freeze,
    FullDisk,
    Kill,
    OddAnswers,
    ProjectMissing,
    Reload,
    SpoiltWay,
    StorageAway,
    Terminate,
    WrongAnswers,
    WrongClock,
)
from tests.chaos.keeper import Keeper
from tests.chaos.plan import Mishap
from tests.chaos.stage import Stage
from tests.faults.proxy import Faults
from tests.support.canaries import PROJECT

S3_STARTS = 20

Done = tuple[str, str]
"""Whom it hit, empty where the ends of processes tell that, and what it was."""

Act = Callable[[Any, Mishap], Awaitable[Done]]


class Mischief:
    """All faults of one run; those that overlap in one place end with the last of them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._answers: list[WrongAnswers | OddAnswers] = []
        self._database, self._storage = asyncio.Lock(), asyncio.Lock()  # started again by one at a time
        self.done: Counter[str] = Counter()
        self._acts: Mapping[type[Any], Act] = {
            Kill: self._kill,
            Terminate: self._terminate,
            Freeze: self._freeze,
            Reload: self._reload,
            SpoiltWay: self._spoil,
            WrongAnswers: self._answer,
            OddAnswers: self._answer,
            WrongClock: self._set_clock,
            ProjectMissing: self._hide_project,
            FullDisk: self._fill,
            DatabaseRestart: self._restart_database,
            StorageAway: self._take_storage_away,
        }

    def _keeper(self, mishap: Mishap) -> Keeper:
        return self._stage.keepers[mishap.replica]

    async def commit(self, mishap: Mishap) -> None:
        """Bring one fault about, and return when it is over."""
        began_at = self._stage.now()
        whom, what = await self._acts[type(mishap.fault)](mishap.fault, mishap)
        self.done[what] += 1
        if whom:
            self._stage.troubles.add(whom, what, began_at, self._stage.now())

    # -- the process ---------------------------------------------------------------------------------------------

    async def _kill(self, _: Kill, mishap: Mishap) -> Done:
        gateway = self._keeper(mishap).gateway
        if gateway.running:
            gateway.signal(signal.SIGKILL)
        return "", "killed"

    async def _terminate(self, _: Terminate, mishap: Mishap) -> Done:
        self._keeper(mishap).terminate()
        return "", "terminated"

    async def _reload(self, _: Reload, mishap: Mishap) -> Done:
        gateway = self._keeper(mishap).gateway
        if gateway.running and gateway.server_url:
            gateway.signal(signal.SIGHUP)
        return "", "reloaded"

    async def _freeze(self, _: Freeze, mishap: Mishap) -> Done:
        gateway = self._keeper(mishap).gateway
        if gateway.running:
            gateway.signal(signal.SIGSTOP)
        await asyncio.sleep(mishap.lasts_seconds)
        if gateway.running:  # another one by now, perhaps, which that does no harm
            gateway.signal(signal.SIGCONT)
        return f"gateway {mishap.replica}", "frozen"

    async def _set_clock(self, fault: WrongClock, mishap: Mishap) -> Done:
        keeper, troubles = self._keeper(mishap), self._stage.troubles
        troubles.clock_off_us = max(troubles.clock_off_us, abs(fault.ahead_seconds) * SECOND)
        keeper.gateway.clock.set_ahead(fault.ahead_seconds)
        if fault.restarts:
            keeper.terminate()
        await asyncio.sleep(mishap.lasts_seconds)
        keeper.gateway.clock.set_ahead(0)
        return f"clock {mishap.replica}", fault.what

    # -- upstreams -----------------------------------------------------------------------------------------------

    async def _spoil(self, fault: SpoiltWay, mishap: Mishap) -> Done:
        proxy = self._stage.proxies[fault.upstream]
        proxy.faults = fault.faults
        await proxy.cut_all()
        await asyncio.sleep(mishap.lasts_seconds)
        proxy.faults = Faults()
        await proxy.cut_all()
        return fault.upstream, f"{fault.upstream} {fault.how}"

    async def _answer(self, fault: WrongAnswers | OddAnswers, mishap: Mishap) -> Done:
        self._answers.append(fault)
        self._order_answers()
        await asyncio.sleep(mishap.lasts_seconds)
        self._answers.remove(fault)
        self._order_answers()
        upstream = fault.place.partition(".")[0]
        await self._stage.proxies[upstream].cut_all()  # those that hang would do so for minutes
        return upstream, f"{fault.place} {_said(fault)}"

    def _order_answers(self) -> None:
        faults = self._stage.world.faults
        faults.clear()
        for number, fault in enumerate(self._answers):
            faults.at_random(fault.place, rate=fault.rate, answer=fault.answer, seed=number)

    async def _hide_project(self, _: ProjectMissing, mishap: Mishap) -> Done:
        self._stage.world.runs.close_project(PROJECT)
        await asyncio.sleep(mishap.lasts_seconds)
        self._stage.world.runs.open_project(PROJECT, "canary")
        return "testnod", "project missing"

    # -- what the gateways keep things in --------------------------------------------------------------------------

    async def _fill(self, fault: FullDisk, mishap: Mishap) -> Done:
        for gateway in self._stage.gateways:
            gateway.disk.fail(*fault.operations)
        await asyncio.sleep(mishap.lasts_seconds)
        for gateway in self._stage.gateways:
            gateway.disk.fail()
        return "disk", "disk full"

    async def _restart_database(self, fault: DatabaseRestart, mishap: Mishap) -> Done:
        server = self._stage.postgres
        assert server is not None
        async with self._database:
            await server.stop(fault.how)
            await asyncio.sleep(mishap.lasts_seconds)
            await server.start()
        return "ledger", "PostgreSQL restarted"

    async def _take_storage_away(self, fault: StorageAway, mishap: Mishap) -> Done:
        weed = self._stage.weed
        assert weed is not None
        async with self._storage:
            if fault.hangs:
                weed.pause()
                await asyncio.sleep(mishap.lasts_seconds)
                weed.resume()
                return "spool", "S3 hung"
            await asyncio.to_thread(weed.stop)
            await asyncio.sleep(mishap.lasts_seconds)
            await self._start_storage()
        return "spool", "S3 restarted"

    async def _start_storage(self) -> None:
        """Start it, again if a foreign connection has taken one of its ports meanwhile."""
        weed = self._stage.weed
        assert weed is not None
        for _ in range(S3_STARTS):
            with suppress(BridgeError):
                return await asyncio.to_thread(weed.start)
            await asyncio.sleep(1)
        raise AssertionError("weed does not start again")


def _said(fault: WrongAnswers | OddAnswers) -> str:
    if isinstance(fault, OddAnswers):
        return f"odd: {fault.what}{' after its work' if fault.after else ''}"
    kinds = [name for name in ("status", "hang", "cut", "garbled") if name in fault.answer]
    what = f"{fault.answer['status']}" if kinds == ["status"] else kinds[0]
    return f"{what} after its work" if fault.answer.get("after") else what
