from dataclasses import replace

import pytest

from bridge.commands.plan import CLOCK_TOLERANCE, MigrationStage, PlannedJob, judge
from bridge.domain.instants import SECOND, Instant
from bridge.domain.outcomes import ListedJob
from bridge.domain.text_format import rfc3339

NOW = Instant(1_800_000_000 * SECOND)
LISTED = ListedJob(
    job_id="a" * 32, job_name="shop", finished=True, last_build_status=None, repo_url=None, last_started_at=NOW
)
JOB = PlannedJob(project_id="p" * 32, listed=LISTED, routes=("shop",), is_named=True)


def a_build(accepted_at):
    reports = [{"accepted_at": rfc3339(at)} for at in (accepted_at - SECOND, accepted_at)]
    return {
        "build_no": 7,
        "accepted_at": rfc3339(accepted_at - SECOND),
        "route": "shop",
        "reports": reports,
        "blocked_reason": None,
        "stuck_reason": None,
    }


@pytest.mark.parametrize(
    ("before_us", "stage"),
    [
        (-SECOND, MigrationStage.DELIVERING),
        (CLOCK_TOLERANCE, MigrationStage.DELIVERING),
        (CLOCK_TOLERANCE + SECOND, MigrationStage.ENDED_WITHOUT_REPORTS),
    ],
)
def test_reports_of_the_latest_build_may_seem_to_come_a_minute_before_it_began(before_us, stage):
    assert judge(JOB, [a_build(NOW - before_us)], [], mirrors=()).stage is stage


def test_a_latest_build_that_runs_has_missed_nothing():
    running = replace(JOB, listed=replace(LISTED, finished=False))
    assert judge(running, [a_build(NOW - 2 * CLOCK_TOLERANCE)], [], mirrors=("shop",)).stage is MigrationStage.MIRRORED
