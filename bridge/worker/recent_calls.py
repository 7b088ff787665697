"""What the calls to TestNod of this gateway have shown of late, from its start on."""

from collections.abc import Iterator
from contextlib import contextmanager

from bridge.clock import Clock
from bridge.domain.circuit_breaker import HealthSignal
from bridge.domain.disturbance import Disturbance
from bridge.domain.instants import Duration


class RecentCalls:
    """One object for the life of a gateway. Times are of the steady clock."""

    def __init__(self) -> None:
        self._disturbance = Disturbance()
        self._running: dict[object, int] = {}  # when each call began

    @contextmanager
    def running(self, clock: Clock) -> Iterator[None]:
        """Count a call as running until this is left."""
        call = object()
        self._running[call] = clock.steady()
        try:
            yield
        finally:
            del self._running[call]

    def record(self, signal: HealthSignal, build_id: int, at: int) -> None:
        """Record what a call for the build `build_id` has shown at `at`."""
        self._disturbance = self._disturbance.after_failure(signal, build_id, at)

    def disturbance_age(self, now: int, build_id: int) -> Duration | None:
        """Return how long ago the last disturbance was for a build; None if there was none."""
        return self._disturbance.age(self._running.values(), now, build_id)
