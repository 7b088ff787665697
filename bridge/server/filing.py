"""What becomes of a whole file: checked, treated as its route asks, and kept as a report, or the reason why not.

It knows neither HTTP, nor how the file was wrapped, nor the ledger.
"""

from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

from bridge.domain import junit
from bridge.domain.acceptance import NewRefusal, NewReport
from bridge.domain.junit_verdict import Refused
from bridge.domain.routing import Route
from bridge.errors import BadReport, TooLarge, Unavailable
from bridge.server.answers import legible
from bridge.server.checking import Checker
from bridge.server.held_file import HeldFile
from bridge.server.limits import Limits, Room
from bridge.server.treatment import TOO_LARGE, Treated, Treatment, Written, remedy, treat
from bridge.store.blobs import Spool
from bridge.store.identity import dedupe_key
from bridge.store.labels import Label

ROW_BYTES = 128 * 1024
"""The largest report that rides in its row; checked in place in a millisecond."""

ROWS_BYTES = 1024 * 1024
"""In rows for one request; what comes after goes to the spool, so that one upload cannot fill a commit group."""

TREATED_IN_PLACE_BYTES = 32 * 1024
"""The largest report that is repaired or stripped in place: repair reads it up to six times, and others wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """What came over the wire where it is not what is held: a compressed file."""

    size: int
    sha256: str
    note: str  # for people


@dataclass(frozen=True, kw_only=True, slots=True)
class Sender:
    """Of which build the files of an upload are, and who sends them."""

    job_id: str
    build_no: int
    node_id: str
    caller: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Came:
    """A whole file: what came over the wire, and what is held of it."""

    name: str
    received: Received
    held: Written

    def sent(self, treated: Treated) -> Written:
        """Return what is sent of it."""
        return treated.written or self.held


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    """A report whose bytes are where the ledger will find them."""

    treated: Treated
    body: bytes | None = None
    blob: str | None = None


class Filing:
    """Files the reports of one upload: `open` gives room for one, `file` judges it.

    `open`'s files must be discarded by whoever asked for them, filed or not. `discard` takes everything back.
    """

    def __init__(
        self, spool: Spool, checker: Checker, *, sender: Sender, route: Route, limits: Limits, room: Room
    ) -> None:
        self.reports: list[NewReport] = []
        self.refusals: list[NewRefusal] = []
        self.passed_over: list[str] = []  # what stood in archives and is XML, but no JUnit: a sentence each
        self.unlike = 0  # files in archives that do not even look like reports
        self._spool = spool
        self._checker = checker
        self._sender = sender
        self._route = route
        self._treatment = Treatment.of(route, max_size=limits.max_report_size)
        self._max_size = limits.max_report_size
        self._room = room
        self._rows_left = ROWS_BYTES

    def open(self) -> HeldFile:
        """Return room for the next file."""
        return HeldFile(self._spool, max_size=self._max_size, row_size=min(ROW_BYTES, self._rows_left), room=self._room)

    async def file(
        self, name: str, held: HeldFile, *, received: Received | None = None, in_archive: bool = False
    ) -> None:
        """Keep a whole file as a report, or note why it is none; raise Unavailable when it cannot be kept or checked.

        In an archive, XML that is no JUnit report is passed over.
        """
        if held.is_too_large():
            found = f"{legible(name)}: this file is larger than {self._max_size} bytes"
            self.refuse(name, f"{found}. Split the report, or have server.max_report_size raised.", TooLarge.code)
            return
        whole = Written(held.size, held.sha256)
        received = received or Received(size=whole.size, sha256=whole.sha256, note="")
        came = _Came(name=name, received=received, held=whole)
        kept = await (self._keep_small(held, came) if held.in_memory else self._keep_spooled(held, came))
        if isinstance(kept, _Kept):
            self._note(came, kept)
        elif in_archive and kept.reason == "not_junit":
            self.passed_over.append(f"{legible(name)}: {kept.found}")
        else:
            code = TooLarge.code if kept.reason == TOO_LARGE else BadReport.code
            self.refuse(name, f"{legible(name)}: {kept.found} {remedy(kept, self._route)}", code)

    def refuse(self, name: str, reason: str, code: str) -> None:
        """Note why a file was not accepted: two sentences, the first of which begins with its name."""
        self.refusals.append(NewRefusal(name=name, reason=reason, code=code))

    async def discard(self) -> None:
        """Remove the bytes of all reports kept so far."""
        for report in self.reports:
            await self.forget(report)
        self.reports.clear()

    async def forget(self, report: NewReport) -> None:
        """Remove the bytes of a report that no row refers to."""
        if report.blob is not None:
            with suppress(Unavailable):  # the janitor finds blobs without rows
                await self._spool.delete(report.blob)

    async def _keep_small(self, held: HeldFile, came: _Came) -> _Kept | Refused:
        body = held.body
        verdict = junit.check(body)
        if held.size > TREATED_IN_PLACE_BYTES and self._treatment.concerns(verdict):
            await held.move_to_spool()
            return await self._keep_spooled(held, came)
        out = BytesIO()
        treated = treat(verdict, self._treatment, lambda: iter((body,)), out)
        if isinstance(treated, Refused):
            return treated
        sent = out.getvalue() if treated.written else body
        if len(sent) > min(ROW_BYTES, self._rows_left):
            return _Kept(treated=treated, blob=await self._spooled(sent, self._label(came, treated)))
        self._rows_left -= len(sent)
        return _Kept(treated=treated, body=sent)

    async def _spooled(self, sent: bytes, label: Label) -> str:
        held = HeldFile(self._spool, max_size=len(sent), row_size=0, room=self._room)
        try:
            await held.write(sent)
            return await held.commit(label)
        finally:
            await held.discard()

    async def _keep_spooled(self, held: HeldFile, came: _Came) -> _Kept | Refused:
        path = await held.path()
        if self._treatment:
            return await self._keep_treated(held, came)
        verdict = await self._checker.check_file(path)
        if isinstance(verdict, Refused):
            return verdict
        treated = Treated(accepted=verdict)
        return _Kept(treated=treated, blob=await held.commit(self._label(came, treated)))

    async def _keep_treated(self, held: HeldFile, came: _Came) -> _Kept | Refused:
        other = HeldFile(self._spool, max_size=0, row_size=0, room=self._room)
        await other.move_to_spool()
        try:
            treated = await self._checker.treat_file(await held.path(), self._treatment, await other.path())
            if isinstance(treated, Refused):
                return treated
            if treated.written is None:
                await other.discard()  # before the commit: nothing may come between that and the note of it
            kept = other if treated.written else held
            return _Kept(treated=treated, blob=await kept.commit(self._label(came, treated)))
        finally:
            await other.discard()

    def _label(self, came: _Came, treated: Treated) -> Label:
        """Return what stands beside the bytes in the spool."""
        sender, sent, received = self._sender, came.sent(treated), came.received
        key = dedupe_key(node_id=sender.node_id, name=came.name, received_sha256=received.sha256)
        return Label(
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
