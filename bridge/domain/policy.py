"""The settings that the life of a build depends on, as `plan` needs them."""

from dataclasses import dataclass

from bridge.domain.instants import MINUTE, Duration
from bridge.domain.routing import Route

RECORD_TIMEOUT = MINUTE
"""How long the first register waits for record-info: a longer wait would delay reports that are at hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """`[polling]` and `[delivery]`, which upstreams there are beside TestNod, and the routes in file order."""

    has_codearts: bool
    has_archive: bool
    routes: tuple[Route, ...]
    poll_initial_delay: Duration
    poll_min_interval: Duration
    poll_max_interval: Duration
    grace_period: Duration
    idle_timeout: Duration
    not_found_timeout: Duration
    max_age: Duration
    confirm_timeout: Duration
    concurrency_per_build: int
    give_up_after: Duration
    max_finalize_delay: Duration
    retry_initial_delay: Duration
    retry_max_delay: Duration
    max_put_duration: Duration
    replace_stuck_runs: bool = True
    record_timeout: Duration = RECORD_TIMEOUT
