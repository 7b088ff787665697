"""When to try again: exponential, capped, spread out.

It knows no clock and no chance: the spread comes from a salt, so that the same question has the same answer.
"""

from zlib import crc32

LARGEST_EXPONENT = 30  # 2**30 first delays are beyond any cap; keeps the power small


def delay_us(attempts: int, *, first_us: int, max_us: int, salt: str) -> int:
    """Return how long to wait after `attempts` failed tries in a row, in microseconds.

    Doubles from `first_us` to `max_us`; the second half of each step is spread by `salt`, so that what failed
    together does not come back together.
    """
    step = min(max_us, first_us << min(max(attempts - 1, 0), LARGEST_EXPONENT))
    spread = crc32(f"{salt}/{attempts}".encode()) / 2**32
    return step // 2 + int(step / 2 * spread)


def retry_at(now: int, planned_us: int, asked_seconds: float | None, *, max_us: int) -> int:
    """Return the later of the planned try and what Retry-After asked for, the latter capped at `max_us`."""
    asked_us = min(int((asked_seconds or 0) * 1_000_000), max_us)
    return now + max(planned_us, asked_us)
