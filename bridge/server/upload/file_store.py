"""What becomes of a whole file: checked, treated as its route asks, and kept as a report, or the reason why not.

It knows neither HTTP, nor how the file was wrapped, nor the ledger.
"""

from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

from bridge.domain.intake import NewRejection, NewReport
from bridge.domain.junit.result import Invalid
from bridge.domain.rejections import MAX_REJECTIONS
from bridge.domain.routing import Route
from bridge.errors import BadReport, NoRoute, TooLarge, Unavailable
from bridge.server.http.responses import legible
from bridge.server.upload.file_buffer import FileBuffer
from bridge.server.upload.limits import RoomLeft, UploadLimits
from bridge.server.upload.quarantine import Quarantine, WireFile
from bridge.server.validation.pool import ValidationPool
from bridge.server.validation.transform import (
    TOO_LARGE,
    RewrittenFile,
    TransformOptions,
    TransformResult,
    remedy,
    transform,
)
from bridge.store.blobs.base import Spool
from bridge.store.blobs.metadata import BlobMetadata
from bridge.store.duplicates import dedupe_key

ROW_BYTES = 128 * 1024
"""The largest report that rides in its row."""

ROWS_BYTES = 1024 * 1024
"""In rows for one request; what comes after goes to the spool, so that one upload cannot fill a commit group."""

