"""A queue in which callers take turns by the CPU time that their files have cost, and the routes of each caller too.

`put` files, `take` the next one, and `charge` what it cost. Knows nothing of processes; the unit of cost is seconds.
"""

from collections import deque
from typing import Final, Generic, NamedTuple, TypeVar

UNKNOWN_SECONDS: Final = 0.008  # expected of a first file: what a whole batch of ordinary ones costs
FADING: Final = 0.9  # of what is expected, with each file: one of 0.4 seconds is remembered for 30 cheap ones
MAX_KNOWN: Final = 1000  # callers; beyond that, those without files at work are forgotten


Item = TypeVar("Item")


class Party(NamedTuple):
    """Whose file it is; empty for the bridge's own."""

    caller: str = ""
    route: str = ""


class Turn(NamedTuple, Generic[Item]):
    """A file whose turn it is, and the seconds of CPU time that it is expected to cost."""

    party: Party
    item: Item
    expected: float


class _Account:
    """CPU time used, comparable between those that wait: one that comes back starts level with the last one served."""

    __slots__ = ("running", "used", "waiting")

    def __init__(self) -> None:
        self.used = 0.0
        self.waiting = 0
        self.running = 0

    @property
    def is_idle(self) -> bool:
        return not (self.waiting or self.running)


class _Line(_Account, Generic[Item]):
    """The waiting files of one caller for one route."""

    __slots__ = ("expected", "is_known", "items")

    def __init__(self) -> None:
        super().__init__()
        self.items: deque[Item] = deque()
        self.expected = UNKNOWN_SECONDS
        self.is_known = False  # whether one of its files has run


class _Caller(_Account, Generic[Item]):
    __slots__ = ("level", "lines")

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, _Line[Item]] = {}
        self.level = 0.0  # CPU time used by the line that was served last


class TurnQueue(Generic[Item]):
    """Serves first the caller, and of it the route, whose files have used the least CPU time.

    At most `max_waiting` files wait: beyond that, the caller with the most of them loses its newest one. A caller
    whose files cost `costly_seconds` or more each, or of which none has run yet, has at most `costly_places` at work.
    """

    def __init__(self, *, max_waiting: int, costly_seconds: float = 0.0, costly_places: int | None = None) -> None:
        self._max_waiting = max_waiting
        self._costly_seconds = costly_seconds
        self._costly_places = costly_places
        self._callers: dict[str, _Caller[Item]] = {}
        self._ready: dict[str, _Caller[Item]] = {}  # those with waiting files
        self._level = 0.0  # CPU time used by the caller that was served last
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def put(self, party: Party, item: Item) -> Item | None:
        """Add a file; return the one that lost its place by that, which may be the same."""
        caller = self._callers.get(party.caller)
        if caller is None:
            caller = self._callers[party.caller] = _Caller()
        line = caller.lines.get(party.route)
        if line is None:
            line = caller.lines[party.route] = _Line()
        if caller.is_idle:
            caller.used = max(caller.used, self._level)
        if line.is_idle:
            line.used = max(line.used, caller.level)
        line.items.append(item)
        self._ready[party.caller] = caller
        self._count(caller, line, 1)
        return self._displace(party) if self._waiting > self._max_waiting else None

    def discard(self, party: Party, item: Item) -> None:
        """Remove a file that still waits."""
        caller = self._callers.get(party.caller)
        line = caller and caller.lines.get(party.route)
        if caller and line and item in line.items:
            line.items.remove(item)
            self._leave(party.caller, caller, line)

    def take(self, *, max_expected: float | None = None) -> Turn[Item] | None:
        """Remove and return the next file; None if none may run, or if it is expected to cost more than that."""
        ready = [(name, caller) for name, caller in self._ready.items() if self._may_run(caller)]
        if not ready:
            return None
        name, caller = min(ready, key=_used)
        route, line = min(((name, line) for name, line in caller.lines.items() if line.items), key=_used)
        if max_expected is not None and line.expected > max_expected:
            return None
        self._level, caller.level = caller.used, line.used
        item = line.items.popleft()
        self._leave(name, caller, line)
        caller.running += 1
        line.running += 1
        caller.used += line.expected  # corrected by `charge`
        line.used += line.expected
        return Turn(Party(name, route), item, line.expected)

    def charge(self, turn: Turn[Item], seconds: float | None) -> None:
        """Record what a file cost that was taken; None if it did not run."""
        caller = self._callers[turn.party.caller]
        line = caller.lines[turn.party.route]
        caller.running -= 1
        line.running -= 1
        more = (seconds or 0.0) - turn.expected
        caller.used += more
        line.used += more
        if seconds is not None:
            line.expected = max(seconds, line.expected * FADING)
            line.is_known = True
        self._forget_idle()

    def waiting(self) -> list[Item]:
        """Return all files that wait."""
        return [item for caller in self._ready.values() for line in caller.lines.values() for item in line.items]

    def _count(self, caller: _Caller[Item], line: _Line[Item], more: int) -> None:
        self._waiting += more
        caller.waiting += more
        line.waiting += more

    def _leave(self, name: str, caller: _Caller[Item], line: _Line[Item]) -> None:
        self._count(caller, line, -1)
        if not caller.waiting:
            del self._ready[name]

    def _may_run(self, caller: _Caller[Item]) -> bool:
        if self._costly_places is None or caller.running < self._costly_places:
            return True
        lines = [line for line in caller.lines.values() if not line.is_idle]
        return all(line.is_known and line.expected < self._costly_seconds for line in lines)

    def _displace(self, party: Party) -> Item:
        """Remove the newest file of the longest line of the caller with the most files; `party` loses a tie."""
        name, caller = max(self._ready.items(), key=lambda entry: (entry[1].waiting, entry[0] == party.caller))
        _, line = max(caller.lines.items(), key=lambda entry: (entry[1].waiting, entry[0] == party.route))
        item = line.items.pop()
        self._leave(name, caller, line)
        return item

    def _forget_idle(self) -> None:
        if len(self._callers) > MAX_KNOWN:
            self._callers = {name: caller for name, caller in self._callers.items() if not caller.is_idle}


def _used(entry: tuple[str, _Account]) -> float:
    return entry[1].used
