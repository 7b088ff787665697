"""How many calls to each upstream may be under way at once, whatever becomes of the settings meanwhile.

It knows no call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bridge.errors import Unavailable
from bridge.server.proxy.target import Upstream

PLACES: Final = 32
"""Calls at once to each upstream. More would not be answered sooner by CodeArts (about 200 a second for an API), and
each that streams takes turns from uploads; whoever comes beyond them is sent away for a second."""

FULL_RETRY_SECONDS: Final = 1


class Places:
    """PLACES for each upstream."""

    def __init__(self) -> None:
        self._taken = dict.fromkeys(Upstream, 0)

    @contextmanager
    def taken(self, upstream: Upstream) -> Iterator[None]:
        """Hold a place for a block; raise Unavailable where none is free."""
        if self._taken[upstream] >= PLACES:
            raise Unavailable(
                f"{PLACES} calls to CodeArts are under way through this bridge already. Send it again in a moment.",
                retry_after_seconds=FULL_RETRY_SECONDS,
            )
        self._taken[upstream] += 1
        try:
            yield
        finally:
            self._taken[upstream] -= 1
