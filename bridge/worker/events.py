"""Where the worker counts what it brought about."""

from typing import Protocol


class DeliveryEvents(Protocol):
    """Counts deliveries by target, and the seconds from the end of a build to the end of its run."""

    def delivered(self, target: str, count: int = 1) -> None: ...
    def finalized(self, lag_seconds: float) -> None: ...
