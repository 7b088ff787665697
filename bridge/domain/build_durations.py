"""How long the builds of a job take: learned from its last builds, and what that shows of one that was seen running.

Durations are log-normal about their median. A small share of every job's builds follows a much wider distribution, so
that a build which takes far longer than usual is asked about rarely, and not given up.
"""

import math
from collections.abc import Sequence
from statistics import median

from bridge.domain.instants import MINUTE, SECOND, Duration
from bridge.values import dataclass

LEARNED_FROM = 20
"""Builds of a job whose durations count: its newest ones, because jobs change."""

OUTLIERS = 0.05
OUTLIER_SPREAD = 1.6
"""The share of builds that follow no pattern, and the spread of their logarithms about twice the median."""

MIN_SPREAD = 0.08
MIN_DURATION = SECOND


@dataclass(frozen=True, kw_only=True, slots=True)
class Durations:
    """The median of a job's durations, and the spread (standard deviation) of their logarithms."""

    median: Duration
    spread: float

    def running_after(self, age: int) -> float:
        """Return the probability that a build still runs `age` microseconds after its start."""
        if age <= 0:
            return 1.0
        distance = math.log(age / self.median)
        usual = math.erfc(distance / (self.spread * _ROOT_2))
        outlier = math.erfc((distance - _LOG_2) / (OUTLIER_SPREAD * _ROOT_2))
        return ((1 - OUTLIERS) * usual + OUTLIERS * outlier) / 2

    def ended_between(self, seen_age: int, age: int) -> float:
        """Return the probability that a build which ran at `seen_age` has ended by `age`."""
        return self.ended_by(age, self.running_after(seen_age))

    def ended_by(self, age: int, before: float) -> float:
        """Return the same from `before`, the probability that the build still ran when it was seen."""
        return 1.0 if before < _TINY else 1 - self.running_after(age) / before


_ROOT_2, _LOG_2, _TINY = math.sqrt(2), math.log(2), 1e-9

UNKNOWN = Durations(median=Duration(8 * MINUTE), spread=1.2)
"""Of a job without ended builds. Two thirds of such builds take from two and a half to 27 minutes."""


def learn(durations: Sequence[int]) -> Durations:
    """Return what the durations of a job's last builds show; the fewer they are, the wider is the spread."""
    logarithms = [math.log(max(duration, MIN_DURATION)) for duration in durations[:LEARNED_FROM]]
    if not logarithms:
        return UNKNOWN
    middle = median(logarithms)
    squares = sum(min((value - middle) ** 2, UNKNOWN.spread**2) for value in logarithms)
    spread = math.sqrt((squares + UNKNOWN.spread**2 / 2) / (len(logarithms) + 1))
    return Durations(median=Duration(int(math.exp(middle))), spread=max(MIN_SPREAD, spread))
