"""Places for forwarded calls: those of verified callers are apart from those of callers that anyone can be.

A verified caller gets a place or 503. A caller that is not verified may lose its place while it sends its body: if no
place is free, the one that has been sending the longest makes way, so callers that stall keep no other caller out.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from bridge.errors import Unavailable
from bridge.server.proxy.request_target import Upstream
from bridge.server.proxy.streaming import TOO_SLOW

MAX_CALLS: Final = 32
"""Concurrent calls of verified callers to each upstream. CodeArts (about 200 a second for an API) would not answer more
of them sooner, and each call that streams takes time from uploads."""

MAX_UNVERIFIED: Final = 32
"""As many again for callers that are not verified: logins, callers of an open bridge, and signatures whose body is yet
to come. The bodies of signed calls are kept in memory, 1 MiB each."""

MAX_OF_ORIGIN: Final = 16
"""Of those, for one address. Half of them, because many callers may share the address of a proxy."""

BUSY_RETRY_SECONDS: Final = 1


class Place:
    """A place that its holder can lose until it calls `keep`."""

    def __init__(self, origin: str, timeout: asyncio.Timeout) -> None:
        self.origin = origin
        self.can_be_taken = True
        self._timeout = timeout

    def keep(self) -> None:
        """Record that the caller has sent everything, or has got the start of a response."""
        self.can_be_taken = False

    def take(self) -> None:
        """End the holder's block, which then raises Unavailable."""
        self.can_be_taken = False
        self._timeout.reschedule(asyncio.get_running_loop().time())


class UnverifiedPlaces:
    """MAX_UNVERIFIED places, of which one origin (see `network_of`) holds at most MAX_OF_ORIGIN."""

    def __init__(self) -> None:
        self._places: dict[Place, None] = {}  # the oldest first

    @asynccontextmanager
    async def place(self, origin: str) -> AsyncIterator[Place]:
        """Hold a place for a block; raise Unavailable if none is free, or if another caller takes it."""
        self._make_room(origin)
        timeout = asyncio.timeout(None)
        place = Place(origin, timeout)
        self._places[place] = None
        try:
            async with timeout:
                yield place
        except TimeoutError:
            if timeout.expired():
                raise Unavailable(TOO_SLOW) from None
            raise
        finally:
            self._places.pop(place, None)

    def _make_room(self, origin: str) -> None:
        held = Counter(place.origin for place in self._places)
        if held[origin] >= MAX_OF_ORIGIN:
            self._take_one([origin])
        elif len(self._places) >= MAX_UNVERIFIED:
            self._take_one(origin for origin, _ in held.most_common())

    def _take_one(self, origins: Iterable[str]) -> None:
        """Take the oldest place that can be taken from the first of `origins` that has one."""
        for origin in origins:
            for place in self._places:
                if place.origin == origin and place.can_be_taken:
                    place.take()
                    del self._places[place]
                    return
        raise _busy(MAX_UNVERIFIED)


class CallPlaces:
    """The places of all calls. Outlives a reload of the settings."""

    def __init__(self) -> None:
        self._verified = dict.fromkeys(Upstream, 0)
        self._unverified = {upstream: UnverifiedPlaces() for upstream in Upstream}
        self.unproven_bodies = UnverifiedPlaces()  # of signatures that only the whole body proves
        self.signed_bodies = UnverifiedPlaces()  # of signatures that the headers prove; captured ones can be replayed

    @contextmanager
    def verified(self, upstream: Upstream) -> Iterator[None]:
        """Hold a place of a verified caller for a block; raise Unavailable if none is free."""
        if self._verified[upstream] >= MAX_CALLS:
            raise _busy(MAX_CALLS)
        self._verified[upstream] += 1
        try:
            yield
        finally:
            self._verified[upstream] -= 1

    def unverified(self, upstream: Upstream) -> UnverifiedPlaces:
        """Return the places of callers that are not verified."""
        return self._unverified[upstream]


def _busy(calls: int) -> Unavailable:
    return Unavailable(
        f"The bridge already forwards {calls} calls to CodeArts. Send it again in a moment.",
        retry_after_seconds=BUSY_RETRY_SECONDS,
    )
