"""The files of one upload while they come in: compressed ones are unfolded, archives are opened, all are filed.

It knows neither HTTP, nor what a report is, nor the ledger. A file is never whole in memory unless it is small.
"""

import asyncio
import hashlib

from bridge.errors import BadReport, CallerError
from bridge.server.compression.archives import HEAD_BYTES, is_archive
from bridge.server.compression.codecs import MAGIC_BYTES, ContentCoding, content_coding_of, content_codings
from bridge.server.compression.decompress import DecompressionPipeline
from bridge.server.http.responses import escape_for_display
from bridge.server.upload.archive_files import ArchiveExtractor
from bridge.server.upload.file_buffer import FileBuffer
from bridge.server.upload.file_store import UploadFileStore
from bridge.server.upload.limits import UploadBudget, UploadLimits
from bridge.server.upload.multipart_form import FileStart
from bridge.server.upload.quarantine import WireFile


class FileReceiver:
    """Takes files one after the other: `begin`, `write` and `end`; after a failure `discard` leaves nothing behind.

    A file that cannot be taken is refused in the filing, and what still comes of it is passed by. `write` and `end`
    raise Unavailable when the spool refuses.
    """

    def __init__(self, filing: UploadFileStore, limits: UploadLimits) -> None:
        self._filing = filing
        self._max_size = limits.max_request_size
        self._unfolded = UploadBudget(limits.max_request_size, "uncompressed bytes")
        self._unpacking = ArchiveExtractor(filing, limits)
        self._file: _File | None = None

    def begin(self, begun: FileStart, *, received: WireFile | None = None) -> None:
        """Start the next file; `received` is what once came where this is not it any more."""
        try:
            folded = content_codings(begun.content_encoding)
        except CallerError as error:
            self._filing.refuse(begun.name, f"{escape_for_display(begun.name)}: {error}", error.code)
            return
        self._file = _File(begun.name, self._filing.open(), folded, received)

    async def write(self, chunk: bytes) -> None:
        """Take the next piece of the file."""
        file = self._file
        if file is None:
            return
        try:
            if file.started:
                await self._unfold(file, chunk)
            else:
                file.start += chunk
                if len(file.start) >= MAGIC_BYTES:
                    await self._start(file)
        except CallerError as error:
            await self._refuse(file, error)

    async def end(self) -> None:
        """Have the file judged, or all that stands in it."""
        file = self._file
        if file is None:
            return
        try:
            await self._finish(file)
        except BadReport as error:
            if file.is_archive:
                await self._filing.refuse_whole(file.name, str(error), error.code, file.held, file.received())
            else:
                self._filing.refuse(file.name, str(error), error.code)
        except CallerError as error:
            self._filing.refuse(file.name, str(error), error.code)
        await self._drop()
        await asyncio.sleep(0)  # one upload may bring thousands of files: others have their turn between two

    async def discard(self) -> None:
        """Remove the bytes of the file in hand and of all files kept so far."""
        await self._drop()
        await self._filing.discard()

    async def _start(self, file: "_File") -> None:
        """Tell by how the file begins whether it is compressed, and take that beginning."""
        start, file.start, file.started = file.start, b"", True
        if not file.folded and (folding := content_coding_of(start)) is not None:
            file.folded = (folding,)
        if file.folded:
            file.unfolding = DecompressionPipeline(
                file.folded, what=escape_for_display(file.name), max_bytes=self._max_size
            )
        await self._unfold(file, start)

    async def _unfold(self, file: "_File", chunk: bytes) -> None:
        if file.unfolding is None:
            await self._take(file, chunk)
            return
        if file.held.is_too_large():  # there is nothing to be learned from its rest
            return
        file.received_size += len(chunk)
        file.received_digest.update(chunk)
        for piece in file.unfolding.feed(chunk):
            self._unfolded.take(len(piece), file.name)
            await self._take(file, piece)
            if file.held.is_too_large():
                return
            await asyncio.sleep(0)  # each piece was some work

    async def _take(self, file: "_File", piece: bytes) -> None:
        if not file.looked_at:
            file.head += piece[: HEAD_BYTES - len(file.head)]
            if len(file.head) == HEAD_BYTES:
                await self._look(file)
        await file.held.write(piece)

    async def _look(self, file: "_File") -> None:
        """Tell by the head of the file whether it is an archive; those are read from the disk, whatever their size."""
        file.looked_at = True
        if is_archive(file.head):
            file.is_archive = True
            file.held.max_size = self._max_size
            if file.held.in_memory:
                await file.held.move_to_spool()

    async def _finish(self, file: "_File") -> None:
        if not file.started:
            await self._start(file)
        if file.unfolding is not None and not file.held.is_too_large():
            file.unfolding.close()
        if not file.looked_at:
            await self._look(file)
        if file.is_archive:
            await self._unpacking.unpack(await file.held.path(), file.name)
        else:
            await self._filing.file(file.name, file.held, received=file.received())

    async def _refuse(self, file: "_File", error: CallerError) -> None:
        self._filing.refuse(file.name, str(error), error.code)
        await self._drop()

    async def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            await file.held.discard()


class _File:
    """The file in hand: how much of it is known."""

    def __init__(
        self, name: str, held: FileBuffer, folded: tuple[ContentCoding, ...], received: WireFile | None
    ) -> None:
        self.name = name
        self.held = held
        self.folded = folded
        self._received = received
        self.started = False
        self.start = b""  # until it tells whether the file is compressed
        self.unfolding: DecompressionPipeline | None = None
        self.received_size = 0  # of a compressed one, as it came
        self.received_digest = hashlib.sha256()
        self.looked_at = False
        self.head = b""  # uncompressed, until it tells whether the file is an archive
        self.is_archive = False

    def received(self) -> WireFile | None:
        """Return what came, where it was compressed."""
        if not self.folded:
            return self._received
        return WireFile(
            size=self.received_size,
            sha256=self.received_digest.hexdigest(),
            note=f"It came compressed ({', '.join(self.folded)}) and is sent uncompressed.",
        )
