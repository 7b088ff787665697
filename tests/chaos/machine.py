"""How much of a processor the machine leaves to one process: other work on it may make everything late."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from tests.chaos.faults import Troubles

NAME = "machine"
MEASURE_SECONDS, EVERY_SECONDS = 0.05, 0.5
BUSY = 3.0
"""Seconds in which a process gets one second of a processor: what a run itself does costs less than that."""

PROGRAM = f"""
import time
while True:
    time.sleep({EVERY_SECONDS})
    began, used = time.monotonic(), time.process_time()
    while time.process_time() - used < {MEASURE_SECONDS}:
        pass
    print((time.monotonic() - began) / {MEASURE_SECONDS}, flush=True)
"""


@dataclass(slots=True)
class Machine:
    """What a process of its own has measured: the machine is in trouble while it is busy with other work."""

    troubles: Troubles
    fair_seconds: float = 0.0  # that passed; one in which a process got a third of a processor counts a third
    slowest: float = 1.0
    busy_seconds: float = 0.0
    _measured_at: float = 0.0

    def measured(self, slowness: float, now: float) -> None:
        """Take a measurement of now (seconds) in: how much longer some work took than its processor time."""
        lasted = now - self._measured_at if self._measured_at else 0.0
        self._measured_at = now
        self.slowest = max(self.slowest, slowness)
        self.fair_seconds += lasted / max(1.0, slowness)
        if slowness >= BUSY:
            self.busy_seconds += lasted
            self.troubles.add(NAME, "busy", round((now - lasted) * 1_000_000), round(now * 1_000_000))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Measure, until this is left."""
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, stdout=asyncio.subprocess.PIPE)
        reading = asyncio.create_task(self._read(process))
        try:
            yield
        finally:
            process.kill()
            await process.wait()
            with suppress(asyncio.CancelledError):
                reading.cancel()
                await reading

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.measured(float(line), time.time())
