"""The files of one upload while they come in: small ones in memory, large ones in the spool, each checked at its end.

It knows neither HTTP nor the ledger. A file is never whole in memory unless it is small enough for the ledger's row.
"""

import hashlib
from contextlib import suppress

from bridge.domain import junit
from bridge.domain.acceptance import NewRefusal, NewReport
from bridge.errors import BadReport, TooLarge, Unavailable
from bridge.server.answers import legible
from bridge.server.checking import Checker
from bridge.store.spool import BlobWriter, DiskSpool

ROW_BYTES = 128 * 1024
"""The largest report that rides in its row; checked in place in a millisecond."""

ROWS_BYTES = 1024 * 1024
"""In rows for one request; what comes after goes to the spool, so that one upload cannot fill a commit group."""


class Reception:
    """Takes files one after the other: `begin`, `write` and `end`; after a failure `discard` leaves nothing behind.

    `write` and `end` raise Unavailable when the spool refuses.
    """

    def __init__(self, spool: DiskSpool, checker: Checker, *, node_id: str, max_report_size: int) -> None:
        self.reports: list[NewReport] = []
        self.refusals: list[NewRefusal] = []
        self.received_bytes = 0
        self._spool = spool
        self._checker = checker
        self._node_id = node_id
        self._max_report_size = max_report_size
        self._rows_left = ROWS_BYTES
        self._name = ""
        self._size = 0
        self._pieces: list[bytes] = []
        self._writer: BlobWriter | None = None
        self._digest = hashlib.sha256()

    def begin(self, name: str) -> None:
        """Start the next file."""
        self._name, self._size, self._pieces = name, 0, []

    async def write(self, chunk: bytes) -> None:
        """Take the next piece of the file; one that has grown too large is read on, but not kept."""
        self._size += len(chunk)
        if self._writer is not None:
            if self._size > self._max_report_size:
                await self._drop()
            else:
                self._digest.update(chunk)
                await self._writer.write(chunk)
        elif self._size <= self._max_report_size:
            self._pieces.append(chunk)
            if self._size > min(ROW_BYTES, self._rows_left):
                await self._move_to_spool()

    async def end(self) -> None:
        """Check the file, and keep it as a report or note why it is none."""
        self.received_bytes += self._size
        if self._size > self._max_report_size:
            limit = f"this file is larger than {self._max_report_size} bytes"
            self._refuse(f"{limit}. Split the report, or have server.max_report_size raised.", TooLarge.code)
        elif self._writer is None:
            self._keep_in_row(b"".join(self._pieces))
        else:
            await self._keep_in_spool(self._writer)

    async def discard(self) -> None:
        """Remove the bytes of the file in hand and of all reports kept so far."""
        await self._drop()
        for report in self.reports:
            await self.forget(report)
        self.reports.clear()

    async def forget(self, report: NewReport) -> None:
        """Remove the bytes of a report that no row refers to."""
        if report.blob is not None:
            with suppress(Unavailable):  # the janitor finds blobs without rows
                await self._spool.delete(report.blob)

    async def _move_to_spool(self) -> None:
        pieces, self._pieces = self._pieces, []
        self._digest = hashlib.sha256()
        self._writer = await self._spool.create()
        for piece in pieces:
            self._digest.update(piece)
            await self._writer.write(piece)

    def _keep_in_row(self, body: bytes) -> None:
        verdict = junit.check(body)
        if isinstance(verdict, junit.Refused):
            self._refuse_report(verdict)
            return
        self._rows_left -= len(body)
        self._keep(verdict, hashlib.sha256(body).hexdigest(), body=body)

    async def _keep_in_spool(self, writer: BlobWriter) -> None:
        await writer.flush()
        verdict = await self._checker.check_file(writer.path)
        if isinstance(verdict, junit.Refused):
            await self._drop()
            self._refuse_report(verdict)
            return
        blob = await writer.commit()
        self._writer = None
        self._keep(verdict, self._digest.hexdigest(), blob=blob)

    def _keep(
        self, verdict: junit.Accepted, sha256: str, *, body: bytes | None = None, blob: str | None = None
    ) -> None:
        self.reports.append(
            NewReport(
                name=self._name,
                node_id=self._node_id,
                size=self._size,
                received_sha256=sha256,
                sent_sha256=sha256,
                counts=verdict.counts,
                notes=verdict.notes,
                body=body,
                blob=blob,
            )
        )

    def _refuse_report(self, verdict: junit.Refused) -> None:
        self._refuse(f"{verdict.found} {verdict.remedy}", BadReport.code)

    def _refuse(self, reason: str, code: str) -> None:
        self.refusals.append(NewRefusal(name=self._name, reason=f"{legible(self._name)}: {reason}", code=code))

    async def _drop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.discard()
