"""The operator's choices, as plan.py needs them: durations in microseconds and the routes.

It knows neither the settings file nor its defaults.
"""

from dataclasses import dataclass

from bridge.domain.build import SECOND
from bridge.domain.routing import Route

RECORD_TIMEOUT = 60 * SECOND
"""How long the first register waits for record-info: longer would delay reports that are at hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """`[polling]` and `[delivery]`, who is there at all beside TestNod, and the routes in file order."""

    has_codearts: bool
    has_archive: bool
    routes: tuple[Route, ...]
    poll_initial_delay: int
    poll_min_interval: int
    poll_max_interval: int
    grace_period: int
    idle_timeout: int
    not_found_timeout: int
    max_age: int
    confirm_timeout: int
    concurrency_per_build: int
    give_up_after: int
    max_finalize_delay: int
    retry_initial_delay: int
    retry_max_delay: int
    max_put_duration: int  # the longest a PUT may last
    record_timeout: int = RECORD_TIMEOUT
