"""Uploads that were not accepted, as they are told to people later.

It knows neither the ledger nor how an upload is checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.domain.build import Build

MAX_REJECTIONS = 100
"""Of one build, the newest: a script that uploads broken files for ever is understood by then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """A file, or a whole request (`name` empty), that was not accepted."""

    id: int
    at: int
    name: str  # as it is shown
    reason: str  # both sentences, as CI was told
    code: str  # from errors.py
    caller: str
    request_id: str
    size: int | None = None  # of a file that came whole, and likewise
    sha256: str | None = None
    kept_until: int | None = None  # None: its bytes are not, or no longer, kept
    sent_at: int | None = None  # when it was sent after all


def unresolved(build: Build, refusals: Sequence[Rejection]) -> list[Rejection]:
    """Return the refusals that nothing made up for.

    What does is that the file was sent after all, a later report of its name, or any after a whole request. `complete`
    makes up for a request too. A report that is known already is not new and leaves no trace: good, broken, and the
    same good one again keeps the refusal of the broken one.
    """
    newest: dict[str, int] = {}
    for report in build.reports.values():
        newest[report.name] = max(newest.get(report.name, 0), report.accepted_at)
    anything = max([*newest.values(), build.complete_at or 0])
    return [
        refusal
        for refusal in refusals
        if refusal.sent_at is None and refusal.at >= (newest.get(refusal.name, 0) if refusal.name else anything)
    ]
