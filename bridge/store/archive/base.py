"""The protocol of the archive, which keeps copies of delivered reports by day, job and build, and its entries.

Keys are `{yyyy}/{mm}/{dd}/{job_id}/{build_no}/{report id}-{digest}.xml`, with the day
(UTC) of delivery to TestNod. Of what a caller sent, only the job id and the build number are part of a key, or of a
submitted build its route and its build_id in plain letters: `…/testnod-{route}/{build_no}/…`.
"""

import re
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from sqlalchemy import Connection, select

from bridge.domain.build import BuildNo, DeliveryState, DeliveryTarget
from bridge.domain.instants import SECOND
from bridge.domain.outcomes import PutOutcome
from bridge.store.blobs.base import Source
from bridge.store.blobs.metadata import escaped
from bridge.store.duplicates import SUBMITTED, build_of_key
from bridge.store.schema import builds, deliveries, reports
from bridge.values import dataclass

DIGEST_CHARACTERS = 16
"""In a key: after a new start with an empty ledger, ids alone are not unique."""

LINK_SECONDS = 300
"""Validity of a download link: anyone who has it can read the report."""

DAY = re.compile(r"[0-9]{4}/[0-9]{2}/[0-9]{2}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveEntry:
    """A report in the archive with its metadata."""

    report_id: int
    job_id: str
    build_no: BuildNo
    node_id: str
    name: str  # escaped and shortened for display
    delivered_at: int  # to TestNod, microseconds UTC
    size: int  # bytes as received
    received_sha256: str
    sent_size: int  # bytes of the copy
    sent_sha256: str
    tests: int
    failures: int
    errors: int
    skipped: int
    flaky: int

    @property
    def key(self) -> str:
        # Of a submitted build, job_id is the name of a route.
        job_id = self.job_id if isinstance(self.build_no, int) else f"{SUBMITTED}-{quote(self.job_id, safe='')}"
        folder = f"{day_of(self.delivered_at)}/{job_id}/{self.build_no}"
        return f"{folder}/{self.report_id}-{self.sent_sha256[:DIGEST_CHARACTERS]}.xml"

    def metadata(self) -> dict[str, str]:
        """Return the metadata as names and values in ASCII, at most 2 KB."""
        numbers = ("build_no", "size", "sent_size", "tests", "failures", "errors", "skipped", "flaky")
        return {
            "job-id": escaped(self.job_id),
            "node-id": self.node_id,
            "name": escaped(self.name),
            "received-sha256": self.received_sha256,
            "sent-sha256": self.sent_sha256,
            **{name.replace("_", "-"): str(getattr(self, name)) for name in numbers},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveCopyState:
    """The state of a report's delivery to the archive."""

    state: DeliveryState
    last_error: str | None
    entry: ArchiveEntry | None  # None until TestNod has the report


class Archive(Protocol):
    """Stores copies. Methods that return no outcome raise Unavailable if the archive cannot be reached."""

    async def keep(self, entry: ArchiveEntry, source: Source) -> PutOutcome:
        """Store the bytes of `source`; storing the same entry again changes nothing."""

    async def find_copy(self, key: str, *, disposition: str) -> Path | str | None:
        """Return the file of a copy, or a link to it that expires soon; None if there is no such copy.

        `disposition` is the Content-Disposition (RFC 6266) of a download by the link.
        """

    def read(self, key: str) -> AsyncGenerator[bytes]:
        """Yield a copy in pieces; raise FileNotFoundError if there is none."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete copies, if they exist."""

    async def delete_before(self, day: str, *, limit: int) -> int:
        """Delete up to `limit` copies of days before `day` (`yyyy/mm/dd`), oldest first; return their number."""


def day_of(at: int) -> str:
    """Return the day (UTC) of a time in microseconds, in the format of keys."""
    return datetime.fromtimestamp(at / SECOND, UTC).strftime("%Y/%m/%d")


def copy_of(connection: Connection, report_id: int) -> ArchiveCopyState | None:
    """Return the state of a report's copy; None if there is no such report or no delivery to the archive."""
    query = select(deliveries).where(deliveries.c.report_id == report_id)
    by_target = {row.target: row for row in connection.execute(query)}
    archived, testnod = by_target.get(DeliveryTarget.ARCHIVE), by_target.get(DeliveryTarget.TESTNOD)
    if archived is None:
        return None
    delivered_at = testnod.delivered_at if testnod is not None else None
    return ArchiveCopyState(
        state=DeliveryState(archived.state),
        last_error=archived.last_error,
        entry=None if delivered_at is None else _entry(connection, report_id, delivered_at),
    )


def archived_entries(connection: Connection, build_id: int) -> list[ArchiveEntry]:
    """Return the entries of all reports of a build of which the archive may have a copy."""
    testnod = deliveries.alias()
    query = (
        select(deliveries.c.report_id, testnod.c.delivered_at)
        .join(testnod, testnod.c.report_id == deliveries.c.report_id)
        .where(deliveries.c.build_id == build_id, deliveries.c.target == DeliveryTarget.ARCHIVE)
        .where(testnod.c.target == DeliveryTarget.TESTNOD, testnod.c.delivered_at.is_not(None))
    )
    return [_entry(connection, report_id, delivered_at) for report_id, delivered_at in connection.execute(query).all()]


def _entry(connection: Connection, report_id: int, delivered_at: int) -> ArchiveEntry:
    named = ("node_id", "name", "size", "received_sha256", "sent_size", "sent_sha256")
    counted = ("tests", "failures", "errors", "skipped", "flaky")
    columns: list[Any] = [reports.c[name] for name in (*named, *counted)]
    query = select(builds.c.source, builds.c.key, *columns).join(reports, reports.c.build_id == builds.c.id)
    row = dict(connection.execute(query.where(reports.c.id == report_id)).mappings().one())
    job_id, build_no = build_of_key(row.pop("source"), row.pop("key"))
    return ArchiveEntry(report_id=report_id, delivered_at=delivered_at, job_id=job_id, build_no=build_no, **row)
