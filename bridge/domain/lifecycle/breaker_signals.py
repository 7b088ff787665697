"""What each outcome shows of the upstream that gave it, as signals for the circuit breakers."""

from bridge.domain import outcomes
from bridge.domain.circuit_breaker import (
    ARCHIVE,
    CODEARTS,
    TESTNOD,
    HealthSignal,
    register_breaker,
    route_breaker,
    storage_breaker,
)

NO_URL = "TestNod registered an upload without a URL that a report can be PUT to."

CREDENTIALS_REJECTED = "CodeArts rejects the bridge's credentials: "

Signals = tuple[tuple[str, HealthSignal, str], ...]
"""Breaker, signal and reason, for each breaker that the outcome concerns."""


def failure_signal(
    outcome: outcomes.NotSent | outcomes.OutcomeUnknown | outcomes.UnrecognizedResponse | outcomes.Rejected,
) -> HealthSignal:
    """Return FAILURE if no complete response came, UNEXPECTED if one came that a working upstream would not give."""
    if isinstance(outcome, outcomes.NotSent) or (
        isinstance(outcome, outcomes.OutcomeUnknown) and outcome.status is None
    ):
        return HealthSignal.FAILURE
    return HealthSignal.UNEXPECTED


def of_testnod(
    outcome: outcomes.RegisterOutcome | outcomes.FinalizeOutcome | outcomes.UploadFailedOutcome, route: str
) -> Signals:
    """Return what an outcome shows of TestNod and of the route's project.

    Only responses in TestNod's format show that it works; only `Project not found.` shows that the project is missing.
    """
    works = (TESTNOD, HealthSignal.SUCCESS, "")
    match outcome:
        case outcomes.ProjectMissing(message=message):
            return works, (route_breaker(route), HealthSignal.TRIP, f"TestNod responded: {message}")
        case (
            outcomes.NotSent()
            | outcomes.OutcomeUnknown()
            | outcomes.UnrecognizedResponse()
            | outcomes.Rejected(status=429)
        ):
            return ((TESTNOD, failure_signal(outcome), outcome.message),)
        case outcomes.Rejected():
            return (works,)
        case _:
            return works, (route_breaker(route), HealthSignal.SUCCESS, "")


def of_register(outcome: outcomes.RegisterOutcome, route: str) -> Signals:
    """Return what a register shows: also whether TestNod registers, which its probe, a finalize, cannot show."""
    general, breaker = of_testnod(outcome, route), register_breaker(route)
    match outcome:
        case outcomes.ProjectMissing():
            return general
        case outcomes.NotSent() | outcomes.OutcomeUnknown() | outcomes.UnrecognizedResponse() | outcomes.Rejected():
            return (*general, (breaker, failure_signal(outcome), outcome.message))
        case outcomes.Registered(presigned_url=""):
            return (*general, (breaker, HealthSignal.UNEXPECTED, NO_URL))
        case _:
            return (*general, (breaker, HealthSignal.SUCCESS, ""))


def of_storage(outcome: outcomes.PutOutcome, route: str) -> Signals:
    """Return what a PUT shows of storage: only a stored report shows that it works.

    That a report is too large concerns the report alone.
    """
    breaker = storage_breaker(route)
    match outcome:
        case outcomes.CorruptBody() | outcomes.SpoolUnreadable():
            return ()
        case outcomes.Stored():
            return ((breaker, HealthSignal.SUCCESS, ""),)
        case outcomes.PutRejected() if outcome.is_too_large:
            return ()
        case outcomes.PutRejected(text=message) | outcomes.UrlRejected(message=message):
            return ((breaker, HealthSignal.UNEXPECTED, message),)
        case outcomes.NotSent(message=message) | outcomes.OutcomeUnknown(message=message):
            return ((breaker, failure_signal(outcome), message),)


def of_archive(outcome: outcomes.PutOutcome) -> Signals:
    """Return what a copy shows of the archive; an unreadable report shows nothing."""
    match outcome:
        case outcomes.CorruptBody() | outcomes.SpoolUnreadable():
            return ()
        case outcomes.Stored():
            return ((ARCHIVE, HealthSignal.SUCCESS, ""),)
        case outcomes.NotSent() | outcomes.OutcomeUnknown():
            return ((ARCHIVE, failure_signal(outcome), outcome.message),)
    return ((ARCHIVE, HealthSignal.UNEXPECTED, outcomes.put_message(outcome)),)


def of_codearts(outcome: outcomes.CodeArtsOutcome) -> Signals:
    """Return what an outcome shows of CodeArts.

    Rejected credentials open the breaker at once: Huawei locks a key after five failures.
    """
    match outcome:
        case (
            outcomes.BuildInfo()
            | outcomes.RecordFetched()
            | outcomes.DetailsFetched()
            | outcomes.BuildsListed()
            | outcomes.JobsListed()
            | outcomes.NoSuchBuild()
        ):
            return ((CODEARTS, HealthSignal.SUCCESS, ""),)
        case outcomes.CredentialsRejected(message=message):
            return ((CODEARTS, HealthSignal.TRIP, f"{CREDENTIALS_REJECTED}{message}"),)
        case outcomes.Rejected() | outcomes.Throttled():
            return ()
        case outcomes.NotSent() | outcomes.OutcomeUnknown():
            return ((CODEARTS, failure_signal(outcome), outcome.message),)
