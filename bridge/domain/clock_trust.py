"""Whether the ledger's clock is trusted with what cannot be undone, and how its times are corrected if it was wrong.

`ClockTrust` is a value: it takes in looks at the clock and Dates of upstreams, and returns a `Verdict`. Times are
microseconds. An offset is a wall clock's time minus that of the steady clock, which is never set: it changes only when
the wall clock is set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from bridge.domain.build import SECOND
from bridge.domain.text_format import span

STEP_US = 60 * SECOND
"""A smaller step of a clock decides nothing: back-offs and URLs live longer."""

READ_US = 10 * SECOND  # both clocks are not read at one moment, and a database's answer takes its time
ANCHOR_US = 3600 * SECOND  # clocks drift: within this time by far less than a step
AGREES_US = 30 * 60 * SECOND  # a Date that is off by less confirms: retention is counted in days, time zones in hours
PROVEN_US = 6 * 3600 * SECOND  # without any Date, a clock that ran for this long and was not set is trusted
SETTLED_US = 3600 * SECOND  # uploads that began before a step have ended
PAUSE_US = 3 * 24 * 3600 * SECOND  # no write for longer than a weekend: the gateway was off, or the clock is ahead
OUT_OF_ORDER_US = 3600 * SECOND  # newer rows with earlier times: the last gateway ran with a clock that was behind


class ClockState(StrEnum):
    """How far the ledger's clock is trusted."""

    TRUSTED = "trusted"
    UNPROVEN = "unproven"  # nothing speaks against it, and nothing has confirmed it yet
    SUSPECT = "suspect"  # something speaks against it
    STEPPED = "stepped"  # the ledger's times are about to be corrected: nothing is decided before that


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The state of the clock, and for people why it is not trusted."""

    state: ClockState
    reason: str | None = None
    wants_date: bool = False  # it is suspect, and no upstream has answered with its time yet
    settled: bool = True  # it was not set for longer than an upload may take
    corrected_at: int | None = None  # when the ledger's times were corrected last, by the corrected clock

    @property
    def doubted(self) -> bool:
        """Return whether nothing may be done that cannot be undone."""
        return self.state is not ClockState.TRUSTED

    def outdates(self, read_at: int, now: int) -> bool:
        """Return whether times that were read from the ledger at `read_at` are wrong, or about to be corrected."""
        if self.state is ClockState.STEPPED:
            return True
        return self.corrected_at is not None and not self.corrected_at <= read_at <= now + STEP_US


TRUSTED = Verdict(state=ClockState.TRUSTED)


def trusting() -> Verdict:
    """Return the verdict of those who have no reason to doubt the clock."""
    return TRUSTED


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerTimes:
    """Times in the ledger at the start: the latest of all, and the one that was written last.

    They differ if the clock was behind when the newest rows were written: then `began` is the first of these times.
    """

    latest: int
    newest: int
    began: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A clock was set: `by_us` forward (or back, if negative) before it showed `before`.

    `was_behind`: it is known that the times from `began` to `before` are too early.
    """

    by_us: int
    before: int
    began: int
    was_behind: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockTrust:
    """What is known of the ledger's clock; `steady` arguments are times of the steady clock."""

    offset: int
    anchored_at: int  # by the steady clock, as is `since`
    since: int  # the start, or the last step
    at_start: LedgerTimes | None = None  # None: the ledger was empty, or its times have been corrected
    dates: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # offsets by upstream
    proven: int | None = None  # the offset that was trusted last, before a step
    step_us: int = 0  # the last step

    @classmethod
    def begun(cls, now: int, steady: int, at_start: LedgerTimes | None = None) -> "ClockTrust":
        """Return what is known when a gateway starts at `now`."""
        return cls(offset=now - steady, anchored_at=steady, since=steady, at_start=at_start)

    def looked(self, now: int, steady: int) -> "tuple[ClockTrust, Step | None]":
        """Return what is known after a look at the clock, and the step that it shows."""
        by_us = now - steady - self.offset
        if abs(by_us) > STEP_US:
            return self._stepped(by_us, steady), self._step(by_us, steady)
        if steady - self.anchored_at < ANCHOR_US:
            return self, None
        proven = now - steady if self._is_as_before() else self.proven
        return replace(self, offset=now - steady, anchored_at=steady, proven=proven), None

    def heard(self, upstream: str, at: int, steady: int) -> "ClockTrust":
        """Return what is known after `upstream` answered that it is `at`."""
        return replace(self, dates=MappingProxyType({**self.dates, upstream: at - steady}))

    def corrected(self) -> "ClockTrust":
        """Return what is known after the times that the ledger held at the start were corrected."""
        return replace(self, at_start=None)

    def verdict(self, steady: int) -> Verdict:
        """Return whether the clock is trusted. One upstream that agrees is enough: two clocks are seldom off alike."""
        if self._agrees() or (not self.dates and self._is_proven(steady)):
            return replace(TRUSTED, settled=not self.step_us or steady - self.since >= SETTLED_US)
        if self.dates:
            return Verdict(state=ClockState.SUSPECT, reason=self._differs())
        reason = self._suspicion(steady)
        if reason is not None:
            return Verdict(state=ClockState.SUSPECT, reason=reason, wants_date=True)
        return Verdict(state=ClockState.UNPROVEN, reason="No upstream has confirmed the time since the start.")

    def correction(self, steady: int) -> Step | None:
        """Return how to correct the times that gateways before this one left, once the clock is trusted."""
        if self.at_start is None or self.verdict(steady).doubted:
            return None
        now, newest, latest = self.offset + steady, self.at_start.newest, self.at_start.latest
        if latest > now + STEP_US:  # their clock was ahead
            return Step(by_us=now - latest, before=latest, began=latest)
        if latest - newest > OUT_OF_ORDER_US:  # it was behind
            return Step(by_us=now - newest, before=newest, began=self.at_start.began, was_behind=True)
        if self.offset + self.since - newest > PAUSE_US:  # no gateway tried meanwhile, whatever its clock was
            return Step(by_us=now - newest, before=newest, began=newest)
        return None

    # -- the parts -----------------------------------------------------------------------------------------------

    def _stepped(self, by_us: int, steady: int) -> "ClockTrust":
        proven = self.proven if self.verdict(steady).doubted else self.offset
        offset = self.offset + by_us
        return replace(self, offset=offset, anchored_at=steady, since=steady, proven=proven, step_us=by_us)

    def _step(self, by_us: int, steady: int) -> Step:
        before, began = self.offset + steady + READ_US, self.offset + self.since - READ_US
        was_behind = by_us > 0 and self._is_behind(before)
        if was_behind and self.at_start is not None and self.at_start.newest < self.at_start.latest:
            began = min(began, self.at_start.began)  # the gateway before this one had the same clock
        return Step(by_us=by_us, before=before, began=began, was_behind=was_behind)

    def _is_behind(self, now: int) -> bool:
        if self.dates:
            return not self._agrees() and all(date > self.offset for date in self.dates.values())
        return self.at_start is not None and self.at_start.latest > now + STEP_US

    def _is_proven(self, steady: int) -> bool:
        return self._is_as_before() or steady - self.since >= PROVEN_US

    def _is_as_before(self) -> bool:
        return self.proven is not None and abs(self.proven - self.offset) <= STEP_US

    def _agrees(self) -> bool:
        return any(abs(date - self.offset) <= AGREES_US for date in self.dates.values())

    def _differs(self) -> str:
        name, date = min(self.dates.items(), key=lambda item: abs(item[1] - self.offset))
        return f"The clock is {_off(self.offset - date)} that of {name}."

    def _suspicion(self, steady: int) -> str | None:
        if self.step_us:
            return f"The clock was set {'forward' if self.step_us > 0 else 'back'} by {span(abs(self.step_us))}."
        if self.at_start is None:
            return None
        now = self.offset + steady
        if self.at_start.latest > now + STEP_US:
            return f"The ledger holds times that are {span(self.at_start.latest - now)} ahead of the clock."
        if self.at_start.latest - self.at_start.newest > OUT_OF_ORDER_US:
            return "The ledger holds newer rows with earlier times, so the clock was behind."
        if self.offset + self.since - self.at_start.newest > PAUSE_US:
            ago = span(self.offset + self.since - self.at_start.newest)
            return f"The last time in the ledger was {ago} old at the start, so the clock may be ahead."
        return None


def _off(by_us: int) -> str:
    """Say how far the clock is off; a Date is cut to the second."""
    by = span(abs(by_us) + SECOND)
    return f"{by} ahead of" if by_us > 0 else f"{by} behind"
