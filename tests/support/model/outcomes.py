"""What a caller may receive of a request that came to nothing: one table for both drivers of the model.

`life` plays builds over the domain alone, thousands of lives in seconds; `story` plays the real worker and ledger.
"""

from typing import Any

from bridge.domain.outcomes import (
    Conflict,
    CredentialsRejected,
    NotSent,
    OutcomeUnknown,
    ProjectMissing,
    PutRejected,
    Rejected,
    Throttled,
    UnrecognizedResponse,
)

CUT, BROKEN, AWAY = (
    OutcomeUnknown(message="cut"),
    OutcomeUnknown(message="broken", status=500),
    NotSent(message="refused"),
)
PAGE = UnrecognizedResponse(status=404, message="a page")
TESTNOD: tuple[Any, ...] = (
    CUT,
    BROKEN,
    AWAY,
    ProjectMissing(message="Project not found."),
    Rejected(status=429, message="slow"),
    PAGE,
)
REGISTER = (*TESTNOD, Conflict(message="409"), Rejected(status=422, message="?"))


def rejected_put(status: int, code: str) -> PutRejected:
    """Return what storage answers with an error document."""
    return PutRejected(status=status, code=code, message="no")


TOO_LARGE = "EntityTooLarge"  # of all codes, the one that condemns the report
PUT: tuple[Any, ...] = (
    CUT,
    BROKEN,
    AWAY,
    rejected_put(403, "AccessDenied"),
    rejected_put(400, "ExpiredToken"),
    rejected_put(400, "Nonsense"),
    rejected_put(400, "RequestTimeout"),
    rejected_put(413, TOO_LARGE),
    rejected_put(503, "SlowDown"),
)
SLOW_PUT = (CUT, BROKEN)  # it may arrive all the same
CODEARTS: tuple[Any, ...] = (
    CUT,
    AWAY,
    CredentialsRejected(message="no"),
    Throttled(message="429"),
    Rejected(status=400, message="?"),
)
