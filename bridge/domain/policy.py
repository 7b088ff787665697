"""The settings that the life of a build depends on, as `plan` needs them."""

from dataclasses import replace
from functools import lru_cache

from bridge.domain.instants import MINUTE, Duration
from bridge.domain.routing import ResultSuite, Route
from bridge.values import dataclass

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


@lru_cache(maxsize=4)
def policy_of_submitted(policy: Policy) -> Policy:
    """Return the policy for builds that were uploaded through TestNod's API.

    CodeArts has no such build, so nothing of it is asked, fetched or mirrored. It ends with the caller's finalize; one
    that is never finalized ends after `polling.max_age`, because TestNod itself would wait for it without end.
    """
    routes = (replace(each, mirror=False, code_check=None, result_suite=ResultSuite.OFF) for each in policy.routes)
    never_idle = Duration(policy.max_age + 1)
    return replace(policy, has_codearts=False, idle_timeout=never_idle, routes=tuple(routes))
