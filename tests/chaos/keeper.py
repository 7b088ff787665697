"""Keeps one gateway running, as systemd or Kubernetes would: whenever its process ends, another one is started."""

import asyncio
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.chaos.faults import Death
from tests.faults.gateway import FaultyGateway

RESTART_SECONDS = 0.5  # between an end and the next start
LOOK_SECONDS = 0.05
START_SECONDS = 120.0  # it takes two; the machine may be busy


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """One process that ended: with which code, whether it was asked to, and how far it had come.

    No process took its place before `back_at`. Times are microseconds UTC.
    """

    code: int
    asked: bool
    listened: bool
    ended_at: int
    back_at: int


class Keeper:
    """One gateway and the processes it has had; while it is not `calm` each new one may have a death before it."""

    def __init__(self, gateway: FaultyGateway, deaths: Sequence[Death | None]) -> None:
        self.gateway = gateway
        self.ends: list[End] = []
        self._deaths = iter(deaths)
        self._asked = False
        self._calm = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the first process, and keep one running from then on."""
        await self.gateway.start()
        self._task = asyncio.create_task(self._keep())

    def terminate(self) -> None:
        """Ask the process that runs now to end, if there is one."""
        if self.gateway.running and not self._asked:  # asked twice it would end at once
            self._asked = True
            self.gateway.signal(signal.SIGTERM)

    async def calm(self) -> None:
        """Let no process die by itself any more, and return once one is ready that will not."""
        self._calm = True
        if self.gateway.will_die and self.gateway.running:
            self.terminate()
        async with asyncio.timeout(START_SECONDS):
            while self.gateway.will_die or not await self._is_ready():
                await asyncio.sleep(LOOK_SECONDS)

    async def end(self) -> int:
        """Keep it running no longer; return the exit code of the last process, which is asked to end."""
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        return await self.gateway.terminate()

    async def _is_ready(self) -> bool:
        return self.gateway.running and bool(self.gateway.server_url) and await self.gateway.ready()

    async def _keep(self) -> None:
        while True:
            code = await self.gateway.wait_for_ever()
            ended_at, asked, self._asked = _now(), self._asked, False
            listened = bool(self.gateway.events("gateway_listening"))
            self.gateway.server_url = ""
            await asyncio.sleep(RESTART_SECONDS)
            await self._start_another()
            self.ends.append(End(code=code, asked=asked, listened=listened, ended_at=ended_at, back_at=_now()))

    async def _start_another(self) -> None:
        death = None if self._calm else next(self._deaths, None)
        if death is None:
            self.gateway.live()
        else:
            self.gateway.die_at(death.step, death.when, death.count)
        await self.gateway.spawn()
        while self.gateway.running and not self.gateway.events("gateway_listening"):
            await asyncio.sleep(LOOK_SECONDS)
        if self.gateway.running:
            self.gateway.listens()


def _now() -> int:
    return time.time_ns() // 1000
