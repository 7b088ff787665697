"""Types for times and spans of time, both in microseconds, so that mypy rejects one where the other is wanted."""

from typing import NewType

Instant = NewType("Instant", int)
"""Microseconds since 1970 UTC."""

Duration = NewType("Duration", int)
"""Microseconds; negative if it leads back."""

EPOCH = Instant(0)
ZERO = Duration(0)
SECOND = Duration(1_000_000)
MINUTE = Duration(60 * SECOND)
HOUR = Duration(60 * MINUTE)
DAY = Duration(24 * HOUR)


def after(instant: Instant, *durations: Duration) -> Instant:
    """Return the instant that lies the sum of `durations` after `instant`."""
    return Instant(instant + sum(durations))


def between(earlier: Instant, later: Instant) -> Duration:
    """Return the time from `earlier` to `later`; negative if they are in the other order."""
    return Duration(later - earlier)
