"""The bridge's own bucket, below a prefix: objects are kept, read, listed, moved and removed by presigned URLs.

It knows neither spool nor archive, nor how a URL is signed. What is asked here may be asked twice without harm, so
every call that fails at once is made once more: S3 closes connections that were idle.
"""

import asyncio
import errno
from collections.abc import AsyncGenerator, Callable, Mapping

from yarl import URL

from bridge.client.multipart import MULTIPART_BYTES, PartedPut
from bridge.client.presigned_put import AT_ONCE_SECONDS, NO_HEADERS, PresignedUploader, retry_immediate_failures
from bridge.client.session import MAX_ANSWER_BYTES, GuardedSession, Request, Timeouts
from bridge.client.signer import Signer
from bridge.domain.outcomes import OutcomeUnknown, PutOutcome
from bridge.errors import Unavailable, UnexpectedResponse
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.s3_documents import (
    LISTED_KEYS,
    LOOK_BETWEEN,
    Failed,
    Listing,
    Missing,
    Odd,
    Piece,
    read_listing,
    read_piece,
    refusal,
)

RANGE_BYTES = 1024 * 1024
"""Read at once. A report is read in ranges, so that a slow reader holds no connection open that S3 would cut."""

READ_LIMITS = Timeouts(connect_seconds=5.0, read_seconds=5.0, total_seconds=8.0)
"""For one range: S3 answers in a tenth of a second. The whole range in 8 seconds is the least rate of a PUT
(`storage.MIN_BYTES_PER_SECOND`), so a slow spool never uses up the time of the storage that gets the report."""

TRIES = 2
METADATA = "x-amz-meta-"

Source = Callable[[], AsyncGenerator[bytes]]
"""Opens the bytes anew for each try."""


