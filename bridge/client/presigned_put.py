"""PUTs bytes to a presigned URL: verifies them while they are sent, and only sends them to permitted hosts."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NoReturn

from yarl import URL

from bridge.client.session import GuardedSession, Request, Timeouts
from bridge.client.ssrf_guard import StorageUrlPolicy
from bridge.domain import outcomes
from bridge.errors import BridgeError
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.s3 import read_put, secrets_in_query, without_query

PIECE_BYTES = 256 * 1024
"""Bytes in memory are sent in pieces of this size, the fastest; one large write would copy the whole report."""

MIN_BYTES_PER_SECOND = 128 * 1024
"""A slower PUT frees its connection for others: the total timeout grows with the size by this rate."""

GRACE_SECONDS = 30.0
"""For the connection, and for the response after the last byte."""

MAX_PUT_SECONDS = 600
"""Longest PUT, whatever its size: a URL is used up once its expiry and this time have passed.

One second is subtracted because timers of the event loop may be late.
"""

STALL_SECONDS = 30.0
"""If storage does not take a piece of at most PIECE_BYTES for this long, it hangs."""

IMMEDIATE_SECONDS = 2.0

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class PresignedUploader:
    """Uploads to storage, as far as `rules` permit the host of a presigned URL.

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
    ) -> outcomes.PutOutcome:
        """PUT a report of `size` bytes with the hex digest `sha256`.

        If the bytes differ, the outcome is CorruptBody and the upload never completes; if they cannot be read now,
        SpoolUnreadable. `chunks` is closed when this returns. `signed_headers` are those that the URL was signed with;
        TestNod's has none.
        """
        if isinstance(chunks, bytes) and len(chunks) <= PIECE_BYTES:
            whole = _WholeBody(chunks, size=size, sha256=sha256)
            return await self._session.observed("put", self._put(url, whole, signed_headers))
        source = _pieces(chunks) if isinstance(chunks, bytes) else chunks
        body = _CheckedBody(source, size=size, sha256=sha256)
        try:
            return await self._session.observed("put", self._put(url, body, signed_headers))
        finally:
            await body.close()

    async def _put(
        self, url: str, body: "_CheckedBody | _WholeBody", signed_headers: Mapping[str, str]
    ) -> outcomes.PutOutcome:
        try:
            target = URL(url, encoded=True)
            rejection = self._rules.rejection(target)  # parses host and port
        except ValueError:
            rejection = "The storage URL is not a URL. TestNod must return a presigned URL."
        if rejection is not None:
            return outcomes.UrlRejected(message=rejection)
        if body.failure is not None:
            return body.failure
        request = self._request(target, body, signed_headers)
        if isinstance(body, _WholeBody):
            response = await self._session.send(request)
        else:
            try:
                # The session waits for a piece of the response only after the body: a stalled storage is detected here.
                async with asyncio.timeout(None) as deadline:
                    body.watch_stalls(deadline, self._stall_seconds)
                    response = await self._session.send(request)
            except TimeoutError:
                response = outcomes.OutcomeUnknown(message=f"storage: {without_query(url)} stopped reading the report.")
        if isinstance(response, HttpResponse) and response.status != 200:
            response = replace(response, secrets=(*response.secrets, *secrets_in_query(target.query_string)))
        return body.failure or _outcome(response, complete=body.complete)

    def _request(self, url: URL, body: "_CheckedBody | _WholeBody", signed_headers: Mapping[str, str]) -> Request:
        total_seconds = min(GRACE_SECONDS + body.size / MIN_BYTES_PER_SECOND, MAX_PUT_SECONDS - 1)
        # Any other header, especially x-amz-*, is not in the signature and makes S3 respond 403.
        headers = {"Content-Length": str(body.size), "Content-Type": "application/xml", **signed_headers}
        limits = replace(self._limits, total_seconds=total_seconds)
        content = body.content if isinstance(body, _WholeBody) else body
        return Request(method="PUT", url=url, headers=headers, body=content, limits=limits)


class _WholeBody:
    """The bytes of a small report, verified before any of them is sent."""

    complete = True

    def __init__(self, content: bytes, *, size: int, sha256: str) -> None:
        self.content = content
        self.size = size
        self.failure: outcomes.CorruptBody | None = None
        digest = hashlib.sha256(content).hexdigest()
        if (len(content), digest) != (size, sha256):
            self.failure = outcomes.body_differs(len(content), digest, accepted_size=size, accepted_sha256=sha256)


