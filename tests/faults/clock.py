"""The clock of a whole process, set wrong by the test and right again while the process runs, as NTP would.

`install` replaces what Python reads the time with; `ClockControl` is the test's side of it.
"""

import time
from contextlib import suppress
from pathlib import Path

READ_NS = 20_000_000  # between two looks at the control file: the time is read thousands of times a second


class ClockControl:
    """The test's hand on the clock of a gateway that runs, or will."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def set_ahead(self, seconds: float) -> None:
        """Set the clock so far ahead of the right time; a negative number sets it behind, 0 sets it right."""
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(repr(seconds), encoding="ascii")
        temporary.replace(self.file)


def install(file: Path) -> None:
    """Let the time of this process be wrong by what `file` contains; steady clocks are as before."""
    right_ns, steady_ns = time.time_ns, time.monotonic_ns
    ahead_ns = read_at = 0

    def now_ns() -> int:
        nonlocal ahead_ns, read_at
        if not read_at or steady_ns() - read_at > READ_NS:
            read_at = steady_ns()
            with suppress(FileNotFoundError):
                ahead_ns = round(float(file.read_text(encoding="ascii")) * 1e9)
        return right_ns() + ahead_ns

    time.time_ns = now_ns
    time.time = lambda: now_ns() / 1e9
