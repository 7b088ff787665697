"""The gateway as a process on bad ground: it dies at a named step, its disk fills up or forgets, its files are limited.

It knows how to start such a process and how to speak to its disk; the faults stand in disk.py and steps.py.
"""

import json
import resource
from pathlib import Path

from tests.faults.clock import ClockControl
from tests.faults.disk import DiskControl
from tests.faults.steps import When
from tests.support.children import children_of
from tests.support.processes import GatewayProcess, Settings


class FaultyGateway(GatewayProcess):
    """`bridge serve` with faults around it: `die_at` before a start, `disk` always, `limit_files` while it runs.

    A bad disk that does not remember what was synced fills up only, and is faster. A bad clock can be set wrong. With a
    shorter longest PUT a URL is spent within the time of a test, and so are the waits of notices with `notice_seconds`.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        bad_disk: bool = False,
        bad_clock: bool = False,
        remembers_syncs: bool = True,
        longest_put_seconds: int | None = None,
        notice_seconds: float | None = None,
    ) -> None:
        super().__init__(folder, settings)
        self._plan_file = folder / "faults.json"
        self._die: tuple[str, When, int] | None = None
        self._armed = folder / "armed"  # there: the death that waits for it may come
        self._started_to_die = False
        self._bad_disk = bad_disk
        self._bad_clock = bad_clock
        self._remembers_syncs = remembers_syncs
        self._longest_put_seconds = longest_put_seconds
        self._notice_seconds = notice_seconds
        self.disk = DiskControl(folder / "disk")
        self.clock = ClockControl(folder / "clock")

    def die_at(self, step: str, when: When = "before", count: int = 1, *, armed: bool = True) -> None:
        """Let the next process be killed before or after the `count`-th time it takes `step` (steps.STEPS).

        One that is not `armed` lives until it is.
        """
        self._die = (step, when, count)
        self._armed.unlink(missing_ok=True)
        if armed:
            self.arm()

    def arm(self) -> None:
        """Let the death before the running process count from now on."""
        self._armed.touch()

    def live(self) -> None:
        """Let the next process live."""
        self._die = None

    @property
    def will_die(self) -> bool:
        """Whether the process that was started last has a death before it."""
        return self._started_to_die

    def limit_files(self, size: int | None) -> None:
        """Let no file of the running process grow beyond `size` bytes (EFBIG, of the kernel); None ends that."""
        soft = resource.RLIM_INFINITY if size is None else size
        for pid in (self.pid, *children_of(self.pid)):  # the ledger's writer is one of them
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    def program(self) -> list[str]:
        self._started_to_die = self._die is not None
        plan = {
            "control": str(self.disk.folder) if self._bad_disk else None,
            "remembers": self._remembers_syncs,
            "clock": str(self.clock.file) if self._bad_clock else None,
            "longest_put_seconds": self._longest_put_seconds,
            "notice_seconds": self._notice_seconds,
            "die": self._die,
            "armed": str(self._armed),
        }
        self._plan_file.write_text(json.dumps(plan), encoding="utf-8")
        return ["tests.faults.wrapped", str(self._plan_file), *super().program()]
