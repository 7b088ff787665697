"""What each outcome shows of the upstream that gave it, as signals for the circuit breakers."""

from bridge.domain.circuit_breaker import (
    ARCHIVE,
    CODEARTS,
    TESTNOD,
    HealthSignal,
    register_breaker,
    route_breaker,
    storage_breaker,
)
from bridge.domain.outcomes import (
    BuildInfo,
    CorruptBody,
    CredentialsRejected,
    FinalizeOutcome,
    NoSuchBuild,
    NotSent,
    OutcomeUnknown,
    PollOutcome,
    ProjectMissing,
    PutOutcome,
    PutRejected,
    RecordFetched,
    RecordOutcome,
    Registered,
    RegisterOutcome,
    Rejected,
    SpoolUnreadable,
    Stored,
    Throttled,
    UnrecognizedResponse,
    UploadFailedOutcome,
    UrlRejected,
    put_message,
)

NO_URL = "TestNod registered an upload without a URL that a report can be PUT to."

Signals = tuple[tuple[str, HealthSignal, str], ...]
"""Breaker, signal and reason, for each breaker that the outcome concerns."""


def failure_signal(outcome: NotSent | OutcomeUnknown | UnrecognizedResponse | Rejected) -> HealthSignal:
    """Return FAILURE if no complete response came, UNEXPECTED if one came that a working upstream would not give."""
    if isinstance(outcome, NotSent) or (isinstance(outcome, OutcomeUnknown) and outcome.status is None):
        return HealthSignal.FAILURE
    return HealthSignal.UNEXPECTED


def of_testnod(outcome: RegisterOutcome | FinalizeOutcome | UploadFailedOutcome, route: str) -> Signals:
    """Return what an outcome shows of TestNod and of the route's project.

    Only responses in TestNod's format show that it works; only `Project not found.` shows that the project is missing.
    """
    works = (TESTNOD, HealthSignal.SUCCESS, "")
    match outcome:
        case ProjectMissing(message=message):
            return works, (route_breaker(route), HealthSignal.TRIP, f"TestNod responded: {message}")
        case NotSent() | OutcomeUnknown() | UnrecognizedResponse() | Rejected(status=429):
            return ((TESTNOD, failure_signal(outcome), outcome.message),)
        case Rejected():
            return (works,)
        case _:
            return works, (route_breaker(route), HealthSignal.SUCCESS, "")


def of_register(outcome: RegisterOutcome, route: str) -> Signals:
    """Return what a register shows: also whether TestNod registers, which its probe, a finalize, cannot show."""
    general, breaker = of_testnod(outcome, route), register_breaker(route)
    match outcome:
        case ProjectMissing():
            return general
        case NotSent() | OutcomeUnknown() | UnrecognizedResponse() | Rejected():
            return (*general, (breaker, failure_signal(outcome), outcome.message))
        case Registered(presigned_url=""):
            return (*general, (breaker, HealthSignal.UNEXPECTED, NO_URL))
        case _:
            return (*general, (breaker, HealthSignal.SUCCESS, ""))


def of_storage(outcome: PutOutcome, route: str) -> Signals:
    """Return what a PUT shows of storage: only a stored report shows that it works.

    That a report is too large concerns the report alone.
    """
    breaker = storage_breaker(route)
    match outcome:
        case CorruptBody() | SpoolUnreadable():
            return ()
        case Stored():
            return ((breaker, HealthSignal.SUCCESS, ""),)
        case PutRejected() if outcome.is_too_large:
            return ()
        case PutRejected(text=message) | UrlRejected(message=message):
            return ((breaker, HealthSignal.UNEXPECTED, message),)
        case NotSent(message=message) | OutcomeUnknown(message=message):
            return ((breaker, failure_signal(outcome), message),)


def of_archive(outcome: PutOutcome) -> Signals:
    """Return what a copy shows of the archive; an unreadable report shows nothing."""
    match outcome:
        case CorruptBody() | SpoolUnreadable():
            return ()
        case Stored():
            return ((ARCHIVE, HealthSignal.SUCCESS, ""),)
        case NotSent() | OutcomeUnknown():
            return ((ARCHIVE, failure_signal(outcome), outcome.message),)
    return ((ARCHIVE, HealthSignal.UNEXPECTED, put_message(outcome)),)


def of_codearts(outcome: PollOutcome | RecordOutcome) -> Signals:
    """Return what an outcome shows of CodeArts.

    Rejected credentials open the breaker at once: Huawei locks a key after five failures.
    """
    match outcome:
        case BuildInfo() | RecordFetched() | NoSuchBuild():
            return ((CODEARTS, HealthSignal.SUCCESS, ""),)
        case CredentialsRejected(message=message):
            return ((CODEARTS, HealthSignal.TRIP, f"CodeArts rejects the bridge's credentials: {message}"),)
        case Rejected() | Throttled():
            return ()
        case NotSent() | OutcomeUnknown():
            return ((CODEARTS, failure_signal(outcome), outcome.message),)
