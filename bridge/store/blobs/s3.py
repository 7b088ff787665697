"""The spool in S3: one object for each blob, its label as the object's metadata.

An upload is written to a file on this machine first, where it is validated. Only a whole report is sent to S3, and it
counts as stored once S3 has answered.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import structlog

from bridge.clock import Clock
from bridge.domain.instants import SECOND
from bridge.domain.outcomes import CorruptBody, PutOutcome, SpoolUnreadable, Stored, put_message
from bridge.errors import CorruptBlob, Unavailable, UnexpectedResponse
from bridge.protocols.s3 import ObjectListing
from bridge.store.blobs.base import ASIDE, PIECE_BYTES, Source, hour_of, is_hour, is_key, new_key, require_key
from bridge.store.blobs.metadata import BlobMetadata
from bridge.store.blobs.temp_file import TempFile, TempFolder

PROBE_KEY = "probe"  # the end of the key: each process has its own, because others may probe the same prefix
PROBE = b"The bridge checks by writing and reading this that its spool keeps reports.\n"
PROBE_SECONDS = 2.0  # health checks give up after a few
FRESH_US = 10 * SECOND  # a write that is no older shows that the spool takes reports
READ_FRESH_US = 60 * SECOND  # a read that is no older shows that it returns them
PROBE_INTERVAL_US = 2 * SECOND  # least time between two probes
RETRY_AFTER_US = 5 * SECOND  # after a failure, uploads are rejected at once for this long
RETRY_SECONDS = 15
MAX_PAGES = 10_000  # of one listing: ten million objects in one folder
CHECK_SETTINGS = "Look at store.spool, [s3] and the rights of its keys."

log = structlog.get_logger(__name__)


NEVER = -(2**62)
"""Before any time of the steady clock, which measures all intervals here, because a wall clock may be set."""


class ObjectStore(Protocol):
    """The objects below a prefix of one bucket; `client.s3.S3Bucket` is one.

    Methods that return no outcome raise Unavailable if S3 rejects the call or does not answer.
    """

    async def put(self, key: str, source: Source, *, size: int, sha256: str, metadata: Mapping[str, str]) -> PutOutcome:
        """Store `size` bytes of hex digest `sha256` under `key`, with `metadata` (ASCII, at most 2 KB)."""

    def read(self, key: str) -> AsyncGenerator[bytes]:
        """Yield the object in pieces.

        Raises:
            FileNotFoundError: S3 itself answers that there is no such key; `strerror` holds its message.
            UnexpectedResponse: The answer is neither the object nor S3's "not found".
            Unavailable: S3 does not answer, or is overloaded.
        """

    async def metadata(self, key: str) -> dict[str, str] | None:
        """Return the metadata of an object, None if there is no such object."""

    async def delete(self, key: str) -> None:
        """Remove an object, if it exists."""

    async def move(self, key: str, to: str) -> None:
        """Move the object from `key` to `to`, with its metadata."""

    async def list(self, below: str, *, following: str | None = None, folders: bool = False) -> ObjectListing:
        """Return one page of the keys that begin with `below`; with `folders`, deeper keys as one prefix each."""

    async def link(self, key: str, *, disposition: str, seconds: int) -> str:
        """Return a URL that downloads the object without credentials, saved as `disposition` (RFC 6266)."""


async def pages(objects: ObjectStore, below: str, *, folders: bool = False) -> AsyncIterator[ObjectListing]:
    """Yield all pages of a listing; raise Unavailable for one that does not end."""
    following: str | None = None
    named = set[str]()  # as next pages
    while True:
        page = await objects.list(below, following=following, folders=folders)
        yield page
        following = page.following
        if following is None:
            return
        if following in named or len(named) >= MAX_PAGES:
            raise Unavailable(
                f"The listing of {below or 'the bucket'} in S3 does not end: it names the same next page again, or "
                f"more than {MAX_PAGES} pages. It is tried again later."
            )
        named.add(following)


class S3Writer:
    """Writes one blob to S3 (`blobs.BlobWriter`)."""

    def __init__(self, spool: "S3Spool", key: str, file: TempFile) -> None:
        self._spool = spool
        self._key = key
        self._file = file
        self._sent = False
        self.path = file.path

    async def write(self, chunk: bytes) -> None:
        await self._file.write(chunk)

    async def flush(self) -> None:
        await self._file.flush()

    def read(self) -> AsyncGenerator[bytes]:
        return self._file.read()

    async def commit(self, label: BlobMetadata) -> str:
        await self._file.flush()
        self._sent = True  # from here on the object may exist, whatever the answer is
        await self._spool.keep(self._key, self._file, label)
        await self._file.discard()
        return self._key

    async def discard(self) -> None:
        await self._file.discard()
        if self._sent:
            with suppress(Unavailable):  # cleanup moves blobs without rows
                await self._spool.delete(self._key)


class S3Spool:
    """Blobs as objects (`blobs.Spool`).

    Uploads are written to `scratch` first, `now` returns the ledger's time, and messages call the spool `location`.
    """

    def __init__(
        self,
        objects: ObjectStore,
        scratch: TempFolder,
        clock: Clock,
        now: Callable[[], int] | None = None,
        *,
        location: str = "S3",
    ) -> None:
        self._objects = objects
        self._scratch = scratch
        self._clock = clock
        self._now = now or clock.now
        self._location = location
        self._unwritten: str | None = None  # why it takes no blob
        self._unread: str | None = None  # why it returns none
        self._fault_at = NEVER
        self._written_at = NEVER
        self._read_at = NEVER
        self._tried_at = NEVER
        self._probed_at = NEVER
        self._probe_key = f"{uuid.uuid4().hex}/{PROBE_KEY}"
        self._probing = asyncio.Lock()

    @property
    def folder(self) -> Path:
        return self._scratch.folder

    async def create(self, key: str | None = None) -> S3Writer:
        if self._unwritten is not None:
            if self._clock.steady() - self._fault_at < RETRY_AFTER_US:
                raise _unavailable()
            self._fault_at = self._clock.steady()  # this upload tries; the others are rejected until it has an answer
        elif not await self._proven():  # a blob that cannot be read back could never be delivered
            raise _unavailable()
        return S3Writer(self, key or new_key(self._now()), await self._scratch.create())

    async def keep(self, key: str, file: TempFile, label: BlobMetadata) -> None:
        """Send a whole blob to S3; raise Unavailable if S3 has not confirmed that it stored it."""
        outcome = await self._objects.put(
            key, file.read, size=label.sent_size, sha256=label.sent_sha256, metadata=label.metadata()
        )
        self._note(outcome)
        if not isinstance(outcome, Stored):
            await file.discard()
            raise _unavailable()

    async def read(self, key: str) -> AsyncGenerator[bytes]:
        require_key(key)
        self._fail_fast()
        try:
            async with aclosing(self._objects.read(key)) as pieces:
                async for piece in pieces:
                    self._note_read()
                    for start in range(0, len(piece), PIECE_BYTES):
                        yield piece[start : start + PIECE_BYTES]
        except (FileNotFoundError, Unavailable) as error:
            raise await self._unreadable(key, error) from error

    async def metadata(self, key: str) -> BlobMetadata:
        require_key(key)
        metadata = await self._objects.metadata(key)
        if metadata is None:
            raise self._missing(key, "404")
        return BlobMetadata.read(metadata)

    async def delete(self, key: str) -> None:
        require_key(key)
        await self._objects.delete(key)

    async def sweep_temporaries(self) -> int:
        return await self._scratch.sweep()

    async def fault(self) -> str | None:
        async with self._probing:
            now = self._clock.steady()
            written, read = now - self._written_at < FRESH_US, now - self._read_at < READ_FRESH_US
            works = self._unwritten is None and self._unread is None and written and read
            if not works and now - self._probed_at >= PROBE_INTERVAL_US:
                await self._probe()
                self._probed_at = self._clock.steady()
            return self._unwritten or self._unread

    async def hours_before(self, hour: str) -> list[str]:
        hours = [
            prefix.rstrip("/") async for page in pages(self._objects, "", folders=True) for prefix in page.prefixes
        ]
        return sorted(found for found in hours if is_hour(found) and found < hour)

    async def blobs_of(self, hour: str) -> AsyncIterator[list[str]]:
        async for page in pages(self._objects, f"{hour}/"):
            if keys := [key for key in page.keys if is_key(key)]:
                yield keys

    async def set_aside(self, key: str) -> None:
        require_key(key)
        await self._objects.move(key, f"{ASIDE}/{key.replace('/', '-')}")

    async def delete_aside(self, before: int) -> None:
        end = f"{ASIDE}/{hour_of(before)}"
        async for page in pages(self._objects, f"{ASIDE}/"):
            for key in page.keys:
                if key >= end:  # keys come in order, and begin with their hour
                    return
                await self._objects.delete(key)

    # -- whether it works ----------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Write a small object, read it back and remove it: credentials may permit only one of these."""
        key, outcome = self._probe_key, None
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                outcome = await self._objects.put(
                    key, _probe, size=len(PROBE), sha256=sha256(PROBE).hexdigest(), metadata={}
                )
                self._note(outcome)
                if isinstance(outcome, Stored):
                    await self._probe_reading(key)
        except TimeoutError:
            reason = f"no answer within {PROBE_SECONDS:.0f} seconds."
            self._fail_writing(reason) if outcome is None else self._fail_reading(reason, CHECK_SETTINGS)
        if isinstance(outcome, Stored):
            with suppress(Unavailable, TimeoutError):  # without the permission to delete, one small object stays
                async with asyncio.timeout(PROBE_SECONDS / 2):
                    await self._objects.delete(key)

    async def _probe_reading(self, key: str) -> None:
        try:
            async with aclosing(self._objects.read(key)) as pieces:
                read = b"".join([piece async for piece in pieces])
        except (FileNotFoundError, Unavailable) as error:
            self._fail_reading(*_describe(error))
            return
        if read == PROBE:
            self._note_read()
        else:
            self._fail_reading(f"{len(read)} bytes that are not those just written.", CHECK_SETTINGS)

    def _note(self, outcome: PutOutcome) -> None:
        if isinstance(outcome, Stored):
            if self._unwritten is not None:
                log.info("spool_recovered")
            self._unwritten, self._written_at = None, self._clock.steady()
        elif not isinstance(outcome, CorruptBody | SpoolUnreadable):  # those are faults of this machine, not of S3
            self._fail_writing(put_message(outcome))

    def _fail_writing(self, reason: str) -> None:
        if self._unwritten is None:
            log.warning("spool_failed", reason=reason)
        self._fault_at = self._clock.steady()
        self._unwritten = f"The spool in S3 takes no reports: {reason} {CHECK_SETTINGS}"

    def _note_read(self) -> None:
        if self._unread is not None:
            log.info("spool_read_recovered")
        self._unread, self._read_at = None, self._clock.steady()

    def _fail_reading(self, reason: str, remedy: str) -> None:
        if self._unread is None:
            log.warning("spool_read_failed", reason=reason)
        self._tried_at = self._clock.steady()
        self._unread = self._cannot_be_read(reason, remedy)

    def _cannot_be_read(self, reason: str, remedy: str) -> str:
        return f"The spool ({self._location}) cannot be read: {reason.removesuffix('.')}. {remedy}"

    async def _proven(self) -> bool:
        """Return whether blobs can be written and read. One successful read counts for READ_FRESH_US."""
        now = self._clock.steady()
        if self._unread is not None and now - self._tried_at < RETRY_AFTER_US:
            return False
        return (self._unread is None and now - self._read_at < READ_FRESH_US) or await self.fault() is None

    def _fail_fast(self) -> None:
        """Raise Unavailable at once if no blob can be read; only one reader in RETRY_AFTER_US asks S3."""
        if self._unread is None:
            return
        now = self._clock.steady()
        if now - self._tried_at < RETRY_AFTER_US:
            raise Unavailable(self._unread)
        self._tried_at = now

    async def _unreadable(self, key: str, error: FileNotFoundError | Unavailable) -> CorruptBlob | Unavailable:
        """Return what to raise for a blob that S3 did not return: CorruptBlob only if S3 returns other blobs."""
        self._read_at = NEVER  # so that `fault` probes now
        fault = await self.fault()
        reason, remedy = _describe(error)
        if fault is None and isinstance(error, FileNotFoundError):
            return self._missing(key, reason)
        if fault is None and isinstance(error, UnexpectedResponse):
            reason = f"The spool ({self._location}) answered a read of the blob {key} with {reason}"
            return CorruptBlob(f"{reason.removesuffix('.')}, while others can be read. {remedy}")
        return Unavailable(self._cannot_be_read(reason, remedy))

    def _missing(self, key: str, reason: str) -> CorruptBlob:
        return CorruptBlob(
            f"The blob {key} is not in the spool ({self._location}): {reason}. Look for it in the bucket."
        )


async def _probe() -> AsyncGenerator[bytes]:
    yield PROBE


def _unavailable() -> Unavailable:
    return Unavailable(
        "The bridge cannot reach its spool, so nothing of this upload was stored. Send it again in a while.",
        retry_after_seconds=RETRY_SECONDS,
    )


def _describe(error: FileNotFoundError | Unavailable) -> tuple[str, str]:
    """Return what came instead of an object, and what a person can check."""
    if isinstance(error, UnexpectedResponse):
        return error.received, error.remedy
    if isinstance(error, FileNotFoundError):
        return error.strerror or "404", CHECK_SETTINGS
    return str(error), CHECK_SETTINGS