class Bucket:
    """One bucket; all keys are below `prefix`, which is empty or ends in a slash.

    Methods that return no outcome raise Unavailable where S3 refuses or does not answer.
    """

    def __init__(
        self, signer: Signer, storage: PresignedUploader, session: GuardedSession, *, bucket: str, prefix: str
    ) -> None:
        self._signer = signer
        self._storage = storage
        self._session = session
        self._bucket = bucket
        self._prefix = prefix

    async def put(self, key: str, source: Source, *, size: int, sha256: str, metadata: Mapping[str, str]) -> PutOutcome:
        """Keep `size` bytes of hex digest `sha256` under `key`, with `metadata` (ASCII, at most 2 KB) beside them."""
        try:
            if size > MULTIPART_BYTES:
                parted = PartedPut(self._signer, self._storage, self._session, self._place(key))
                return await parted.put(source(), size=size, sha256=sha256, metadata=metadata)
            return await self._put(key, source, size=size, sha256=sha256, metadata=metadata)
        except Unavailable as error:
            return OutcomeUnknown(message=str(error))

    async def read(self, key: str) -> AsyncGenerator[bytes]:
        """Yield the object in pieces of at most RANGE_BYTES.

        Raises:
            FileNotFoundError: S3 itself says that there is no such key.
            OddAnswer: The answer is neither the object nor says that it is missing.
            Unavailable: S3 does not answer, or is overloaded.
        """
        url = await self._signer.sign("get_object", self._place(key))
        offset, total = 0, None
        while total is None or offset < total:
            piece = await self._read_piece(url, key, offset)
            if total not in (None, piece.total):
                raise UnexpectedResponse(f"an object of {total} bytes that then had {piece.total}", LOOK_BETWEEN)
            total = piece.total
            offset += len(piece.body)
            if piece.body:
                yield piece.body

    async def metadata(self, key: str) -> dict[str, str] | None:
        """Return what stands beside an object, None where it is not there."""
        answer = await self._send("head", "HEAD", await self._signer.sign("head_object", self._place(key)))
        if answer.status == 404:
            return None
        self._require(answer, 200, what="tell of an object")
        headers = answer.headers.items()
        return {name.removeprefix(METADATA): value for name, value in headers if name.startswith(METADATA)}

    async def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        url = await self._signer.sign("delete_object", self._place(key))
        self._require(await self._send("delete", "DELETE", url), 200, 204, 404, what="remove an object")

    async def move(self, key: str, to: str) -> None:
        """Let what is kept under `key` be kept under `to` instead, with its metadata."""
        source = {"Bucket": self._bucket, "Key": self._prefix + key}
        url = await self._signer.sign("copy_object", {**self._place(to), "CopySource": source})
        headers = {"x-amz-copy-source": f"{self._bucket}/{self._prefix}{key}"}
        self._require(await self._send("copy", "PUT", url, headers=headers), 200, what="move an object")
        await self.delete(key)

    async def list(self, below: str, *, following: str | None = None, folders: bool = False) -> Listing:
        """Return one page of the keys that begin with `below`, in order.

        With `folders`, what lies deeper than the next slash is told as one prefix.
        """
        asked: dict[str, object] = {"Bucket": self._bucket, "Prefix": self._prefix + below, "MaxKeys": LISTED_KEYS}
        if folders:
            asked["Delimiter"] = "/"
        if following is not None:
            asked["ContinuationToken"] = following
        url = await self._signer.sign("list_objects_v2", asked)
        answer = await self._send("list", "GET", url)
        listing = read_listing(answer)
        if listing is None:
            raise Unavailable(f"S3 did not list its bucket: {refusal(answer)}. It is tried again later.")
        return Listing(
            keys=tuple(key.removeprefix(self._prefix) for key in listing.keys),
            prefixes=tuple(prefix.removeprefix(self._prefix) for prefix in listing.prefixes),
            following=listing.following,
        )

    async def link(self, key: str, *, disposition: str, seconds: int) -> str:
        """Return a URL by which anybody can download the object for `seconds`, as `disposition` (RFC 6266) says."""
        shown = {"ResponseContentDisposition": disposition, "ResponseContentType": "application/octet-stream"}
        return await self._signer.sign("get_object", {**self._place(key), **shown}, seconds=seconds)

    async def _read_piece(self, url: str, key: str, offset: int) -> Piece:
        asked = {"Range": f"bytes={offset}-{offset + RANGE_BYTES - 1}"}
        answer = await self._send("get", "GET", url, headers=asked, max_answer_bytes=RANGE_BYTES, limits=READ_LIMITS)
        match read_piece(answer, first=offset, asked_bytes=RANGE_BYTES):
            case Missing(saw=saw):
                raise FileNotFoundError(errno.ENOENT, saw, key)
            case Odd(saw=saw, remedy=remedy):
                raise UnexpectedResponse(saw, remedy)
            case Failed(saw=saw):
                raise Unavailable(f"S3 did not return an object: {saw}. It is tried again later.")
            case Piece() as piece:
                return piece

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    async def _put(
        self, key: str, source: Source, *, size: int, sha256: str, metadata: Mapping[str, str]
    ) -> PutOutcome:
        headers = {METADATA + name: value for name, value in metadata.items()}

        async def put() -> PutOutcome:
            url = await self._signer.sign("put_object", {**self._place(key), "Metadata": dict(metadata)})
            return await self._storage.put(url, source(), size=size, sha256=sha256, signed_headers=headers)

        return await retry_immediate_failures(put, tries=TRIES)

    async def _send(
        self,
        call: str,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        limits: Timeouts | None = None,
    ) -> HttpResponse:
        target = URL(url, encoded=True)
        request = Request(method=method, url=target, headers=headers, max_answer_bytes=max_answer_bytes, limits=limits)
        now = asyncio.get_running_loop().time
        began_at = now()
        answer = await self._session.observed(call, self._session.send(request))
        failed = not isinstance(answer, HttpResponse) or answer.status >= 500
        if failed and now() - began_at <= AT_ONCE_SECONDS:
            answer = await self._session.observed(call, self._session.send(request))
        if isinstance(answer, HttpResponse):
            return answer
        raise Unavailable(f"S3 cannot be asked: {answer.message} It is tried again later.")

    @staticmethod
    def _require(answer: HttpResponse, *statuses: int, what: str) -> None:
        if answer.status not in statuses:
            raise Unavailable(f"S3 did not {what}: {refusal(answer)}. It is tried again later.")
