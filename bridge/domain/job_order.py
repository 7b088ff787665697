"""The line of a job: builds that wait so that an earlier one of the same job opens its run at TestNod first.

It knows no ledger. TestNod compares a run with those before it, so that after an outage their order matters.
"""

from bridge.domain.build import Build, DeliveryTarget
from bridge.domain.steps import Wait

PREFIX = "line:"


def line_of(job_id: str) -> str:
    """Name what a build waits for that stands in the line of its job."""
    return f"{PREFIX}{job_id}"


def is_line(waiting_on: str | None) -> bool:
    """Tell whether what a build waits for is its place in line."""
    return waiting_on is not None and waiting_on.startswith(PREFIX)


def wakes_next_build(build: Build, end: Wait) -> bool:
    """Whether the next in the line of its job may go when a visit to `build` ends so.

    Not while it stands in line itself. It may once nothing is owed any more, and also where what is owed failed or
    waits for somebody else: one bad build delays itself alone.
    """
    if is_line(end.waiting_on):
        return False
    owed = build.owed(DeliveryTarget.TESTNOD)
    return not owed or end.waiting_on is not None or any(delivery.attempts for delivery in owed)
