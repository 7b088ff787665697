"""The spool in S3: one object for each blob, its label as the object's metadata.

It knows neither reports nor the ledger. An upload comes into a file on this machine first, where it is checked; only a
whole report is sent on, and "kept" is said when S3 has answered.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import structlog

from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.domain.outcomes import Damaged, PutOutcome, Stored, put_message
from bridge.errors import DamagedBlob, Unavailable
from bridge.protocols.s3_documents import Listing
from bridge.store.spools.blobs import ASIDE, PIECE_BYTES, hour_of, is_hour, is_key, new_key, require_key
from bridge.store.spools.growing import GrowingFile
from bridge.store.spools.labels import Label
from bridge.store.spools.objects import Objects
from bridge.store.spools.scratch import Scratch

PROBE_KEY = "probe"
PROBE = b"The bridge sees by writing this whether its spool takes reports.\n"
PROBE_SECONDS = 2.0  # health checks give up after a few
FRESH_US = 10 * SECOND  # what was written so long ago shows that the spool works
LOOK_AGAIN_US = 2 * SECOND  # between two probes, however often somebody asks
SPARED_US = 5 * SECOND  # after a failure uploads are refused at once for so long: none waits for a time limit in vain
RETRY_SECONDS = 15

log = structlog.get_logger(__name__)


class S3Writer:
    """One blob on its way to S3 (`blobs.BlobWriter`)."""

    def __init__(self, spool: "S3Spool", key: str, file: GrowingFile) -> None:
        self._spool = spool
        self._key = key
        self._file = file
        self._sent = False
        self.path = file.path

    async def write(self, chunk: bytes) -> None:
        await self._file.write(chunk)

    async def flush(self) -> None:
        await self._file.flush()

    async def commit(self, label: Label) -> str:
        await self._file.flush()
        self._sent = True  # from here on it may be there, whatever the answer is
        await self._spool.keep(self._key, self._file, label)
        await self._file.discard()
        return self._key

    async def discard(self) -> None:
        await self._file.discard()
        if self._sent:
            with suppress(Unavailable):  # the janitor finds blobs without rows
                await self._spool.delete(self._key)


class S3Spool:
    """Blobs as objects (`blobs.Spool`); `scratch` is where uploads come in. `now` returns the ledger's time."""

    def __init__(self, objects: Objects, scratch: Scratch, clock: Clock, now: Callable[[], int] | None = None) -> None:
        self._objects = objects
        self._scratch = scratch
        self._clock = clock
        self._now = now or clock.now
        self._fault: str | None = None
        self._fault_at = 0
        self._kept_at = 0
        self._probed_at = 0
        self._probing = asyncio.Lock()

    @property
    def folder(self) -> Path:
        return self._scratch.folder

    async def create(self) -> S3Writer:
        if self._fault is not None:
            if self._clock.now() - self._fault_at < SPARED_US:
                raise _unavailable()
            self._fault_at = self._clock.now()  # this one tries; the others are spared until it has been answered
        return S3Writer(self, new_key(self._now()), await self._scratch.create())

    async def keep(self, key: str, file: GrowingFile, label: Label) -> None:
        """Send a whole blob to S3; raise Unavailable where S3 has not said that it keeps it."""
        outcome = await self._objects.put(
            key, file.read, size=label.sent_size, sha256=label.sent_sha256, metadata=label.metadata()
        )
        self._note(outcome)
        if not isinstance(outcome, Stored):
            await file.discard()
            raise _unavailable()

    async def read(self, key: str) -> AsyncGenerator[bytes]:
        require_key(key)
        try:
            async for piece in self._objects.read(key):
                for start in range(0, len(piece), PIECE_BYTES):
                    yield piece[start : start + PIECE_BYTES]
        except FileNotFoundError as error:
            raise _missing(key) from error

    async def label(self, key: str) -> Label:
        require_key(key)
        metadata = await self._objects.metadata(key)
        if metadata is None:
            raise _missing(key)
        return Label.read(metadata)

    async def delete(self, key: str) -> None:
        require_key(key)
        await self._objects.delete(key)

    async def sweep_temporaries(self) -> int:
        return await self._scratch.sweep()

    async def fault(self) -> str | None:
        async with self._probing:
            now = self._clock.now()
            works = self._fault is None and now - self._kept_at < FRESH_US
            if not works and now - self._probed_at >= LOOK_AGAIN_US:
                self._probed_at = now
                await self._probe()
            return self._fault

    async def hours_before(self, hour: str) -> list[str]:
        hours = [prefix.rstrip("/") async for page in self._pages("", folders=True) for prefix in page.prefixes]
        return sorted(found for found in hours if is_hour(found) and found < hour)

    async def blobs_of(self, hour: str) -> AsyncIterator[list[str]]:
        async for page in self._pages(f"{hour}/"):
            if keys := [key for key in page.keys if is_key(key)]:
                yield keys

    async def set_aside(self, key: str) -> None:
        require_key(key)
        await self._objects.move(key, f"{ASIDE}/{key.replace('/', '-')}")

    async def forget_aside(self, before: int) -> None:
        end = f"{ASIDE}/{hour_of(before)}"
        async for page in self._pages(f"{ASIDE}/"):
            for key in page.keys:
                if key >= end:  # keys come in order, and begin with their hour
                    return
                await self._objects.delete(key)

    async def _pages(self, below: str, *, folders: bool = False) -> AsyncIterator[Listing]:
        page = await self._objects.list(below, folders=folders)
        yield page
        while page.following is not None:
            page = await self._objects.list(below, following=page.following, folders=folders)
            yield page

    async def _probe(self) -> None:
        """Write something small: reading would not show that reports are taken."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                outcome = await self._objects.put(
                    PROBE_KEY, _probe, size=len(PROBE), sha256=sha256(PROBE).hexdigest(), metadata={}
                )
        except TimeoutError:
            self._fail(f"no answer within {PROBE_SECONDS:.0f} seconds.")
        else:
            self._note(outcome)

    def _note(self, outcome: PutOutcome) -> None:
        if isinstance(outcome, Stored):
            if self._fault is not None:
                log.info("the spool in S3 takes reports again")
            self._fault, self._kept_at = None, self._clock.now()
        elif not isinstance(outcome, Damaged):  # that is this machine's own doing
            self._fail(put_message(outcome))

    def _fail(self, said: str) -> None:
        if self._fault is None:
            log.warning("the spool in S3 takes no reports", reason=said)
        self._fault_at = self._clock.now()
        self._fault = f"The spool in S3 takes no reports: {said} Look at store.spool, [s3] and the rights of its keys."


async def _probe() -> AsyncGenerator[bytes]:
    yield PROBE


def _unavailable() -> Unavailable:
    return Unavailable(
        "The bridge cannot reach its spool, so nothing of this upload was kept. Send it again in a while.",
        retry_after_seconds=RETRY_SECONDS,
    )


def _missing(key: str) -> DamagedBlob:
    return DamagedBlob(f"The blob {key} is not in the spool. Upload the report again.")
