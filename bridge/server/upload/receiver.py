"""Receive the files of one upload: decompress, buffer and unpack them, and add each complete file to the store.

A file is never completely in memory unless it is small.
"""

import asyncio
import hashlib
from contextlib import aclosing

from bridge.domain.text_format import escape_for_display
from bridge.errors import BadReport, CallerError
from bridge.server.compression.archives import (
    HEAD_BYTES,
    ArchiveBudget,
    Budget,
    SkippedFile,
    archive_events,
    is_archive,
)
from bridge.server.compression.codecs import MAGIC_BYTES, ContentCoding, content_coding_of, content_codings
from bridge.server.compression.decompress import DecompressionPipeline, MemoryShare
from bridge.server.compression.transfer_encoding import TransferDecoder, transfer_decoder
from bridge.server.upload.file_store import FileBuffer, ReceivedFile, UploadFileStore, UploadLimits
from bridge.server.upload.multipart_form import FileStart
from bridge.server.validation.messages import FileDigest


class FileReceiver:
    """Receives files one after the other with `start`, `write` and `end`; after an error, call `discard`.

    A file with a fault is rejected in the store, and the rest of it is ignored. `write` and `end` raise Unavailable if
    the spool does, or if there is not enough memory left for `share`.
    """

    def __init__(self, store: UploadFileStore, limits: UploadLimits, share: MemoryShare | None = None) -> None:
        self._store = store
        self._share = share
        self._max_size = limits.max_request_size
        self._decompressed = Budget(limits.max_request_size, "decompressed bytes")
        self._archives = ArchiveBudget(max_files=limits.max_files, max_bytes=limits.max_request_size)
        self._file: _IncomingFile | None = None
        self._ended = 0  # files

    def start(self, start: FileStart, *, received: FileDigest | None = None) -> None:
        """Start the next file; `received` is the digest of the bytes as received, if these are others."""
        name = escape_for_display(start.name)
        try:
            transfer = transfer_decoder(start.transfer_encoding, what=name)
            codings = content_codings(start.content_encoding) if start.content_encoding else ()
        except CallerError as error:
            self._store.reject(start.name, f"{name}: {error}", error.code)
            return
        self._file = _IncomingFile(start.name, self._store.new_buffer(), codings, received, transfer)

    async def write(self, chunk: bytes) -> None:
        """Receive the next bytes of the file."""
        file = self._file
        if file is None:
            return
        try:
            await self._receive(file, file.transfer.feed(chunk) if file.transfer else chunk)
        except CallerError as error:
            self._store.reject(file.name, str(error), error.code)
            await self._discard_file()

    async def end(self) -> None:
        """Add the file, or the reports in it if it is an archive, to the store."""
        file = self._file
        if file is None:
            return
        try:
            await self._finish(file)
        except CallerError as error:
            if file.is_archive and isinstance(error, BadReport):
                await self._store.quarantine(file.received_file(), str(error), error.code)
            else:
                self._store.reject(file.name, str(error), error.code)
        await self._discard_file()
        self._ended += 1
        if self._ended > 1:
            await asyncio.sleep(0)  # an upload may have thousands of files: let other tasks run after each

    async def discard(self) -> None:
        """Delete the bytes of the current file and of all files in the store."""
        await self._discard_file()
        await self._store.discard()

    async def _receive(self, file: "_IncomingFile", chunk: bytes) -> None:
        """Receive bytes as they are without Content-Transfer-Encoding: that encoding does not make another report."""
        if file.coding_detected:
            await self._decompress(file, chunk)
        else:
            file.start += chunk
            if len(file.start) >= MAGIC_BYTES:
                await self._detect_coding(file)

    async def _detect_coding(self, file: "_IncomingFile") -> None:
        start, file.start, file.coding_detected = file.start, b"", True
        if not file.codings and (coding := content_coding_of(start)) is not None:
            file.codings = (coding,)
        if file.codings:
            file.received_sha256 = hashlib.sha256()
            file.decompressor = DecompressionPipeline(
                file.codings, what=escape_for_display(file.name), max_bytes=self._max_size, share=self._share
            )
        await self._decompress(file, start)

    async def _decompress(self, file: "_IncomingFile", chunk: bytes) -> None:
        if file.decompressor is None:
            await self._buffer(file, chunk)
            return
        if file.buffer.is_too_large():  # it is rejected anyway
            return
        file.received_size += len(chunk)
        file.received_sha256.update(chunk)
        for piece in file.decompressor.feed(chunk):
            self._decompressed.take(len(piece), file.name)
            await self._buffer(file, piece)
            if file.buffer.is_too_large():
                return
            await asyncio.sleep(0)  # each piece took some time

    async def _buffer(self, file: "_IncomingFile", piece: bytes) -> None:
        if not file.archive_detected:
            file.head += piece[: HEAD_BYTES - len(file.head)]
            if len(file.head) == HEAD_BYTES:
                await self._detect_archive(file)
        await file.buffer.write(piece)

    async def _detect_archive(self, file: "_IncomingFile") -> None:
        file.archive_detected = True
        if is_archive(file.head):
            file.is_archive = True
            file.buffer.max_size = self._max_size
            if file.buffer.in_memory:  # archives are read from the disk, whatever their size
                await file.buffer.move_to_spool()

    async def _finish(self, file: "_IncomingFile") -> None:
        if file.transfer is not None:
            await self._receive(file, file.transfer.close())
        if not file.coding_detected:
            await self._detect_coding(file)
        if file.decompressor is not None and not file.buffer.is_too_large():
            file.decompressor.close()
            file.decompressor.free()
        if not file.archive_detected:
            await self._detect_archive(file)
        if file.is_archive:
            await self._unpack(file)
        else:
            await self._store.add(file.received_file())

    async def _unpack(self, archive: "_IncomingFile") -> None:
        """Add each report in the archive; if the archive has a fault, those before it stay added."""
        store = self._store
        before = len(store.reports) + len(store.rejections)
        name, buffer = "", store.new_buffer()
        path = await archive.buffer.path()
        try:
            async with aclosing(archive_events(path, name=archive.name, budget=self._archives)) as events:
                async for event in events:
                    if isinstance(event, bytes):
                        await buffer.write(event)
                    elif event is None:
                        digest = buffer.digest()
                        await store.add(
                            ReceivedFile(name=name, buffer=buffer, content=digest, received=digest, in_archive=True)
                        )
                        await buffer.discard()
                    elif isinstance(event, str):
                        name, buffer = event, store.new_buffer()
                    elif isinstance(event, SkippedFile):
                        store.skipped_non_xml += 1
                    else:
                        store.rejections.append(event)
        finally:
            await buffer.discard()
        if len(store.reports) + len(store.rejections) == before:
            found = f"{escape_for_display(archive.name)} contains no JUnit report."
            raise BadReport(f"{found} Pack the files whose root element is testsuites or testsuite.")

    async def _discard_file(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        if file.decompressor is not None:
            file.decompressor.free()
        await file.buffer.discard()


class _IncomingFile:
    """The current file, and what was detected of it so far."""

    received_sha256: "hashlib._Hash"  # of a compressed file

    def __init__(
        self,
        name: str,
        buffer: FileBuffer,
        codings: tuple[ContentCoding, ...],
        received: FileDigest | None,
        transfer: TransferDecoder | None,
    ) -> None:
        self.name = name
        self.buffer = buffer
        self.codings = codings
        self.transfer = transfer
        self._received = received
        self.coding_detected = False
        self.start = b""  # until the coding is detected
        self.decompressor: DecompressionPipeline | None = None
        self.received_size = 0  # of a compressed file
        self.archive_detected = False
        self.head = b""  # uncompressed, until it is known whether this is an archive
        self.is_archive = False

    def received_file(self) -> ReceivedFile:
        """Return the complete file."""
        content, note = self.buffer.digest(), ""
        received = self._received or content
        if self.codings:
            received = FileDigest(self.received_size, self.received_sha256.hexdigest())
            note = f"It was received compressed ({', '.join(self.codings)}) and is sent uncompressed."
        return ReceivedFile(name=self.name, buffer=self.buffer, content=content, received=received, note=note)
