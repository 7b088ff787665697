"""Reports of CodeArts Check that passed by on their way to somebody else: the latest of each subject.

It knows neither who heard them nor what they are held against.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from bridge.domain.code_check.models import CheckReport
from bridge.domain.outcomes import CheckReportFetched
from bridge.store.schema import overheard_checks
from bridge.store.sql_helpers import insert_new


@dataclass(frozen=True, kw_only=True, slots=True)
class HeardCheck:
    """A report that was just heard; `subject` as QualityRules.subject."""

    subject: str
    heard_at: int
    report: CheckReport


def note_check(connection: Connection, _now: int, items: Sequence[HeardCheck]) -> list[None]:
    """Keep each report in place of an older one of the same subject."""
    latest = {item.subject: item for item in sorted(items, key=lambda item: item.heard_at)}
    for subject in sorted(latest):  # in this order: nobody locks another one out
        row = asdict(latest[subject])
        if not insert_new(connection, overheard_checks, [row], "subject"):
            connection.execute(update(overheard_checks).where(overheard_checks.c.subject == subject).values(row))
    return [None for _ in items]


def heard_since(connection: Connection, subject: str, since: int) -> CheckReportFetched | None:
    """Return the report of `subject` that was heard at `since` (microseconds UTC) or later."""
    kept = overheard_checks.c
    row = connection.execute(select(overheard_checks).where(kept.subject == subject, kept.heard_at >= since)).first()
    return None if row is None else CheckReportFetched(report=_report(row.report), heard_at=row.heard_at)


def _report(values: Mapping[str, Any]) -> CheckReport:
    numbers = tuple((key, number) for key, number in values["numbers"])
    unreadable = tuple(values.get("unreadable", ()))  # rows of earlier versions have none
    return CheckReport(numbers=numbers, tools=tuple(values["tools"]), url=values["url"], unreadable=unreadable)
