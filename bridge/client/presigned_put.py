"""The PUT of bytes to a presigned URL, TestNod's or ours: checked while they are sent, and only to where they may go.

It knows neither registrations nor tokens nor who signed the URL.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NoReturn

from yarl import URL

from bridge.client.session import GuardedSession, Request, Timeouts
from bridge.client.ssrf_guard import StorageUrlPolicy
from bridge.domain.outcomes import (
    CorruptBody,
    NotSent,
    OutcomeUnknown,
    PutOutcome,
    SpoolUnreadable,
    UrlRejected,
    body_differs,
    body_too_long,
    read_failure,
)
from bridge.errors import BridgeError
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.s3 import read_put, without_query

PIECE_BYTES = 256 * 1024
"""Bytes at hand are sent in pieces of this size: fastest, and one large write would copy the whole report."""

MIN_BYTES_PER_SECOND = 128 * 1024
"""A PUT slower than this gives its place to others: the total deadline grows with the size by this rate."""

GRACE_SECONDS = 30.0
"""For the connection, and for storage to answer after the last byte."""

MAX_PUT_SECONDS = 600
"""How long a PUT may last at most, whatever its size: a URL is spent only after its expiry and this have passed.
One second of it is kept for aiohttp, which rounds its time limits up."""

STALL_SECONDS = 30.0
"""A storage that takes no piece of at most PIECE_BYTES for this long hangs."""

AT_ONCE_SECONDS = 2.0

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class PresignedUploader:
    """Storage as far as `rules` let a presigned URL lead.

    `session` must be made with `public_only` unless private storage is allowed.
    """

    def __init__(
        self,
        session: GuardedSession,
        rules: StorageUrlPolicy,
        *,
        stall_seconds: float = STALL_SECONDS,
        limits: Timeouts | None = None,
    ) -> None:
        self._session = session
        self._rules = rules
        self._stall_seconds = stall_seconds
        self._limits = limits or Timeouts()

    async def put(
        self,
        url: str,
        chunks: AsyncIterator[bytes] | bytes,
        *,
        size: int,
        sha256: str,
        signed_headers: Mapping[str, str] = NO_HEADERS,
    ) -> PutOutcome:
        """PUT a report of `size` bytes and hex digest `sha256`; Damaged, and never complete, when it is another.

        `chunks` is closed when this returns. If it cannot be read now the outcome is SpoolUnreadable.
        `signed_headers` are those that the URL was signed with; TestNod's has none.
        """
        source = _pieces(chunks) if isinstance(chunks, bytes) else chunks
        body = _CheckedBody(source, size=size, sha256=sha256)
        try:
            return await self._session.observed("put", self._put(url, body, signed_headers))
        finally:
            await body.close()

    async def _put(self, url: str, body: "_CheckedBody", signed_headers: Mapping[str, str]) -> PutOutcome:
        try:
            target = URL(url, encoded=True)
            refusal = self._rules.refusal(target)  # here the host is read, and the port with it
        except ValueError:
            refusal = "The storage URL cannot be read. TestNod must hand out a URL."
        if refusal is not None:
            return UrlRejected(message=refusal)
        try:
            # Limits of the answer do not run while the body is written: a storage that takes nothing is timed here.
            async with asyncio.timeout(None) as patience:
                body.watched_by(patience, self._stall_seconds)
                answer = await self._session.send(self._request(target, body, signed_headers))
        except TimeoutError:
            answer = OutcomeUnknown(message=f"storage: {without_query(url)} takes no more bytes.")
        return body.failure or _outcome(answer, complete=body.complete)

    def _request(self, url: URL, body: "_CheckedBody", signed_headers: Mapping[str, str]) -> Request:
        total_seconds = min(GRACE_SECONDS + body.size / MIN_BYTES_PER_SECOND, MAX_PUT_SECONDS - 1)
        # Any other header, above all one of x-amz-*, is not in the signature and makes S3 answer 403.
        headers = {"Content-Length": str(body.size), "Content-Type": "application/xml", **signed_headers}
        limits = replace(self._limits, total_seconds=total_seconds)
        return Request(method="PUT", url=url, headers=headers, body=body, limits=limits)


class _CheckedBody:
    """The pieces of a report, one piece behind its source: the last one goes out only when all have been checked."""

    def __init__(self, source: AsyncIterator[bytes], *, size: int, sha256: str) -> None:
        self.size = size
        self.failure: CorruptBody | SpoolUnreadable | None = None
        self.complete = False  # all of it was checked and handed over
        self._source = source
        self._sha256 = sha256
        self._digest = hashlib.sha256()
        self._read_bytes = 0
        self._held = b""
        self._turn = asyncio.Lock()  # aiohttp may still be reading when the call has ended
        self._closed = False
        self._patience: asyncio.Timeout | None = None
        self._stall_seconds = STALL_SECONDS

    def watched_by(self, patience: asyncio.Timeout, stall_seconds: float) -> None:
        """Push `patience` on by `stall_seconds` whenever a piece is taken, and stop it with the last."""
        self._patience = patience
        self._stall_seconds = stall_seconds

    def __aiter__(self) -> "_CheckedBody":
        return self

    async def __anext__(self) -> bytes:
        async with self._turn:
            if self._closed:
                raise _Aborted
            self._wait_for_storage(None)  # it has taken all so far: the time until the next piece is the source's
            piece = await self._next()
            if not piece:
                raise StopAsyncIteration
            self._wait_for_storage(self._stall_seconds)
        return piece

    async def close(self) -> None:
        """Wait until nobody reads any more, then close the source."""
        async with self._turn:
            self._closed = True
            if isinstance(self._source, AsyncGenerator):
                await self._source.aclose()

    async def _next(self) -> bytes:
        while piece := await self._read():
            piece, self._held = self._held, piece
            if piece:
                return piece
        if self._read_bytes != self.size or self._digest.hexdigest() != self._sha256:
            self._abort(
                body_differs(
                    self._read_bytes, self._digest.hexdigest(), accepted_size=self.size, accepted_sha256=self._sha256
                )
            )
        self.complete = True
        piece, self._held = self._held, b""
        return piece

    async def _read(self) -> bytes:
        """Return the next piece of the source that holds anything, counted and digested; nothing at its end."""
        try:
            piece = b""
            while not piece:
                piece = await anext(self._source)
        except StopAsyncIteration:
            return b""
        except (BridgeError, OSError) as error:
            self._abort(read_failure(error))
        self._read_bytes += len(piece)
        if self._read_bytes > self.size:
            self._abort(body_too_long(self.size))
        self._digest.update(piece)
        return piece

    def _abort(self, failure: CorruptBody | SpoolUnreadable) -> NoReturn:
        self.failure = failure
        raise _Aborted

    def _wait_for_storage(self, seconds: float | None) -> None:
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)


async def retry_immediate_failures(put: Callable[[], Awaitable[PutOutcome]], *, tries: int) -> PutOutcome:
    """Make a PUT that may be made twice without harm until it is answered, at most `tries` times.

    Only one that fails at once is made again: S3 closes connections that were idle. One that hung would hang again.
    """
    now = asyncio.get_running_loop().time
    began_at = now()
    outcome = await put()
    for _ in range(tries - 1):
        if not isinstance(outcome, OutcomeUnknown | NotSent) or now() - began_at > AT_ONCE_SECONDS:
            break
        outcome = await put()
    return outcome


class _Aborted(Exception):
    """The body ends here, short of its Content-Length, so that storage keeps nothing of it."""


async def _pieces(report: bytes) -> AsyncGenerator[bytes]:
    for start in range(0, len(report), PIECE_BYTES):
        yield report[start : start + PIECE_BYTES]


def _outcome(answer: HttpResponse | NotSent | OutcomeUnknown, *, complete: bool) -> PutOutcome:
    if not isinstance(answer, HttpResponse):
        return answer
    if answer.status == 200 and not complete:
        return OutcomeUnknown(status=200, message="storage: HTTP 200 came before the whole report had been sent.")
    return read_put(answer)
