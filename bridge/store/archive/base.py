"""What an archive is, wherever it lies: copies of delivered reports, by day, job and build.

It knows neither disks nor S3. Keys are `{yyyy}/{mm}/{dd}/{job_id}/{build_no}/{report id}-{digest}.xml`, with the day
(UTC) on which TestNod's storage had the report; of what a caller said only the build's own numbers are part of a key.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, select

from bridge.domain.build import SECOND, DeliveryState, DeliveryTarget
from bridge.domain.outcomes import PutOutcome
from bridge.store.blobs.base import Source
from bridge.store.blobs.metadata import escaped
from bridge.store.schema import builds, deliveries, reports

DIGEST_CHARACTERS = 16  # of a key: ids begin anew with a new ledger, and then tell no two reports apart
LINK_SECONDS = 300  # to begin a download; whoever has the link has the report
DAY = re.compile(r"[0-9]{4}/[0-9]{2}/[0-9]{2}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveEntry:
    """One report as the archive keeps it, and what stands beside it."""

    report_id: int
    job_id: str
    build_no: int
    node_id: str
    name: str  # as people see it
    delivered_at: int  # to TestNod, microseconds UTC
    size: int  # bytes as received
    received_sha256: str
    sent_size: int  # bytes kept
    sent_sha256: str
    tests: int
    failures: int
    errors: int
    skipped: int
    flaky: int

    @property
    def key(self) -> str:
        place = f"{day_of(self.delivered_at)}/{self.job_id}/{self.build_no}"
        return f"{place}/{self.report_id}-{self.sent_sha256[:DIGEST_CHARACTERS]}.xml"

    def metadata(self) -> dict[str, str]:
        """Return what stands beside it as names and values in ASCII, at most 2 KB."""
        numbers = ("build_no", "size", "sent_size", "tests", "failures", "errors", "skipped", "flaky")
        return {
            "job-id": self.job_id,
            "node-id": self.node_id,
            "name": escaped(self.name),
            "received-sha256": self.received_sha256,
            "sent-sha256": self.sent_sha256,
            **{name.replace("_", "-"): str(getattr(self, name)) for name in numbers},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveCopyState:
    """What became of the copy of a report that is owed to the archive."""

    state: DeliveryState
    last_error: str | None
    entry: ArchiveEntry | None  # None until TestNod has the report


class Archive(Protocol):
    """Keeps copies. Methods that return no outcome raise Unavailable where the archive cannot be reached."""

    async def keep(self, entry: ArchiveEntry, source: Source) -> PutOutcome:
        """Keep what `source` opens; the same again is the same copy."""

    async def hand_out(self, key: str, *, disposition: str) -> Path | str | None:
        """Return the file of a copy, or a link to it that saves it as `disposition` (RFC 6266) says and soon expires.

        None where there is no such copy (any more).
        """

    async def forget_before(self, day: str, *, limit: int) -> int:
        """Remove up to `limit` copies of days before `day` (`yyyy/mm/dd`), the oldest first; return how many went."""


def day_of(at: int) -> str:
    """Return the day (UTC) of a time in microseconds as keys begin with it."""
    return datetime.fromtimestamp(at / SECOND, UTC).strftime("%Y/%m/%d")


def copy_of(connection: Connection, report_id: int) -> ArchiveCopyState | None:
    """Return what became of a report's copy; None where the report is not known or owes the archive nothing."""
    owed = select(deliveries).where(deliveries.c.report_id == report_id)
    by_target = {row.target: row for row in connection.execute(owed)}
    archived, testnod = by_target.get(DeliveryTarget.ARCHIVE), by_target.get(DeliveryTarget.TESTNOD)
    if archived is None:
        return None
    delivered_at = testnod.delivered_at if testnod is not None else None
    return ArchiveCopyState(
        state=DeliveryState(archived.state),
        last_error=archived.last_error,
        entry=None if delivered_at is None else _entry(connection, report_id, delivered_at),
    )


def _entry(connection: Connection, report_id: int, delivered_at: int) -> ArchiveEntry:
    named = ("node_id", "name", "size", "received_sha256", "sent_size", "sent_sha256")
    counted = ("tests", "failures", "errors", "skipped", "flaky")
    columns: list[Any] = [reports.c[name] for name in (*named, *counted)]
    query = select(builds.c.job_id, builds.c.build_no, *columns).join(reports, reports.c.build_id == builds.c.id)
    row = connection.execute(query.where(reports.c.id == report_id)).one()
    return ArchiveEntry(report_id=report_id, delivered_at=delivered_at, **row._mapping)  # noqa: SLF001 -- its public name