TREATED_IN_PLACE_BYTES = 32 * 1024
"""The largest report that is repaired or stripped in place: repair reads it up to six times, and others wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadSource:
    """Of which build the files of an upload are, and who sends them."""

    job_id: str
    build_no: int
    node_id: str
    caller: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Came:
    """A whole file: what came over the wire, and what is held of it."""

    name: str
    received: WireFile
    held: RewrittenFile

    def sent(self, treated: TransformResult) -> RewrittenFile:
        """Return what is sent of it."""
        return treated.written or self.held


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    """A report whose bytes are where the ledger will find them."""

    treated: TransformResult
    body: bytes | None = None
    blob: str | None = None


class UploadFileStore:
    """Files the reports of one upload: `open` gives room for one, `file` judges it.

    `open`'s files must be discarded by whoever asked for them, filed or not. `discard` takes everything back. Without a
    route every file is refused for that reason.
    """

    def __init__(
        self,
        spool: Spool,
        checker: ValidationPool,
        quarantine: Quarantine,
        *,
        sender: UploadSource,
        route: Route | NoRoute,
        limits: UploadLimits,
        room: RoomLeft,
    ) -> None:
        self.reports: list[NewReport] = []
        self.refusals: list[NewRejection] = []
        self.passed_over: list[str] = []  # what stood in archives and is XML, but no JUnit: a sentence each
        self.unlike = 0  # files in archives that do not even look like reports
        self._spool = spool
        self._checker = checker
        self._quarantine = quarantine
        self._sender = sender
        self._route = route
        self._max_size = limits.max_report_size
        self._room = room
        self._rows_left = ROWS_BYTES

    def open(self) -> FileBuffer:
        """Return room for the next file."""
        return FileBuffer(
            self._spool, max_size=self._max_size, row_size=min(ROW_BYTES, self._rows_left), room=self._room
        )

    async def file(
        self, name: str, held: FileBuffer, *, received: WireFile | None = None, in_archive: bool = False
    ) -> None:
        """Keep a whole file as a report, or refuse it; raise Unavailable when it cannot be kept or checked.

        In an archive, XML that is no JUnit report is passed over.
        """
        if held.is_too_large():
            found = f"{legible(name)}: this file is larger than {self._max_size} bytes"
            self.refuse(name, f"{found}. Split the report, or have server.max_report_size raised.", TooLarge.code)
            return
        if isinstance(self._route, NoRoute):
            await self.refuse_whole(name, f"{legible(name)}: {self._route}", NoRoute.code, held, received)
            return
        came = _came(name, held, received)
        treatment = TransformOptions.of(self._route, max_size=self._max_size)
        keep = self._keep_small if held.in_memory else self._keep_spooled
        kept = await keep(held, came, treatment)
        if isinstance(kept, _Kept):
            self._note(came, kept)
        elif in_archive and kept.reason == "not_junit":
            self.passed_over.append(f"{legible(name)}: {kept.found}")
        else:
            code = TooLarge.code if kept.reason == TOO_LARGE else BadReport.code
            reason = f"{legible(name)}: {kept.found} {remedy(kept, self._route)}"
            await self.refuse_whole(name, reason, code, held, received)

    def refuse(self, name: str, reason: str, code: str) -> None:
        """Note why a file was not accepted: two sentences, the first of which begins with its name."""
        self.refusals.append(NewRejection(name=name, reason=reason, code=code))

    async def refuse_whole(
        self, name: str, reason: str, code: str, held: FileBuffer, received: WireFile | None = None
    ) -> None:
        """Note likewise of a file that came whole, and keep its bytes where there is room for them."""
        if len(self.refusals) >= MAX_REJECTIONS:  # the ledger keeps no more of one upload
            self.refuse(name, reason, code)
            return
        came = _came(name, held, received)
        route = "" if isinstance(self._route, NoRoute) else self._route.name
        kept = await self._quarantine.keep(held, self._label(came, came.held), route=route)
        self._rows_left -= len(kept.body or b"")
        self.refusals.append(NewRejection(name=name, reason=reason, code=code, quarantined=kept))

    async def discard(self) -> None:
        """Remove the bytes of all reports and refused files kept so far."""
        kept = [file.blob for file in (refusal.quarantined for refusal in self.refusals) if file is not None]
        for blob in (*(report.blob for report in self.reports), *kept):
            if blob is not None:
                await self.forget(blob)
        self.reports.clear()
        self.refusals.clear()

    async def forget(self, blob: str) -> None:
        """Remove bytes that no row refers to."""
        with suppress(Unavailable):  # the janitor finds blobs without rows
            await self._spool.delete(blob)

    async def _keep_small(self, held: FileBuffer, came: _Came, treatment: TransformOptions) -> _Kept | Invalid:
        body = held.body
        verdict = await self._checker.check(body)
        if held.size > TREATED_IN_PLACE_BYTES and treatment.concerns(verdict):
            await held.move_to_spool()
            return await self._keep_spooled(held, came, treatment)
        out = BytesIO()
        treated = transform(verdict, treatment, lambda: iter((body,)), out)
        if isinstance(treated, Invalid):
            return treated
        sent = out.getvalue() if treated.written else body
        if len(sent) > min(ROW_BYTES, self._rows_left):
            return _Kept(treated=treated, blob=await self._spooled(sent, self._label(came, came.sent(treated))))
        self._rows_left -= len(sent)
        return _Kept(treated=treated, body=sent)

    async def _spooled(self, sent: bytes, label: BlobMetadata) -> str:
        held = FileBuffer(self._spool, max_size=len(sent), row_size=0, room=self._room)
        try:
            await held.write(sent)
            return await held.commit(label)
        finally:
            await held.discard()

    async def _keep_spooled(self, held: FileBuffer, came: _Came, treatment: TransformOptions) -> _Kept | Invalid:
        path = await held.path()
        if treatment:
            return await self._keep_treated(held, came, treatment)
        verdict = await self._checker.check_file(path)
        if isinstance(verdict, Invalid):
            return verdict
        return _Kept(treated=TransformResult(accepted=verdict), blob=await held.commit(self._label(came, came.held)))

    async def _keep_treated(self, held: FileBuffer, came: _Came, treatment: TransformOptions) -> _Kept | Invalid:
        other = FileBuffer(self._spool, max_size=0, row_size=0, room=self._room)
        await other.move_to_spool()
        try:
            treated = await self._checker.treat_file(await held.path(), treatment, await other.path())
            if isinstance(treated, Invalid):
                return treated
            if treated.written is None:
                await other.discard()  # before the commit: nothing may come between that and the note of it
            kept = other if treated.written else held
            return _Kept(treated=treated, blob=await kept.commit(self._label(came, came.sent(treated))))
        finally:
            await other.discard()

    def _label(self, came: _Came, sent: RewrittenFile) -> BlobMetadata:
        """Return what stands beside the bytes in the spool."""
        sender, received = self._sender, came.received
        key = dedupe_key(node_id=sender.node_id, name=came.name, received_sha256=received.sha256)
        return BlobMetadata(
            job_id=sender.job_id,
            build_no=sender.build_no,
            node_id=sender.node_id,
            name=came.name,
            dedupe_key=key.hex(),
            caller=sender.caller,
            size=received.size,
            received_sha256=received.sha256,
            sent_size=sent.size,
            sent_sha256=sent.sha256,
        )

    def _note(self, came: _Came, kept: _Kept) -> None:
        treated, received, sent = kept.treated, came.received, came.sent(kept.treated)
        self.reports.append(
            NewReport(
                name=came.name,
                node_id=self._sender.node_id,
                size=received.size,
                sent_size=sent.size,
                received_sha256=received.sha256,
                sent_sha256=sent.sha256,
                counts=treated.accepted.counts,
                changes=treated.changes,
                notes=(received.note, *treated.accepted.notes) if received.note else treated.accepted.notes,
                body=kept.body,
                blob=kept.blob,
            )
        )


def _came(name: str, held: FileBuffer, received: WireFile | None) -> _Came:
    whole = RewrittenFile(held.size, held.sha256)
    return _Came(name=name, received=received or WireFile(size=whole.size, sha256=whole.sha256), held=whole)
