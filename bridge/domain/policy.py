"""The operator's choices, as plan.py needs them: durations in microseconds and the routes.

It knows neither the settings file nor its defaults.
"""

from dataclasses import dataclass

from bridge.domain.build import SECOND
from bridge.domain.routing import Route

DESCRIBE_FOR = 60 * SECOND
"""How long the first register waits for record-info: longer would delay reports that are at hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """`[polling]` and `[delivery]`, who is there at all beside TestNod, and the routes in file order."""

    asks_codearts: bool
    archives: bool
    routes: tuple[Route, ...]
    poll_first: int
    poll_min: int
    poll_max: int
    settle: int
    idle_end: int
    unknown_for: int
    max_age: int
    confirm_for: int
    per_build: int
    give_up_after: int
    hold_run: int
    first_delay: int
    max_delay: int
    max_put: int  # the longest a PUT may last
    describe_for: int = DESCRIBE_FOR
