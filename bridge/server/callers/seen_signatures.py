"""Which body came with which signature: where a signature leaves the body out, it still serves one body only.

It knows neither requests nor keys. It remembers a signature while its date lets it be used, and not longer.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

MAX_REMEMBERED = 50_000
"""Of one key, some 12 MB: 28 uploads a second for half an hour, the longest a date counts; then the oldest goes."""


class _Seen(NamedTuple):
    body_sha256: bytes
    until: int


class SeenSignatures:
    """The signatures of one key; `now` is microseconds UTC."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def admits(self, signature: str, body_sha256: bytes, *, until: int) -> bool:
        """Tell whether this body may come with this signature, and remember it until `until` (microseconds UTC)."""
        self._forget_old()
        seen = self._seen.setdefault(signature, _Seen(body_sha256, until))
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return seen.body_sha256 == body_sha256

    def _forget_old(self) -> None:
        # Dates may lie a little ahead, so the first in is not quite the first to end: what is late goes a little later.
        now = self._now()
        while self._seen and next(iter(self._seen.values())).until < now:
            self._seen.popitem(last=False)
