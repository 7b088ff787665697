"""What answers to the questions of `bridge check-config --online` mean."""

import pytest

from bridge.commands.online.findings import (
    Asked,
    FindingState,
    of_check,
    of_clocks,
    of_login,
    of_testnod,
    of_validation,
)
from bridge.domain.instants import MINUTE, SECOND
from bridge.domain.outcomes import (
    CheckReportPending,
    CredentialsRejected,
    NotSent,
    OutcomeUnknown,
    ProjectMissing,
    Rejected,
    RunEmpty,
    RunMissing,
    RunStatus,
    Throttled,
    UnrecognizedResponse,
)

ASKED = Asked(upstream="X")
UNKNOWN = OutcomeUnknown(message="m", status=503)


@pytest.mark.parametrize(
    ("read", "outcome", "state"),
    [
        (of_testnod, RunMissing(message="m"), FindingState.WORKS),
        (of_testnod, RunEmpty(message="m"), FindingState.WORKS),
        (of_testnod, RunStatus(status="pending"), FindingState.WORKS),
        (of_testnod, ProjectMissing(message="m"), FindingState.FAILED),
        (of_testnod, Rejected(status=422, message="m"), FindingState.FAILED),
        (of_testnod, UnrecognizedResponse(status=302, message="m"), FindingState.FAILED),
        (of_testnod, NotSent(message="m"), FindingState.FAILED),
        (of_testnod, UNKNOWN, FindingState.FAILED),
        (of_login, CredentialsRejected(message="m"), FindingState.FAILED),
        (of_login, Throttled(message="m"), FindingState.WARNING),
        (of_login, UNKNOWN, FindingState.FAILED),
        (of_validation, CredentialsRejected(message="m"), FindingState.WORKS),
        (of_validation, Rejected(status=404, message="m"), FindingState.WORKS),
        (of_validation, Rejected(status=410, message="m"), FindingState.FAILED),
        (of_validation, Throttled(message="m"), FindingState.WARNING),
        (of_validation, NotSent(message="m"), FindingState.FAILED),
        (of_check, CheckReportPending(), FindingState.WORKS),
        (of_check, Rejected(status=400, message="m"), FindingState.WORKS),
        (of_check, Rejected(status=403, message="m"), FindingState.WARNING),
        (of_check, Rejected(status=404, message="m"), FindingState.FAILED),
        (of_check, CredentialsRejected(message="m"), FindingState.FAILED),
    ],
)
def test_each_answer_has_a_state_and_a_remedy_unless_it_works(read, outcome, state):
    finding = read(ASKED, outcome)
    assert (finding.state, bool(finding.remedy)) == (state, state is not FindingState.WORKS)
    assert finding.text.endswith((".", "…"))


@pytest.mark.parametrize(
    ("ahead_us", "state", "text"),
    [
        (0, FindingState.WORKS, "less than 30 seconds"),
        (-30 * SECOND, FindingState.WORKS, "less than 30 seconds"),
        (31 * SECOND, FindingState.WARNING, "31 seconds behind that of IAM"),
        (-2 * MINUTE, FindingState.WARNING, "2 minutes ahead of that of IAM"),
        (5 * MINUTE, FindingState.FAILED, "5 minutes behind that of IAM"),
        (-60 * MINUTE, FindingState.FAILED, "ahead of that of IAM"),
    ],
)
def test_the_worst_difference_of_the_clocks_counts(ahead_us, state, text):
    finding = of_clocks([("TestNod", SECOND), ("IAM", ahead_us)])
    assert finding.state is state
    assert text in finding.text


def test_without_any_date_the_clock_is_not_compared():
    assert of_clocks([]).state is FindingState.WARNING
