"""The archive in S3: each copy is an object, described by its metadata.

Old days are found prefix by prefix, so that the whole bucket is never listed.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from bridge.domain.outcomes import PutOutcome
from bridge.store.archive.base import DAY, LINK_SECONDS, ArchiveEntry
from bridge.store.blobs.base import PIECE_BYTES, Source
from bridge.store.blobs.s3 import ObjectStore, pages

DELETE_CONCURRENCY = 16  # concurrently: a day of reports is deleted within its minute, without flooding the bucket


class S3Archive:
    """Copies as objects (`archive.Archive`)."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def keep(self, entry: ArchiveEntry, source: Source) -> PutOutcome:
        return await self._objects.put(
            entry.key, source, size=entry.sent_size, sha256=entry.sent_sha256, metadata=entry.metadata()
        )

    async def find_copy(self, key: str, *, disposition: str) -> str | None:
        if await self._objects.metadata(key) is None:
            return None
        return await self._objects.link(key, disposition=disposition, seconds=LINK_SECONDS)

    async def read(self, key: str) -> AsyncGenerator[bytes]:
        async with aclosing(self._objects.read(key)) as pieces:
            async for piece in pieces:
                for start in range(0, len(piece), PIECE_BYTES):
                    yield piece[start : start + PIECE_BYTES]

    async def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), DELETE_CONCURRENCY):
            async with asyncio.TaskGroup() as tasks:
                for key in keys[start : start + DELETE_CONCURRENCY]:
                    tasks.create_task(self._objects.delete(key))

    async def delete_before(self, day: str, *, limit: int) -> int:
        gone = 0
        async for keys in self._copies_before(day):
            await self.delete(keys[: limit - gone])
            gone += len(keys[: limit - gone])
            if gone >= limit:
                break
        return gone

    async def _copies_before(self, day: str) -> AsyncIterator[Sequence[str]]:
        """Yield the keys of days before `day`, oldest first, a page at a time."""
        for year in await self._folders("", day):
            for month in await self._folders(year, day):
                for old in await self._folders(month, day):
                    if DAY.fullmatch(old.rstrip("/")) and old < day:
                        while keys := (await self._objects.list(old)).keys:  # the last page is deleted by then
                            yield keys

    async def _folders(self, below: str, day: str) -> list[str]:
        """Return the prefixes below `below` that may contain days before `day`."""
        found = [prefix async for page in pages(self._objects, below, folders=True) for prefix in page.prefixes]
        return [prefix for prefix in found if prefix.rstrip("/") <= day[: len(prefix.rstrip("/"))]]
