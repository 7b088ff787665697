"""Buffer, validate, transform and store each file of an upload; store rejected files in the quarantine."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Final

from bridge.domain.build import BuildNo
from bridge.domain.instants import Duration
from bridge.domain.intake import MAX_REJECTIONS, NewRejection, NewReport, QuarantinedFile
from bridge.domain.junit.encoding import WRITE_ENCODING
from bridge.domain.junit.encoding_guess import WRITE_VALID_UTF_8
from bridge.domain.junit.result import Invalid, ValidationResult
from bridge.domain.junit.xml_errors import CUT_BEFORE, KEEP_CONTROLS_OUT, OF_AMPERSANDS, WRITE_WHOLE, WRITE_XML_1_0
from bridge.domain.routing import Route
from bridge.domain.text_format import escape_for_display
from bridge.errors import BadReport, NoRoute, TooLarge, Unavailable
from bridge.server.validation.messages import TOO_LARGE, FileDigest, TransformOptions, TransformResult
from bridge.server.validation.pool import ValidationPool
from bridge.server.validation.turns import Party
from bridge.store.blobs.base import BlobWriter, Spool
from bridge.store.blobs.metadata import BlobMetadata
from bridge.store.duplicates import dedupe_key
from bridge.store.rejections import MAX_QUARANTINED_BYTES
from bridge.telemetry.traces import NO_SPAN, span
from bridge.values import dataclass

MAX_TRACED_FILES: Final = 100
"""Files of one upload with a span of their own, so that a large upload does not fill the queue of spans."""

# -- the buffer of one file: few bytes in memory, more in the spool ----------------------------------------------


ReserveSpace = Callable[[int], None]
"""Counts bytes that are about to be stored; raises Unavailable if the disks have no space for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadLimits:
    """The limits of one upload, from `[server]`."""

    max_report_size: int  # bytes of one file
    max_request_size: int  # bytes of the body; also of everything decompressed, and of everything unpacked from it
    max_files: int


class FileBuffer:
    """Buffers a file of at most `max_size` bytes; of a larger one it only counts the bytes.

    At most `memory_size` bytes stay in memory. All coroutines raise Unavailable if the spool or `reserve_space` does.
    """

    def __init__(self, spool: Spool, *, max_size: int, memory_size: int, reserve_space: ReserveSpace) -> None:
        self.size = 0
        self.max_size = max_size
        self._memory_size = memory_size
        self._reserve_space = reserve_space
        self._spool = spool
        self._pieces: list[bytes] = []
        self._writer: BlobWriter | None = None
        self._spooled_digest: hashlib._Hash  # once bytes are in the spool

    def is_too_large(self) -> bool:
        return self.size > self.max_size

    @property
    def in_memory(self) -> bool:
        return self._writer is None

    @property
    def body(self) -> bytes:
        """The bytes, if they are in memory."""
        return b"".join(self._pieces)

    def digest(self) -> FileDigest:
        """Return size and digest of all bytes, before a commit."""
        sha256 = hashlib.sha256(self.body) if self.in_memory else self._spooled_digest
        return FileDigest(self.size, sha256.hexdigest())

    async def write(self, chunk: bytes) -> None:
        """Append a chunk."""
        self.size += len(chunk)
        if self.size > self.max_size:
            self._pieces.clear()
            await self.discard()
            return
        self._reserve_space(len(chunk))
        if self._writer is not None:
            self._spooled_digest.update(chunk)
            await self._writer.write(chunk)
        else:
            self._pieces.append(chunk)
            if self.size > self._memory_size:
                await self.move_to_spool()

    async def move_to_spool(self) -> None:
        """Move the bytes to the spool, and write all further ones there."""
        pieces, self._pieces = self._pieces, []
        self._writer = await self._spool.create()
        self._spooled_digest = hashlib.sha256()
        for piece in pieces:
            self._spooled_digest.update(piece)
            await self._writer.write(piece)

    async def path(self) -> Path:
        """Return a path with all bytes so far; raise RuntimeError if they are in memory."""
        writer = self._require_writer()
        await writer.flush()
        return writer.path

    async def read(self) -> AsyncGenerator[bytes]:
        """Yield all bytes so far in pieces; call it before a commit."""
        if self._writer is None:
            for piece in self._pieces:
                yield piece
            return
        await self._writer.flush()
        async for piece in self._writer.read():
            yield piece

    async def commit(self, metadata: BlobMetadata) -> str:
        """Make the bytes in the spool durable and return the key of the blob; `discard` no longer removes them."""
        blob = await self._require_writer().commit(metadata)
        self._writer = None
        return blob

    async def discard(self) -> None:
        """Remove the bytes from the spool; a second call, or one after a commit, does nothing."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.discard()

    def _require_writer(self) -> BlobWriter:
        if self._writer is None:
            raise RuntimeError("This file is in memory. Move it to the spool first.")
        return self._writer


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedFile:
    """A complete file of an upload. The buffer holds it uncompressed; its owner discards it."""

    name: str
    buffer: FileBuffer
    content: FileDigest  # of the bytes in the buffer
    received: FileDigest  # of the bytes as received: others than `content` if they were compressed
    note: str = ""  # for people
    in_archive: bool = False


ROW_BYTES = 128 * 1024
"""The largest report that is stored in its row."""

ROWS_BYTES = 1024 * 1024
"""In rows for one request; the rest goes to the spool, so that one upload cannot fill a group commit."""

TRANSFORM_INLINE_BYTES = 32 * 1024
"""The largest report that is transformed in the gateway's process, because repair reads it up to six times."""

