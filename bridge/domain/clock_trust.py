"""Whether the ledger's clock is trusted with what cannot be undone, and how its times are corrected if it was wrong.

`ClockTrust` is a value: it collects readings of the clock and Date headers of upstreams, and returns a `Verdict`. Times
are microseconds. An offset is the time of a wall clock minus that of the steady clock, which is never set: it changes
only if the wall clock is set.
"""

from collections.abc import Mapping
from dataclasses import field, replace
from enum import StrEnum
from types import MappingProxyType

from bridge.domain.instants import DAY, HOUR, MINUTE, SECOND, Duration
from bridge.domain.text_format import span
from bridge.values import dataclass

STEP_US = MINUTE
"""A smaller step of a clock is ignored: back-offs and URLs last longer."""

READ_US = Duration(10 * SECOND)  # the two clocks are not read at the same moment, and a database takes time to answer
ANCHOR_US = HOUR  # within this time clocks drift by far less than a step
AGREES_US = Duration(30 * MINUTE)  # a Date that differs by less confirms the clock: retention is days, time zones hours
PROVEN_US = Duration(6 * HOUR)  # without any Date, a clock that has run for this long and was not set is trusted
SETTLED_US = HOUR  # uploads that began before a step have ended
PAUSE_US = Duration(3 * DAY)  # no write for longer than a weekend: the gateway was off, or the clock is ahead
OUT_OF_ORDER_US = HOUR  # newer rows with earlier times: the clock of the last gateway was behind


class ClockState(StrEnum):
    """How far the ledger's clock is trusted."""

    TRUSTED = "trusted"
    UNPROVEN = "unproven"  # no sign against it, and no confirmation yet
    SUSPECT = "suspect"  # there is a sign against it
    STEPPED = "stepped"  # the ledger's times will be corrected first: no build is planned before that


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The state of the clock, and why it is not trusted."""

    state: ClockState
    reason: str | None = None
    wants_date: bool = False  # it is suspect, and no upstream has sent a Date yet
    settled: bool = True  # it has not been set for longer than an upload may take
    corrected_at: int | None = None  # the last correction of the ledger's times, by the corrected clock

    @property
    def doubted(self) -> bool:
        """Return whether actions that cannot be undone must wait."""
        return self.state is not ClockState.TRUSTED

    def outdates(self, read_at: int, now: int) -> bool:
        """Return whether times that were read from the ledger at `read_at` are wrong or will be corrected."""
        if self.state is ClockState.STEPPED:
            return True
        return self.corrected_at is not None and not self.corrected_at <= read_at <= now + STEP_US


TRUSTED = Verdict(state=ClockState.TRUSTED)
UNSETTLED = Verdict(state=ClockState.TRUSTED, settled=False)


def trusting() -> Verdict:
    """Return the verdict of components without a clock check."""
    return TRUSTED


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerTimes:
    """Times in the ledger at the start: the latest one, and the one in the newest row.

    They differ if the clock was behind when the newest rows were written; `began` is then the first of their times.
    """

    latest: int
    newest: int
    began: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A clock was set by `by_us` (negative: back), just after it showed `before`.

    `was_behind`: the times from `began` to `before` are known to be too early.
    """

    by_us: int
    before: int
    began: int
    was_behind: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockTrust:
    """What is known of the ledger's clock. Arguments named `steady` are times of the steady clock."""

    offset: int
    anchored_at: int  # by the steady clock, like `since`
    since: int  # the start, or the last step
    at_start: LedgerTimes | None = None  # None: the ledger was empty, or its times have been corrected
    dates: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # offsets by upstream
    proven: int | None = None  # the offset that was trusted last, before a step
    step_us: int = 0  # the last step

    @classmethod
    def started(cls, now: int, steady: int, at_start: LedgerTimes | None = None) -> "ClockTrust":
        """Return what is known when a gateway starts at `now`."""
        return cls(offset=now - steady, anchored_at=steady, since=steady, at_start=at_start)

    def after_reading(self, now: int, steady: int) -> "tuple[ClockTrust, Step | None]":
        """Return what is known after a reading of the clock, and the step that it shows."""
        by_us = now - steady - self.offset
        if abs(by_us) > STEP_US:
            return self._stepped(by_us, steady), self._step(by_us, steady)
        if steady - self.anchored_at < ANCHOR_US:
            return self, None
        proven = now - steady if self._is_as_before() else self.proven
        return replace(self, offset=now - steady, anchored_at=steady, proven=proven), None

    def with_date(self, upstream: str, at: int, steady: int) -> "ClockTrust":
        """Return what is known after `upstream` sent the Date `at`."""
        return replace(self, dates=MappingProxyType({**self.dates, upstream: at - steady}))

    def after_correction(self) -> "ClockTrust":
        """Return what is known after the times that the ledger had at the start were corrected."""
        return replace(self, at_start=None)

    def verdict(self, steady: int) -> Verdict:
        """Return whether the clock is trusted. One upstream that agrees is enough: clocks seldom share an error."""
        if self._agrees() or (not self.dates and self._is_proven(steady)):
            return TRUSTED if not self.step_us or steady - self.since >= SETTLED_US else UNSETTLED
        if self.dates:
            return Verdict(state=ClockState.SUSPECT, reason=self._differs())
        reason = self._suspicion(steady)
        if reason is not None:
            return Verdict(state=ClockState.SUSPECT, reason=reason, wants_date=True)
        return Verdict(state=ClockState.UNPROVEN, reason="No upstream has confirmed the time since the start.")

    def correction(self, steady: int) -> Step | None:
        """Return how to correct the times of earlier gateways, once the clock is trusted."""
        if self.at_start is None or self.verdict(steady).doubted:
            return None
        now, newest, latest = self.offset + steady, self.at_start.newest, self.at_start.latest
        if latest > now + STEP_US:  # their clock was ahead
            return Step(by_us=now - latest, before=latest, began=latest)
        if latest - newest > OUT_OF_ORDER_US:  # it was behind
            return Step(by_us=now - newest, before=newest, began=self.at_start.began, was_behind=True)
        if self.offset + self.since - newest > PAUSE_US:  # no gateway ran meanwhile, whatever its clock was
            return Step(by_us=now - newest, before=newest, began=newest)
        return None

    def _stepped(self, by_us: int, steady: int) -> "ClockTrust":
        proven = self.proven if self.verdict(steady).doubted else self.offset
        offset = self.offset + by_us
        return replace(self, offset=offset, anchored_at=steady, since=steady, proven=proven, step_us=by_us)

    def _step(self, by_us: int, steady: int) -> Step:
        before, began = self.offset + steady + READ_US, self.offset + self.since - READ_US
        was_behind = by_us > 0 and self._is_behind(before)
        if was_behind and self.at_start is not None and self.at_start.newest < self.at_start.latest:
            began = min(began, self.at_start.began)  # the earlier gateway had the same clock
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
            return f"The ledger contains times that are {span(self.at_start.latest - now)} ahead of the clock."
        if self.at_start.latest - self.at_start.newest > OUT_OF_ORDER_US:
            return "The ledger contains newer rows with earlier times, so the clock was behind."
        if self.offset + self.since - self.at_start.newest > PAUSE_US:
            ago = span(self.offset + self.since - self.at_start.newest)
            return f"The last time in the ledger was {ago} old at the start, so the clock may be ahead."
        return None


def _off(by_us: int) -> str:
    """Return how far the clock is off; a Date is cut to the second."""
    by = span(abs(by_us) + SECOND)
    return f"{by} ahead of" if by_us > 0 else f"{by} behind"
