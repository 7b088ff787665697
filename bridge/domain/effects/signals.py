"""What an outcome tells of the upstream that gave it: signals for the gates.

It knows neither builds nor time.
"""

from bridge.domain.gates import ARCHIVE, CODEARTS, TESTNOD, Signal, register_gate, route_gate, storage_gate
from bridge.domain.outcomes import (
    BuildInfo,
    Damaged,
    Described,
    DescribeOutcome,
    FinalizeOutcome,
    NoSuchBuild,
    NotSent,
    PollOutcome,
    ProjectMissing,
    PutOutcome,
    PutRefused,
    RegisterOutcome,
    Rejected,
    SlowDown,
    SpoolUnreadable,
    Stored,
    Unauthorized,
    Unknown,
    UploadFailedOutcome,
    put_message,
)

Signals = tuple[tuple[str, Signal, str], ...]
"""Gate, signal and the reason to show, for each gate that the outcome tells something of."""


def of_testnod(outcome: RegisterOutcome | FinalizeOutcome | UploadFailedOutcome, route: str) -> Signals:
    """Any answer but 5xx and 429 shows that TestNod works; any but `Project not found.` that the route does."""
    match outcome:
        case ProjectMissing(message=message):
            return (TESTNOD, Signal.GOOD, ""), (route_gate(route), Signal.SHUT, f"TestNod says: {message}")
        case NotSent(message=message) | Unknown(message=message) | Rejected(status=429, message=message):
            return ((TESTNOD, Signal.BAD, message),)
        case Rejected():
            return ((TESTNOD, Signal.GOOD, ""),)
        case _:
            return (TESTNOD, Signal.GOOD, ""), (route_gate(route), Signal.GOOD, "")


def of_register(outcome: RegisterOutcome, route: str) -> Signals:
    """A register tells also whether TestNod registers: the probe of TestNod cannot, it is a finalize."""
    told = of_testnod(outcome, route)
    match outcome:
        case ProjectMissing():
            return told
        case NotSent(message=message) | Unknown(message=message) | Rejected(status=429, message=message):
            return (*told, (register_gate(route), Signal.BAD, message))
        case _:
            return (*told, (register_gate(route), Signal.GOOD, ""))


def of_storage(outcome: PutOutcome, route: str) -> Signals:
    """Storage fails when it does not answer or answers 5xx; what it refuses, it refuses in working order."""
    match outcome:
        case Damaged() | SpoolUnreadable():
            return ()
        case Stored() | PutRefused(status=400 | 403 | 413):
            return ((storage_gate(route), Signal.GOOD, ""),)
        case PutRefused(said=message) | NotSent(message=message) | Unknown(message=message):
            return ((storage_gate(route), Signal.BAD, message),)


def of_archive(outcome: PutOutcome) -> Signals:
    """An archive that takes no copy is away, whatever it says: no report is at fault but a damaged one."""
    match outcome:
        case Damaged() | SpoolUnreadable():
            return ()
        case Stored():
            return ((ARCHIVE, Signal.GOOD, ""),)
    return ((ARCHIVE, Signal.BAD, put_message(outcome)),)


def of_codearts(outcome: PollOutcome | DescribeOutcome) -> Signals:
    """Refused credentials close the gate at once: Huawei locks a key after five failures."""
    match outcome:
        case BuildInfo() | Described() | NoSuchBuild():
            return ((CODEARTS, Signal.GOOD, ""),)
        case Unauthorized(message=message):
            return ((CODEARTS, Signal.SHUT, f"CodeArts refuses the bridge's credentials: {message}"),)
        case Rejected() | SlowDown():
            return ()
        case NotSent() | Unknown():
            return ((CODEARTS, Signal.BAD, outcome.message),)
