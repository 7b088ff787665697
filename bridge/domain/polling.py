"""When to look at a build again at CodeArts.

It knows no clock and no rate: the common rate is the ledger's, this is only what one build would like.
"""

GROWTH = 1.5  # builds that run long are looked at more seldom; most end within minutes


def interval_us(polls: int, *, min_us: int, max_us: int) -> int:
    """Return the wait after the `polls`-th look that found the build still running, in microseconds."""
    return min(max_us, int(min_us * GROWTH ** min(max(polls - 1, 0), 60)))
