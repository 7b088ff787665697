"""Files what stands in an archive: each inner file for itself, what is no report passed over.

It knows neither how the archive came in nor how one is written.
"""

from contextlib import aclosing
from pathlib import Path

from bridge.errors import BadReport
from bridge.server.compression.archives import ArchiveLimits, Event, SkippedFile, inner_files
from bridge.server.http.responses import escape_for_display
from bridge.server.upload.file_buffer import FileBuffer
from bridge.server.upload.file_store import UploadFileStore
from bridge.server.upload.limits import UploadBudget, UploadLimits


class ArchiveExtractor:
    """Takes the archives of one upload, one after the other."""

    def __init__(self, filing: UploadFileStore, limits: UploadLimits) -> None:
        self._filing = filing
        self._bounds = ArchiveLimits(max_files=limits.max_files, max_bytes=limits.max_request_size)
        self._bytes = UploadBudget(limits.max_request_size, "unpacked bytes")
        self._files = UploadBudget(limits.max_files, "packed files")
        self._name = ""
        self._held: FileBuffer | None = None

    async def unpack(self, path: Path, name: str) -> None:
        """File all that stands in the archive at `path`.

        Raise a CallerError where the archive itself cannot be taken: what was filed until then stays. Raise
        Unavailable as `UploadFileStore.file` does, and where the disk fails.
        """
        filing = self._filing
        before = len(filing.reports) + len(filing.refusals)
        try:
            async with aclosing(inner_files(path, name=name, bounds=self._bounds)) as events:
                async for event in events:
                    await self._take(event, name)
        finally:
            await self._drop()
        if len(filing.reports) + len(filing.refusals) == before:
            found = f"{escape_for_display(name)} holds no JUnit report"
            raise BadReport(f"{found}. Pack the files whose root is testsuites or testsuite.")

    async def _take(self, event: Event, archive: str) -> None:
        if isinstance(event, bytes):
            self._bytes.take(len(event), archive)
            if self._held is not None:
                await self._held.write(event)
        elif event is None:
            await self._end()
        else:
            self._files.take(1, archive)
            if isinstance(event, str):
                self._name, self._held = event, self._filing.open()
            elif isinstance(event, SkippedFile):
                self._filing.unlike += 1
            else:
                self._filing.refusals.append(event)

    async def _end(self) -> None:
        if self._held is not None:
            await self._filing.file(self._name, self._held, in_archive=True)
        await self._drop()

    async def _drop(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            await held.discard()
