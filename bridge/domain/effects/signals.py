"""What each outcome shows of the upstream that gave it: signals for the gates."""

from bridge.domain.gates import ARCHIVE, CODEARTS, TESTNOD, Signal, register_gate, route_gate, storage_gate
from bridge.domain.outcomes import (
    BuildInfo,
    Damaged,
    Described,
    DescribeOutcome,
    FinalizeOutcome,
    Foreign,
    NoSuchBuild,
    NotSent,
    PollOutcome,
    ProjectMissing,
    PutOutcome,
    PutRefused,
    Registered,
    RegisterOutcome,
    Rejected,
    SlowDown,
    SpoolUnreadable,
    Stored,
    Unauthorized,
    Unknown,
    UploadFailedOutcome,
    UrlRefused,
    put_message,
)

NO_URL = "TestNod registered an upload without a URL that a report can be PUT to."

Signals = tuple[tuple[str, Signal, str], ...]
"""Gate, signal and the reason to show, for each gate that the outcome tells something of."""


def failure_signal(outcome: NotSent | Unknown | Foreign | Rejected) -> Signal:
    """Return BAD if no complete answer came, ODD if one came that a working upstream would not give."""
    if isinstance(outcome, NotSent) or (isinstance(outcome, Unknown) and outcome.status is None):
        return Signal.BAD
    return Signal.ODD


def of_testnod(outcome: RegisterOutcome | FinalizeOutcome | UploadFailedOutcome, route: str) -> Signals:
    """Return what an outcome shows of TestNod and of the route's project.

    Only TestNod's own words show that it works; only `Project not found.` shows that the project does not.
    """
    match outcome:
        case ProjectMissing(message=message):
            return (TESTNOD, Signal.GOOD, ""), (route_gate(route), Signal.SHUT, f"TestNod says: {message}")
        case NotSent() | Unknown() | Foreign() | Rejected(status=429):
            return ((TESTNOD, failure_signal(outcome), outcome.message),)
        case Rejected():
            return ((TESTNOD, Signal.GOOD, ""),)
        case _:
            return (TESTNOD, Signal.GOOD, ""), (route_gate(route), Signal.GOOD, "")


def of_register(outcome: RegisterOutcome, route: str) -> Signals:
    """Return what a register also shows: whether TestNod registers. Its probe cannot show that: it is a finalize."""
    of_all, gate = of_testnod(outcome, route), register_gate(route)
    match outcome:
        case ProjectMissing():
            return of_all
        case NotSent() | Unknown() | Foreign() | Rejected():
            return (*of_all, (gate, failure_signal(outcome), outcome.message))
        case Registered(presigned_url=""):
            return (*of_all, (gate, Signal.ODD, NO_URL))
        case _:
            return (*of_all, (gate, Signal.GOOD, ""))


def of_storage(outcome: PutOutcome, route: str) -> Signals:
    """Return what a PUT shows of storage: only what it stored shows that it works.

    A report that is too large is a fact of the report alone.
    """
    gate = storage_gate(route)
    match outcome:
        case Damaged() | SpoolUnreadable():
            return ()
        case Stored():
            return ((gate, Signal.GOOD, ""),)
        case PutRefused() if outcome.is_too_large:
            return ()
        case PutRefused(said=message) | UrlRefused(message=message):
            return ((gate, Signal.ODD, message),)
        case NotSent(message=message) | Unknown(message=message):
            return ((gate, failure_signal(outcome), message),)


def of_archive(outcome: PutOutcome) -> Signals:
    """Return what keeping a copy shows of the archive: only a damaged report is at fault itself."""
    match outcome:
        case Damaged() | SpoolUnreadable():
            return ()
        case Stored():
            return ((ARCHIVE, Signal.GOOD, ""),)
        case NotSent() | Unknown():
            return ((ARCHIVE, failure_signal(outcome), outcome.message),)
    return ((ARCHIVE, Signal.ODD, put_message(outcome)),)


def of_codearts(outcome: PollOutcome | DescribeOutcome) -> Signals:
    """Return what an answer shows of CodeArts.

    Refused credentials close the gate at once: Huawei locks a key after five failures.
    """
    match outcome:
        case BuildInfo() | Described() | NoSuchBuild():
            return ((CODEARTS, Signal.GOOD, ""),)
        case Unauthorized(message=message):
            return ((CODEARTS, Signal.SHUT, f"CodeArts refuses the bridge's credentials: {message}"),)
        case Rejected() | SlowDown():
            return ()
        case NotSent() | Unknown():
            return ((CODEARTS, failure_signal(outcome), outcome.message),)
