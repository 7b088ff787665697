"""Log lines that any client can cause: the first of each address are written, the others are counted.

Use `log_refusal` for refused requests of clients that are not verified, and only for those.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

WINDOW_SECONDS: Final = 60.0

MAX_LINES: Final = 10
"""Of one event and one address in a window; then one line with the number of the others."""

MAX_ADDRESSES: Final = 100
"""Counted one by one in a window, so about 1,100 lines; further addresses are counted together, as OTHERS."""

OTHERS: Final = "others"

_log = structlog.get_logger(__name__)


class RepeatedLines:
    """Counts lines by event and address. Windows are those of the running event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # of the window that has begun
        self._lines: Counter[tuple[str, str]] = Counter()

    def may_write(self, event: str, address: str) -> bool:
        """Count a line; return whether it is to be written."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._lines.clear()
            loop.call_later(WINDOW_SECONDS, self._end_window, loop)
        key = (event, address)
        if key not in self._lines and len(self._lines) >= MAX_ADDRESSES:
            key = (event, OTHERS)
        self._lines[key] += 1
        return self._lines[key] <= MAX_LINES

    def _end_window(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        self._loop = None
        for (event, address), lines in self._lines.items():
            if lines > MAX_LINES:
                _log.warning("lines_omitted", omitted=event, address=address, lines=lines - MAX_LINES)


_repeated = RepeatedLines()


def log_refusal(write: Callable[..., object], event: str, *, address: str | None, **fields: object) -> None:
    """Write a line with `write`, the method of a logger, unless `address` caused MAX_LINES of this event already."""
    if _repeated.may_write(event, address or ""):
        write(event, address=address, **fields)
