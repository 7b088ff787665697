"""When to look at a build again at CodeArts.

It knows no clock and no rate: the common rate is the ledger's, this is only what one build would like.
"""

LOOK_AGAIN_US = 1_000_000
"""Between two looks at one build, however many ask for them: a hook that is told everything says much of one end."""

GROWTH = 1.5  # builds that run long are looked at more seldom; most end within minutes


def interval_us(polls: int, *, min_us: int, max_us: int) -> int:
    """Return the wait after the `polls`-th look that found the build still running, in microseconds."""
    return min(max_us, int(min_us * GROWTH ** min(max(polls - 1, 0), 60)))


def look_due_at(look_at: int | None, polled_at: int | None) -> int | None:
    """Return when a build that was asked to be looked at, at `look_at`, is due for it; None where that was done."""
    if look_at is None or (polled_at is not None and polled_at >= look_at):
        return None
    return max(look_at, (polled_at or 0) + LOOK_AGAIN_US)
