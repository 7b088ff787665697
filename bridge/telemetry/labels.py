"""All values that the labels of counters may have, so that every series exists with 0 from the start.

Prometheus sees no increase in a series that appears with its first event: an alert on it would miss that event.
"""

from collections.abc import Iterator
from types import UnionType
from typing import get_args

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.lifecycle.mirror import StagesOutcome, SummaryOutcome, UploadOutcome
from bridge.domain.outcomes import (
    CheckOutcome,
    FinalizeOutcome,
    NotSent,
    PollOutcome,
    PutOutcome,
    RecordOutcome,
    RegisterOutcome,
    UploadFailedOutcome,
)
from bridge.errors import BridgeError
from bridge.protocols.iam import TokenOutcome, ValidationOutcome

TARGETS = tuple(DeliveryTarget)
UNFINISHED = (DeliveryState.PENDING, DeliveryState.DEAD)
CLOSE_REASONS = ("header_timeout", "write_timeout", "limit")
RELOADED = ("success", "rejected")
PROXIED = ("build", "check", "iam")
PROXIED_STATUSES = ("2xx", "3xx", "4xx", "5xx", "none")

CALLS: dict[str, dict[str, UnionType]] = {
    "testnod": {
        "register": RegisterOutcome,
        "finalize": FinalizeOutcome,
        "upload_failed": UploadFailedOutcome,
        "probe": FinalizeOutcome,
    },
    "storage": {"put": PutOutcome},
    "codearts": {
        "build_info": PollOutcome,
        "record_info": RecordOutcome,
        "upload": UploadOutcome,
        "full_stages": StagesOutcome,
        "summary": SummaryOutcome,
    },
    "check": {"refresh": CheckOutcome},
    "iam": {"log_in": TokenOutcome | NotSent, "validate": ValidationOutcome | NotSent},
}
"""The calls to each upstream, and what each may come to. S3 is left out: a spool on a disk makes none of its calls."""


def answers() -> Iterator[tuple[str, str, str]]:
    """Yield upstream, call and the name of an outcome, for every one that there is."""
    for upstream, calls in CALLS.items():
        for call, outcomes in calls.items():
            for outcome in get_args(outcomes):
                yield upstream, call, outcome.__name__


def refusal_codes(error: type[BridgeError] = BridgeError) -> Iterator[str]:
    """Yield the code of each error, which an upload may be refused with."""
    yield error.code
    for kind in error.__subclasses__():
        yield from refusal_codes(kind)
