"""What each outcome shows of the upstream that gave it: signals for the gates."""

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
"""Gate, signal and the reason to show, for each gate that the outcome tells something of."""


def failure_signal(outcome: NotSent | OutcomeUnknown | UnrecognizedResponse | Rejected) -> HealthSignal:
    """Return BAD if no complete answer came, ODD if one came that a working upstream would not give."""
    if isinstance(outcome, NotSent) or (isinstance(outcome, OutcomeUnknown) and outcome.status is None):
        return HealthSignal.FAILURE
    return HealthSignal.UNEXPECTED


def of_testnod(outcome: RegisterOutcome | FinalizeOutcome | UploadFailedOutcome, route: str) -> Signals:
    """Return what an outcome shows of TestNod and of the route's project.

    Only TestNod's own words show that it works; only `Project not found.` shows that the project does not.
    """
    match outcome:
        case ProjectMissing(message=message):
            return (TESTNOD, HealthSignal.SUCCESS, ""), (
                route_breaker(route),
                HealthSignal.TRIP,
                f"TestNod says: {message}",
            )
        case NotSent() | OutcomeUnknown() | UnrecognizedResponse() | Rejected(status=429):
            return ((TESTNOD, failure_signal(outcome), outcome.message),)
        case Rejected():
            return ((TESTNOD, HealthSignal.SUCCESS, ""),)
        case _:
            return (TESTNOD, HealthSignal.SUCCESS, ""), (route_breaker(route), HealthSignal.SUCCESS, "")


def of_register(outcome: RegisterOutcome, route: str) -> Signals:
    """Return what a register also shows: whether TestNod registers. Its probe cannot show that: it is a finalize."""
    of_all, breaker = of_testnod(outcome, route), register_breaker(route)
    match outcome:
        case ProjectMissing():
            return of_all
        case NotSent() | OutcomeUnknown() | UnrecognizedResponse() | Rejected():
            return (*of_all, (breaker, failure_signal(outcome), outcome.message))
        case Registered(presigned_url=""):
            return (*of_all, (breaker, HealthSignal.UNEXPECTED, NO_URL))
        case _:
            return (*of_all, (breaker, HealthSignal.SUCCESS, ""))


def of_storage(outcome: PutOutcome, route: str) -> Signals:
    """Return what a PUT shows of storage: only what it stored shows that it works.

    A report that is too large is a fact of the report alone.
    """
    breaker = storage_breaker(route)
    match outcome:
        case CorruptBody() | SpoolUnreadable():
            return ()
        case Stored():
            return ((breaker, HealthSignal.SUCCESS, ""),)
        case PutRejected() if outcome.is_too_large:
            return ()
        case PutRejected(said=message) | UrlRejected(message=message):
            return ((breaker, HealthSignal.UNEXPECTED, message),)
        case NotSent(message=message) | OutcomeUnknown(message=message):
            return ((breaker, failure_signal(outcome), message),)


def of_archive(outcome: PutOutcome) -> Signals:
    """Return what keeping a copy shows of the archive: only a damaged report is at fault itself."""
    match outcome:
        case CorruptBody() | SpoolUnreadable():
            return ()
        case Stored():
            return ((ARCHIVE, HealthSignal.SUCCESS, ""),)
        case NotSent() | OutcomeUnknown():
            return ((ARCHIVE, failure_signal(outcome), outcome.message),)
    return ((ARCHIVE, HealthSignal.UNEXPECTED, put_message(outcome)),)


def of_codearts(outcome: PollOutcome | RecordOutcome) -> Signals:
    """Return what an answer shows of CodeArts.

    Refused credentials close the gate at once: Huawei locks a key after five failures.
    """
    match outcome:
        case BuildInfo() | RecordFetched() | NoSuchBuild():
            return ((CODEARTS, HealthSignal.SUCCESS, ""),)
        case CredentialsRejected(message=message):
            return ((CODEARTS, HealthSignal.TRIP, f"CodeArts refuses the bridge's credentials: {message}"),)
        case Rejected() | Throttled():
            return ()
        case NotSent() | OutcomeUnknown():
            return ((CODEARTS, failure_signal(outcome), outcome.message),)
