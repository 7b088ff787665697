"""Which upstreams are away: a host that fails is probed by one, the others wait.

It knows no call and no ledger: outcomes become signals, enough bad signals in a row close a gate, one good one
opens it. While a gate is closed the clocks of give-up and hold stand still: `away_us` counts that time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from bridge.domain.clock_trust import TRUSTED, Verdict

TESTNOD = "testnod"
CODEARTS = "codearts"
ARCHIVE = "archive"
MIRROR = "mirror"  # CodeArts' report API
CLOCK = "clock"  # what builds wait for that are to be ended by a clock that is doubted; no row, but a verdict
HELD = "held"
"""The gate that is closed while a restored ledger waits for a person: nothing is sent, and all clocks stand still."""

CLOSES_AFTER = 3
"""Bad signals in a row that close a gate: one lost answer is no outage, and a probe a second is cheap."""


def route_gate(route: str) -> str:
    """Name the gate that is closed while TestNod does not know the project of `route`."""
    return f"route:{route}"


def storage_gate(route: str) -> str:
    """Name the gate that is closed while the storage that TestNod names for `route` fails."""
    return f"storage:{route}"


def register_gate(route: str) -> str:
    """Name the gate that is closed while TestNod fails to register uploads of `route`, whatever else it answers."""
    return f"register:{route}"


def gates_of(route: str) -> tuple[str, ...]:
    """Name all gates that are the route's own."""
    return route_gate(route), storage_gate(route), register_gate(route)


def is_of_route(gate: str) -> bool:
    """Tell whether a gate is some route's own."""
    return gate.startswith(gates_of(""))


class Signal(StrEnum):
    """What one call tells of an upstream."""

    GOOD = "good"
    BAD = "bad"  # it failed or hung; enough of these close the gate
    SHUT = "shut"  # it said so itself (project missing, credentials refused): closed at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One upstream; a closed one has `failing_since`."""

    name: str
    failures: int = 0
    failing_since: int | None = None
    reason: str | None = None
    probes: int = 0
    probe_at: int | None = None
    away_us: int = 0  # how long it has been closed before now, in all

    def away_until(self, now: int) -> int:
        """Return how long the gate has been closed, in microseconds, up to `now`."""
        return self.away_us + (max(0, now - self.failing_since) if self.failing_since is not None else 0)


def signalled(gate: Gate, signal: Signal, reason: str, now: int, probe_delay: int) -> Gate:
    """Return `gate` after one signal; a gate that closes is probed `probe_delay` microseconds from now."""
    if signal is Signal.GOOD:
        return Gate(name=gate.name, away_us=gate.away_until(now))
    failures = gate.failures + 1
    if gate.failing_since is not None:
        return replace(gate, failures=failures, reason=reason)
    if signal is Signal.SHUT or failures >= CLOSES_AFTER:
        return replace(gate, failures=failures, failing_since=now, reason=reason, probes=0, probe_at=now + probe_delay)
    return replace(gate, failures=failures, reason=reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gates:
    """All gates as one visit sees them; `probing` are the closed ones that this visit may try."""

    known: Mapping[str, Gate] = field(default_factory=lambda: MappingProxyType({}))
    probing: frozenset[str] = frozenset()
    clock: Verdict = TRUSTED  # on the ledger's clock, whose times all of this is

    @classmethod
    def of(cls, gates: Iterable[Gate]) -> "Gates":
        return cls(known=MappingProxyType({gate.name: gate for gate in gates}))

    def closed(self, name: str) -> Gate | None:
        """Return the gate where it is closed and not this visit's to try."""
        gate = self.known.get(name)
        return gate if gate and gate.failing_since is not None and name not in self.probing else None

    def suspended(self, route: str) -> str | None:
        """Say why nothing is sent for `route` and what to mend; None while its gate is open."""
        gate = self.closed(route_gate(route))
        return f'Route "{route}": {gate.reason} Mend its project_token; it resumes by itself.' if gate else None

    @property
    def held(self) -> str | None:
        """Say why nothing at all is sent and what to do; None where the ledger is not held."""
        gate = self.known.get(HELD)
        return gate.reason if gate and gate.failing_since is not None else None

    def away_us(self, route: str, now: int) -> int:
        """Return how long the ledger was held, or TestNod, its storage or `route` away, up to `now`, in microseconds.

        Times when two of them were away count twice: a clock that stands still too long delays a death, never
        hastens it.
        """
        return sum(gate.away_until(now) for gate in self._needed_by(route))

    def away_of(self, name: str, now: int) -> int:
        """Return how long one upstream has been away up to `now`, in microseconds."""
        gate = self.known.get(name)
        return gate.away_until(now) if gate else 0

    def is_away(self, route: str) -> bool:
        """Whether the clocks of `route` stand still: TestNod, its storage or the route is away."""
        return any(gate.failing_since is not None for gate in self._needed_by(route))

    def _needed_by(self, route: str) -> list[Gate]:
        names = (HELD, TESTNOD, route_gate(route), register_gate(route), storage_gate(route))
        return [self.known[name] for name in names if name in self.known]
