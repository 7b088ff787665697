"""Who has failed so often that nobody looks at the next try: a key from one address, for a while.

It knows neither requests nor how a key is checked. Nobody can lock out a key for another address than the own.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

MAX_FAILURES = 5
"""Huawei locks a key after more than five failures."""

LOCKED_US = 5 * 60 * 1_000_000
"""As long as Huawei does; a failure counts as long."""

MAX_PAIRS = 10_000
"""Pairs of key and address that are remembered; beyond that the oldest is forgotten, which only lets it try again."""


@dataclass(slots=True)
class _Failures:
    count: int
    last_at: int


class Lockout:
    """Counts failures; `now` is microseconds UTC."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()

    def is_locked(self, access_key: str, address: str) -> bool:
        """Tell whether this key may not be tried from this address now."""
        found = self._failures.get(_pair(access_key, address))
        return found is not None and found.count > MAX_FAILURES and self._counts(found)

    def failed(self, access_key: str, address: str) -> None:
        """Count a failure; those while locked are not asked about, so that a lock ends."""
        pair = _pair(access_key, address)
        found = self._failures.pop(pair, None)
        count = found.count if found is not None and self._counts(found) else 0
        self._failures[pair] = _Failures(count + 1, self._now())
        if len(self._failures) > MAX_PAIRS:
            self._failures.popitem(last=False)

    def succeeded(self, access_key: str, address: str) -> None:
        """Forget the failures: they were mistakes."""
        self._failures.pop(_pair(access_key, address), None)

    def _counts(self, failures: _Failures) -> bool:
        return self._now() - failures.last_at < LOCKED_US


def _pair(access_key: str, address: str) -> bytes:
    """Return what stands for both, of one size however long the key that somebody made up."""
    return sha256(f"{address}\0{access_key}".encode("utf-8", "surrogateescape")).digest()
