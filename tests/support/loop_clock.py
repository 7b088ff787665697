"""The clock of an event loop, which a test advances: time limits end without a wait.

Set limits that a busy machine does not exceed, and call `advance` if they are to be exceeded.
"""

import asyncio
from collections.abc import Callable

LOOK_SECONDS = 0.001  # of real time, between two steps of `pass_until`


class LoopClock:
    """The time of the running loop: it goes on as usual, and by what the test adds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._time, self._ahead = self._loop.time, 0.0
        self._loop.time = lambda: self._time() + self._ahead  # type: ignore[method-assign]

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once: timers that are due by then run at the loop's next turn."""
        self._ahead += seconds

    async def pass_until(self, condition: Callable[[], bool], step_seconds: float) -> None:
        """Let time pass in steps until `condition` holds; between them, connections are served."""
        while not condition():
            self.advance(step_seconds)
            await asyncio.sleep(LOOK_SECONDS)
