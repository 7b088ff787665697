"""When a call that keeps failing means that a build is stuck.

It knows no outcome.
"""

from bridge.domain.changes import Change, set_build
from bridge.domain.policy import Policy


def failing(since: int, now: int, policy: Policy, call: str, message: str) -> Change:
    """Show an error; a call that has failed for longer than a run is confirmed is a build that is stuck."""
    if now - since >= policy.confirm_for:
        return set_build(last_error=message, stuck=f"TestNod has been failing {call}: {message}")
    return set_build(last_error=message)