MAX_QUARANTINED_FILE_BYTES: Final = MAX_QUARANTINED_BYTES // 4
"""Of one file, so that it cannot replace all others of its route. Larger than any report that is allowed by default."""

REPAIRABLE: Final = {
    WRITE_ENCODING,
    WRITE_VALID_UTF_8,
    KEEP_CONTROLS_OUT,
    WRITE_WHOLE,
    WRITE_XML_1_0,
    CUT_BEFORE,
} | OF_AMPERSANDS
"""Remedies that a route can do instead of the test runner."""


def remedy(invalid: Invalid, route: Route) -> str:
    """Return the remedy for a rejected file; mention the `repair` setting of the route if it may help."""
    if invalid.remedy not in REPAIRABLE or route.repair:
        return invalid.remedy
    return f"{invalid.remedy.removesuffix('.')}, or set repair = true on route {route.name}."


def _transform(
    result: ValidationResult, options: TransformOptions, body: bytes, out: BytesIO
) -> TransformResult | Invalid:
    from bridge.server.validation.transform import transform  # noqa: PLC0415 -- with lxml 4 MB; few routes need it

    return transform(result, options, lambda: iter((body,)), out)


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadSource:
    """Which build the files of an upload belong to, and who sends them."""

    job_id: str
    build_no: BuildNo
    node_id: str
    caller: str

    def key_of(self, name: str, received_sha256: str) -> bytes:
        """Return the identity of a file; files of submitted builds have no name of their own, so it does not count."""
        name = "" if isinstance(self.build_no, str) else name
        return dedupe_key(node_id=self.node_id, name=name, received_sha256=received_sha256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantine:
    """Keeps the bytes of rejected files for `keep_us` microseconds, unless `reserve_space` raises Unavailable."""

    keep_us: int
    reserve_space: ReserveSpace

    async def keep(self, buffer: FileBuffer, metadata: BlobMetadata, *, route: str) -> QuarantinedFile:
        """Return the file for the ledger, with its bytes if there is space; `buffer` no longer owns them."""
        body: bytes | None = None
        blob: str | None = None
        if self.keep_us and buffer.size <= MAX_QUARANTINED_FILE_BYTES:
            with suppress(Unavailable):  # without space, the rejection is recorded without its bytes
                self.reserve_space(0)  # its bytes are counted already
                if buffer.in_memory:
                    body = buffer.body
                else:
                    blob = await buffer.commit(metadata)
        return QuarantinedFile(
            node_id=metadata.node_id,
            route=route,
            size=buffer.size,
            sha256=metadata.sent_sha256,
            received_size=metadata.size,
            received_sha256=metadata.received_sha256,
            keep_us=Duration(self.keep_us),
            body=body,
            blob=blob,
        )


class UploadFileStore:
    """Collects the reports and rejections of one upload, and stores their bytes.

    The caller of `new_buffer` must discard the buffer, even after `add`. `discard` deletes everything stored. If
    `route` is a NoRoute, every file is rejected with it.
    """

    def __init__(
        self,
        spool: Spool,
        pool: ValidationPool,
        quarantine: Quarantine,
        *,
        source: UploadSource,
        route: Route | NoRoute,
        limits: UploadLimits,
        reserve_space: ReserveSpace,
    ) -> None:
        self.reports: list[NewReport] = []
        self.rejections: list[NewRejection] = []
        self.skipped_files: list[NewRejection] = []  # in archives: XML, but not JUnit
        self.skipped_non_xml = 0
        self._spool = spool
        self._pool = pool
        self._quarantine = quarantine
        self._source = source
        self._route = route
        self._party = Party(source.caller, "" if isinstance(route, NoRoute) else route.name)
        self._max_size = limits.max_report_size
        self._reserve_space = reserve_space
        self._row_bytes_left = ROWS_BYTES
        self._options = TransformOptions(max_size=self._max_size)
        if isinstance(route, Route):
            self._options = TransformOptions(
                max_size=self._max_size, repair=route.repair, strip=route.strip, rewrite=route.rewrite
            )

    @property
    def skipped(self) -> list[str]:
        """A sentence for each file in an archive that is XML, but not JUnit."""
        return [file.reason for file in self.skipped_files]

    def new_buffer(self) -> FileBuffer:
        """Return a buffer for the next file."""
        return FileBuffer(
            self._spool,
            max_size=self._max_size,
            memory_size=min(ROW_BYTES, self._row_bytes_left),
            reserve_space=self._reserve_space,
        )

    async def add(self, file: ReceivedFile) -> None:
        """Store a file as a report, or reject it; raise Unavailable if it cannot be validated or stored.

        XML in an archive that is not JUnit is skipped.
        """
        name = escape_for_display(file.name)
        if file.buffer.is_too_large():
            found = f"{name}: this file is larger than {self._max_size} bytes."
            self.reject(file.name, f"{found} Split the report, or raise server.max_report_size.", TooLarge.code)
            return
        if isinstance(self._route, NoRoute):
            await self.quarantine(file, f"{name}: {self._route}", NoRoute.code)
            return
        is_traced = len(self.reports) + len(self.rejections) < MAX_TRACED_FILES
        with span("validate", {"bridge.report.size": file.buffer.size}) if is_traced else NO_SPAN:
            result = await (self._store_small(file) if file.buffer.in_memory else self._store_spooled(file))
        if isinstance(result, NewReport):
            self.reports.append(result)
        elif file.in_archive and result.reason == "not_junit":
            self.skipped_files.append(
                NewRejection(name=file.name, reason=f"{name}: {result.found}", code="", kind="not_junit")
            )
        else:
            code = TooLarge.code if result.reason == TOO_LARGE else BadReport.code
            reason = f"{name}: {result.found} {remedy(result, self._route)}"
            await self.quarantine(file, reason, code, kind=result.reason)

    def reject(self, name: str, reason: str, code: str) -> None:
        """Record why a file is rejected, in two sentences, the first of which starts with its name."""
        self.rejections.append(NewRejection(name=name, reason=reason, code=code))

    async def quarantine(self, file: ReceivedFile, reason: str, code: str, *, kind: str = "") -> None:
        """Record why a complete file is rejected, and keep its bytes if there is space."""
        if len(self.rejections) >= MAX_REJECTIONS:  # the ledger stores no more of one upload
            self.rejections.append(NewRejection(name=file.name, reason=reason, code=code, kind=kind))
            return
        route = "" if isinstance(self._route, NoRoute) else self._route.name
        kept = await self._quarantine.keep(file.buffer, self._metadata(file, file.content), route=route)
        self._row_bytes_left -= len(kept.body or b"")
        self.rejections.append(NewRejection(name=file.name, reason=reason, code=code, kind=kind, quarantined=kept))

    async def discard(self) -> None:
        """Delete the bytes of all reports and rejected files."""
        quarantined = [
            file.blob for file in (rejection.quarantined for rejection in self.rejections) if file is not None
        ]
        for blob in (*(report.blob for report in self.reports), *quarantined):
            if blob is not None:
                await self.delete_blob(blob)
        self.reports.clear()
        self.rejections.clear()

    async def delete_blob(self, blob: str) -> None:
        """Delete a blob that no row refers to."""
        with suppress(Unavailable):  # the cleanup finds blobs without rows
            await self._spool.delete(blob)

    async def _store_small(self, file: ReceivedFile) -> NewReport | Invalid:
        body = file.buffer.body
        result = await self._pool.validate(body, self._party)
        if self._options.apply_to(result):
            # Repairs and rules may cost much.
            if file.buffer.size > TRANSFORM_INLINE_BYTES or isinstance(result, Invalid) or self._options.rewrite:
                await file.buffer.move_to_spool()
                return await self._store_spooled(file)
            out = BytesIO()
            transformed = await asyncio.to_thread(_transform, result, self._options, body, out)
            if isinstance(transformed, Invalid):
                return transformed
            body = out.getvalue() if transformed.written else body
        elif isinstance(result, Invalid):
            return result
        else:
            transformed = TransformResult(accepted=result)
        if len(body) > min(ROW_BYTES, self._row_bytes_left):
            return self._report(file, transformed, blob=await self._spooled(file, body, transformed))
        self._row_bytes_left -= len(body)
        return self._report(file, transformed, body=body)

    async def _spooled(self, file: ReceivedFile, body: bytes, result: TransformResult) -> str:
        buffer = FileBuffer(self._spool, max_size=len(body), memory_size=0, reserve_space=self._reserve_space)
        try:
            await buffer.write(body)
            return await buffer.commit(self._metadata(file, result.written or file.content))
        finally:
            await buffer.discard()

    async def _store_spooled(self, file: ReceivedFile) -> NewReport | Invalid:
        if not (self._options.repair or self._options.strip or self._options.rewrite):
            result = await self._pool.validate_file(await file.buffer.path(), self._party)
            if not self._options.apply_to(result):
                return await self._store_unchanged(file, result)
        return await self._store_transformed(file, self._options)

    async def _store_unchanged(self, file: ReceivedFile, result: ValidationResult) -> NewReport | Invalid:
        if isinstance(result, Invalid):
            return result
        blob = await file.buffer.commit(self._metadata(file, file.content))
        return self._report(file, TransformResult(accepted=result), blob=blob)

    async def _store_transformed(self, file: ReceivedFile, options: TransformOptions) -> NewReport | Invalid:
        out = FileBuffer(self._spool, max_size=0, memory_size=0, reserve_space=self._reserve_space)
        await out.move_to_spool()
        try:
            result = await self._pool.transform_file(await file.buffer.path(), options, await out.path(), self._party)
            if isinstance(result, Invalid):
                return result
            if result.written is None:
                await out.discard()  # before the commit: a cancellation must not come between commit and append
            buffer = out if result.written else file.buffer
            blob = await buffer.commit(self._metadata(file, result.written or file.content))
            return self._report(file, result, blob=blob)
        finally:
            await out.discard()

    def _report(
        self, file: ReceivedFile, result: TransformResult, *, body: bytes | None = None, blob: str | None = None
    ) -> NewReport:
        sent = result.written or file.content
        return NewReport(
            name=file.name,
            node_id=self._source.node_id,
            size=file.received.size,
            sent_size=sent.size,
            received_sha256=file.received.sha256,
            sent_sha256=sent.sha256,
            counts=result.accepted.counts,
            highlights=result.accepted.highlights,
            changes=result.changes,
            notes=(file.note, *result.accepted.notes) if file.note else result.accepted.notes,
            body=body,
            blob=blob,
            case_digest=result.accepted.case_digest,
            dedupe_key=self._source.key_of(file.name, file.received.sha256),
        )

    def _metadata(self, file: ReceivedFile, sent: FileDigest) -> BlobMetadata:
        source, received = self._source, file.received
        key = source.key_of(file.name, received.sha256)
        return BlobMetadata(
            job_id=source.job_id,
            build_no=source.build_no,
            node_id=source.node_id,
            name=file.name,
            dedupe_key=key.hex(),
            caller=source.caller,
            size=received.size,
            received_sha256=received.sha256,
            sent_size=sent.size,
            sent_sha256=sent.sha256,
        )
