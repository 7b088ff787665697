"""When TestNod was last disturbed, as the calls of one gateway show it: a run that replaces another one waits then.

A circuit breaker forgets its failures with the next success, and opens only after seconds of failures. A disturbance is
remembered longer, and also begins with calls that have no answer yet. All times are of a steady clock.
"""

from collections.abc import Iterable
from dataclasses import replace

from bridge.domain.circuit_breaker import HealthSignal
from bridge.domain.instants import MINUTE, SECOND, ZERO, Duration
from bridge.values import dataclass

SLOW_US = Duration(5 * SECOND)
"""A call that has had no answer for this long is a disturbance: TestNod answers in parts of a second."""

TOGETHER_US = MINUTE
"""Unexpected responses to two builds within this time are a disturbance; those to one build may be its own fault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disturbance:
    """The last failures that calls to TestNod have met."""

    last_at: int | None = None  # None: never
    unexpected_at: int | None = None  # the last unexpected response
    unexpected_build: int | None = None  # and the id of its build

    def after_failure(self, signal: HealthSignal, build_id: int, at: int) -> "Disturbance":
        """Return the value after a call for the build `build_id` that failed at `at`; other signals change nothing."""
        match signal:
            case HealthSignal.FAILURE:
                return replace(self, last_at=at)
            case HealthSignal.UNEXPECTED:
                is_of_another = self.unexpected_at is not None and self.unexpected_build != build_id
                together = is_of_another and at - (self.unexpected_at or 0) <= TOGETHER_US
                last_at = at if together else self.last_at
                return replace(self, last_at=last_at, unexpected_at=at, unexpected_build=build_id)
            case _:
                return self

    def age(self, began: Iterable[int], now: int, build_id: int) -> Duration | None:
        """Return how long ago the last disturbance was for the build `build_id`; None if there was none.

        `began` is when the running calls began. An unexpected response to the build itself is one for it alone.
        """
        if any(now - at >= SLOW_US for at in began):
            return ZERO
        own = self.unexpected_at if self.unexpected_build == build_id else None
        last_at = max((at for at in (self.last_at, own) if at is not None), default=None)
        return None if last_at is None else Duration(max(0, now - last_at))
