"""Whether there is room on disk for what uploads bring: `store.min_free` stays free, for deliveries to go on with.

It knows neither uploads nor what lies on the disks. The ledger writes on below the floor; only uploads stop at it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.errors import Unavailable

FRESH_US = SECOND
"""A look is good for a second: whoever asks more often costs nothing, and nobody waits longer for the truth."""

RETRY_SECONDS = 60
"""Space does not come back within seconds: until then callers are better off waiting."""

MIB = 1 << 20


class Space:
    """The free bytes of `places` (folders by the name that people know), of which each keeps `min_free`."""

    def __init__(self, places: Mapping[str, Path], *, min_free: int, clock: Clock) -> None:
        self._places = dict(places)
        self._min_free = min_free
        self._clock = clock
        self._free: dict[str, int] = {}  # at the last look; a place that cannot be asked is absent
        self._looked_at: int | None = None
        self._taken = 0  # since then

    def take(self, size: int) -> None:
        """Count `size` bytes that are about to be kept; raise Unavailable where any place is short of them.

        0 asks whether an upload may begin. What is taken counts against each place: some of it goes to both.
        """
        self._look()
        self._taken += size
        if short := self._short():
            unread = any(place not in self._free for place in short)
            fault = "cannot read its free disk space" if unread else "is short of disk space"
            raise Unavailable(
                f"The bridge {fault}, so nothing of this upload was kept. Send it again in a while.",
                retry_after_seconds=RETRY_SECONDS,
            )

    def shortages(self) -> list[str]:
        """Say of each place that is short what to do about it; paths stay untold."""
        self._look()
        return [self._shortage(place) for place in self._short()]

    def free_bytes(self, place: str) -> int | None:
        """Return the free space of a place; None where it cannot be asked."""
        self._look()
        return self._free.get(place)

    def _short(self) -> list[str]:
        return [place for place in self._places if self._free.get(place, 0) - self._taken < self._min_free]

    def _shortage(self, place: str) -> str:
        free = self._free.get(place)
        if free is None:
            return f"The free space of the {place} cannot be read. Mend the folder that holds it."
        return (
            f"The {place} has {free // MIB} MiB free, less than the {self._min_free // MIB} MiB of store.min_free. "
            "Free some space; uploads are taken again by themselves."
        )

    def _look(self) -> None:
        now = self._clock.now()
        if self._looked_at is not None and 0 <= now - self._looked_at < FRESH_US:
            return
        self._looked_at = now
        self._taken = 0
        self._free = {place: free for place, path in self._places.items() if (free := _free_bytes(path)) is not None}


def _free_bytes(path: Path) -> int | None:
    try:
        space = os.statvfs(path)
    except OSError:
        return None
    return space.f_bavail * space.f_frsize
