"""Rejections as the ledger stores them, and which of them are still unresolved."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.domain.build import Build
from bridge.domain.instants import Instant

MAX_REJECTIONS = 100
"""Stored for one build; the newest replace older ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """A file, or a whole request (`name` empty), that was not accepted."""

    id: int
    rejected_at: Instant
    name: str  # escaped and cut
    reason: str  # both sentences of the response to CI
    code: str  # from errors.py
    caller: str
    request_id: str
    size: int | None = None  # of a file that arrived whole; so is sha256
    sha256: str | None = None
    kept_until: Instant | None = None  # None: its bytes are not in quarantine
    sent_at: Instant | None = None  # when it was sent from quarantine


def unresolved(build: Build, rejections: Sequence[Rejection]) -> list[Rejection]:
    """Return the rejections that nothing has replaced.

    A rejected file is replaced if it was sent from quarantine, or by a later report of its name; a rejected request by
    any later report, or by `complete=true`. A duplicate leaves no trace: if CI uploads a valid file, an invalid one and
    the same valid one again, the rejection of the invalid one stays.
    """
    newest: dict[str, int] = {}
    for report in build.reports.values():
        newest[report.name] = max(newest.get(report.name, 0), report.accepted_at)
    any_later = max([*newest.values(), build.complete_at or 0])
    return [
        rejection
        for rejection in rejections
        if rejection.sent_at is None
        and rejection.rejected_at >= (newest.get(rejection.name, 0) if rejection.name else any_later)
    ]