class _CheckedBody:
    """The pieces of a report, one piece behind the source: the last is sent only after all bytes are verified."""

    def __init__(self, source: AsyncIterator[bytes], *, size: int, sha256: str) -> None:
        self.size = size
        self.failure: outcomes.CorruptBody | outcomes.SpoolUnreadable | None = None
        self.complete = False  # all bytes were verified and passed on
        self._source = source
        self._sha256 = sha256
        self._digest = hashlib.sha256()
        self._read_bytes = 0
        self._buffer = b""
        self._lock = asyncio.Lock()  # the session may still be reading when the call is canceled
        self._closed = False
        self._deadline: asyncio.Timeout | None = None
        self._stall_seconds = STALL_SECONDS

    def watch_stalls(self, deadline: asyncio.Timeout, stall_seconds: float) -> None:
        """Move `deadline` by `stall_seconds` whenever a piece is taken; stop it after the last."""
        self._deadline = deadline
        self._stall_seconds = stall_seconds

    def __aiter__(self) -> "_CheckedBody":
        return self

    async def __anext__(self) -> bytes:
        async with self._lock:
            if self._closed:
                raise _Aborted
            self._set_stall_deadline(None)  # storage has taken all so far; now the source is timed
            piece = await self._next()
            if not piece:
                raise StopAsyncIteration
            self._set_stall_deadline(self._stall_seconds)
        return piece

    async def close(self) -> None:
        """Wait until nothing reads from the source any more, then close it."""
        async with self._lock:
            self._closed = True
            if isinstance(self._source, AsyncGenerator):
                await self._source.aclose()

    async def _next(self) -> bytes:
        while piece := await self._read():
            piece, self._buffer = self._buffer, piece
            if piece:
                return piece
        if self._read_bytes != self.size or self._digest.hexdigest() != self._sha256:
            self._fail(
                outcomes.body_differs(
                    self._read_bytes, self._digest.hexdigest(), accepted_size=self.size, accepted_sha256=self._sha256
                )
            )
        self.complete = True
        piece, self._buffer = self._buffer, b""
        return piece

    async def _read(self) -> bytes:
        """Return the next non-empty piece of the source, counted and hashed; empty at its end."""
        try:
            piece = b""
            while not piece:
                piece = await anext(self._source)
        except StopAsyncIteration:
            return b""
        except (BridgeError, OSError) as error:
            self._fail(outcomes.read_failure(error))
        self._read_bytes += len(piece)
        if self._read_bytes > self.size:
            self._fail(outcomes.body_too_long(self.size))
        self._digest.update(piece)
        return piece

    def _fail(self, failure: outcomes.CorruptBody | outcomes.SpoolUnreadable) -> NoReturn:
        self.failure = failure
        raise _Aborted

    def _set_stall_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)


async def retry_immediate_failures(
    put: Callable[[], Awaitable[outcomes.PutOutcome]], *, tries: int
) -> outcomes.PutOutcome:
    """Repeat an idempotent PUT until it gets a response, at most `tries` times.

    Only a PUT that fails at once is repeated: S3 closes idle connections. One that hung would hang again.
    """
    now = asyncio.get_running_loop().time
    began_at = now()
    outcome = await put()
    for _ in range(tries - 1):
        if not isinstance(outcome, outcomes.OutcomeUnknown | outcomes.NotSent) or now() - began_at > IMMEDIATE_SECONDS:
            break
        outcome = await put()
    return outcome


class _Aborted(Exception):
    """Ends the body before its Content-Length, so that storage discards it."""


async def _pieces(report: bytes) -> AsyncGenerator[bytes]:
    for start in range(0, len(report), PIECE_BYTES):
        yield report[start : start + PIECE_BYTES]


def _outcome(
    response: HttpResponse | outcomes.NotSent | outcomes.OutcomeUnknown, *, complete: bool
) -> outcomes.PutOutcome:
    if not isinstance(response, HttpResponse):
        return response
    if response.status == 200 and not complete:
        return outcomes.OutcomeUnknown(status=200, message="storage: HTTP 200 came before the whole report was sent.")
    return read_put(response)
