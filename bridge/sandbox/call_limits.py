"""The limits that an API gateway sets for calls of one API in a minute, as CodeArts' throttling policies do."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

EVERY_CALL = "*"
MINUTE = 60 * 1_000_000


def read_limits(options: Iterable[str]) -> dict[str, int]:
    """Return limits written as CALL=N, or N for every API of CodeArts; raise ValueError if N is not a number."""
    limits = {}
    for option in options:
        pattern, _, number = option.rpartition("=")
        if not (number.isascii() and number.isdigit()):
            raise ValueError(f"The limit {option!r} is not a number of calls. Use 50, or codearts.build_info=50.")
        limits[pattern or EVERY_CALL] = int(number)
    return limits


def limit_of(call_name: str, limits: Mapping[str, int]) -> int | None:
    """Return the limit of the closest pattern; None if the API has none."""
    matching = [pattern for pattern in limits if fnmatchcase(call_name, pattern)]
    return limits[max(matching, key=len)] if matching else None


class CallLimits:
    """The calls of each API that were let through within the last minute."""

    def __init__(self) -> None:
        self._taken: defaultdict[str, deque[int]] = defaultdict(deque)

    def seconds_to_wait(self, call_name: str, limit: int | None, *, at: int) -> int:
        """Return 0 and count the call, or the seconds until another is let through; `at` is in microseconds."""
        if limit is None:
            return 0
        taken = self._taken[call_name]
        while taken and taken[0] <= at - MINUTE:
            taken.popleft()
        if len(taken) < limit:
            taken.append(at)
            return 0
        return -(-(taken[len(taken) - limit] + MINUTE - at) // 1_000_000) if limit else 60
