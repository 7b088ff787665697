"""Puts, reads, lists, moves, deletes and links objects below a prefix of the bridge's own bucket, by aiobotocore.

The transport is ours, because the library's follows redirects and reads answers of any size. So is the PUT of bytes,
because the library cannot withhold the last byte of a body whose digest is wrong, or end a PUT that is too slow.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import field
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiobotocore.awsrequest import AioAWSResponse  # type: ignore[import-untyped]
from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import get_session  # type: ignore[import-untyped]
from botocore import xform_name  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]
from yarl import URL

from bridge.client.presigned_put import IMMEDIATE_SECONDS, NO_HEADERS, PresignedUploader, retry_immediate_failures
from bridge.client.session import MAX_ANSWER_BYTES, USER_AGENT, GuardedSession, Request, Timeouts
from bridge.domain.outcomes import OutcomeUnknown, PutOutcome, Stored, body_differs, read_failure
from bridge.errors import BridgeError, Unavailable, UnexpectedResponse
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.s3 import CHECK_ENDPOINT, ObjectListing, Piece, describe_failure, holds_document, read_piece
from bridge.values import dataclass

FALLBACK_REGION = "us-east-1"
"""Signed with if no region is configured: S3-compatible servers without regions expect it."""

URL_SECONDS = 900
"""Lifetime of a URL that the bridge itself calls: longer than a PUT may last."""

KEY_SEARCH_SECONDS = 10.0
"""Least time between two searches for credentials: the service that issues them may start later than the bridge."""

RANGE_BYTES = 1024 * 1024
"""Read per request. A slow reader then holds no connection open that S3 would cut."""

READ_LIMITS = Timeouts(connect_seconds=5.0, read_seconds=5.0, total_seconds=8.0)
"""For one range: S3 answers in a tenth of a second. A range in 8 seconds is the lowest rate that a PUT may have
(`storage.MIN_BYTES_PER_SECOND`), so a slow spool does not use up the time of the storage that receives the report."""

LISTED_KEYS = 100
"""Per page: with keys of the greatest length a page then stays below MAX_ANSWER_BYTES."""

MULTIPART_BYTES = 64 * 1024 * 1024
"""The largest object that goes in one PUT: a larger one would start from zero if the connection is cut."""

PART_BYTES = 16 * 1024 * 1024
"""In memory at a time, and sent again alone if it fails; 10,000 parts, the most that S3 takes, are 156 GiB."""

TRIES = 2
"""For every call that may be made twice without harm: S3 closes idle connections."""

PART_TRIES = 3  # the connection was in use a moment ago, so an idle connection is not the only reason to fail
ABORT_SECONDS = 10.0
METADATA = "x-amz-meta-"

Source = Callable[[], AsyncGenerator[bytes]]
"""Opens the bytes again for each try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Account:
    """`[s3]`: the server and the credentials. What is empty comes from the environment, as in AWS's own tools."""

    endpoint_url: str = ""
    region: str = ""
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)


class _Operation(NamedTuple):
    """How one operation of S3 is called."""

    purpose: str  # in messages, after "S3 did not"
    result: frozenset[str] = frozenset()  # an answer must hold one of these elements; empty: it needs no document
    repeatable: bool = True


_PARTS = "take an object in parts"
_LISTING = frozenset({"Name", "IsTruncated", "KeyCount", "Contents", "CommonPrefixes"})
_COMPLETED = frozenset({"ETag", "Location", "Bucket", "Key"})
OPERATIONS = {
    "get_object": _Operation("return an object"),
    "head_object": _Operation("describe an object"),
    "delete_object": _Operation("remove an object"),
    "copy_object": _Operation("move an object", frozenset({"CopyObjectResult"})),
    "list_objects_v2": _Operation("list its bucket", _LISTING),
    # Beginning twice would leave an upload behind, and a completed upload cannot be completed again.
    "create_multipart_upload": _Operation(_PARTS, frozenset({"UploadId"}), repeatable=False),
    "complete_multipart_upload": _Operation(_PARTS, _COMPLETED, repeatable=False),
    "abort_multipart_upload": _Operation("drop the parts of an object", repeatable=False),
}
MAY_BE_MISSING = ("head_object", "delete_object")


class S3Bucket:
    """One bucket, while it is entered; all keys are below `prefix`, which is empty or ends in a slash.

    `session` makes every call and `storage` every PUT. Methods that return no outcome raise Unavailable if S3 rejects
    the call or does not answer.
    """

    def __init__(
        self, account: S3Account, session: GuardedSession, storage: PresignedUploader, *, bucket: str, prefix: str
    ) -> None:
        self._account = account
        self._session = session
        self._storage = storage
        self._bucket = bucket
        self._prefix = prefix
        self._ends = AsyncExitStack()
        self._client: Any = None
        self._opened_at = 0.0

    async def __aenter__(self) -> Self:
        self._opened_at = asyncio.get_running_loop().time()
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._ends.aclose()

    async def put(self, key: str, source: Source, *, size: int, sha256: str, metadata: Mapping[str, str]) -> PutOutcome:
        """Store `size` bytes of hex digest `sha256` under `key`, with `metadata` (ASCII, at most 2 KB)."""
        labeled = {**self._location(key), "Metadata": dict(metadata)}
        headers = {METADATA + name: value for name, value in metadata.items()}
        try:
            if size > MULTIPART_BYTES:
                return await self._put_in_parts(labeled, source, size=size, sha256=sha256)
            return await self._put("put_object", labeled, source, size=size, sha256=sha256, headers=headers)
        except Unavailable as error:
            return OutcomeUnknown(message=str(error))

    async def read(self, key: str) -> AsyncGenerator[bytes]:
        """Yield the object in pieces of at most RANGE_BYTES.

        Raises:
            FileNotFoundError: S3 itself answers that there is no such key; `strerror` holds its message.
            UnexpectedResponse: The answer is neither the object nor S3's "not found".
            Unavailable: S3 does not answer, or is overloaded.
        """
        offset, total = 0, None
        while total is None or offset < total:
            piece = await self._read_piece(key, offset)
            if total not in (None, piece.total):
                raise UnexpectedResponse(f"an object of {total} bytes that then had {piece.total}", CHECK_ENDPOINT)
            total = piece.total
            offset += len(piece.body)
            if piece.body:
                yield piece.body

    async def metadata(self, key: str) -> dict[str, str] | None:
        """Return the metadata of an object, None if there is no such object."""
        try:
            found = await self._call("head_object", **self._location(key))
        except FileNotFoundError:
            return None
        return dict(found.get("Metadata", {}))

    async def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        with suppress(FileNotFoundError):
            await self._call("delete_object", **self._location(key))

    async def move(self, key: str, to: str) -> None:
        """Move the object from `key` to `to`, with its metadata."""
        await self._call("copy_object", **self._location(to), CopySource=self._location(key))
        await self.delete(key)

    async def list(self, below: str, *, following: str | None = None, folders: bool = False) -> ObjectListing:
        """Return one page of the keys that begin with `below`, in order.

        With `folders`, keys that go on beyond the next slash appear once, as a prefix.
        """
        options = {"Delimiter": "/"} if folders else {}
        if following is not None:
            options["ContinuationToken"] = following
        below = self._prefix + below
        page = await self._call("list_objects_v2", Bucket=self._bucket, Prefix=below, MaxKeys=LISTED_KEYS, **options)
        following = page.get("NextContinuationToken") if page.get("IsTruncated") else None
        return ObjectListing(
            keys=self._below_prefix(page.get("Contents", ()), "Key"),
            prefixes=self._below_prefix(page.get("CommonPrefixes", ()), "Prefix"),
            following=following or None,
        )

    async def link(self, key: str, *, disposition: str, seconds: int) -> str:
        """Return a URL that downloads the object without credentials for `seconds`, saved as `disposition` (RFC 6266).

        Anyone who has the URL can read the object.
        """
        shown = {"ResponseContentDisposition": disposition, "ResponseContentType": "application/octet-stream"}
        return await self._sign("get_object", {**self._location(key), **shown}, seconds=seconds)

    # -- steps of these ----------------------------------------------------------------------------------------------

    def _location(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _below_prefix(self, elements: Sequence[Mapping[str, str]], name: str) -> tuple[str, ...]:
        return tuple(element[name].removeprefix(self._prefix) for element in elements if name in element)

    async def _read_piece(self, key: str, offset: int) -> Piece:
        span = f"bytes={offset}-{offset + RANGE_BYTES - 1}"
        found = await self._call("get_object", **self._location(key), Range=span)
        # The library does not check which range an answer holds.
        return read_piece(found["Body"].raw_stream.answer, first=offset, requested_bytes=RANGE_BYTES)

    async def _put(
        self,
        operation: str,
        parameters: Mapping[str, object],
        body: Source | bytes,
        *,
        size: int,
        sha256: str,
        headers: Mapping[str, str] = NO_HEADERS,
        tries: int = TRIES,
    ) -> PutOutcome:
        async def put() -> PutOutcome:
            url = await self._sign(operation, parameters)
            chunks = body if isinstance(body, bytes) else body()
            return await self._storage.put(url, chunks, size=size, sha256=sha256, signed_headers=headers)

        return await retry_immediate_failures(put, tries=tries)

    async def _put_in_parts(
        self, labeled: Mapping[str, object], source: Source, *, size: int, sha256: str
    ) -> PutOutcome:
        """Store a large object in parts. S3 shows it once all have arrived; if one fails, all are dropped."""
        begun = await self._call("create_multipart_upload", **labeled)
        upload = {"Bucket": labeled["Bucket"], "Key": labeled["Key"], "UploadId": begun["UploadId"]}
        outcome: PutOutcome | None = None
        try:
            outcome = await self._put_parts(upload, source, size=size, sha256=sha256)
        finally:
            if not isinstance(outcome, Stored):
                await asyncio.shield(self._abort(upload))
        return outcome

    async def _put_parts(self, upload: dict[str, object], source: Source, *, size: int, sha256: str) -> PutOutcome:
        digest, sent, parts = hashlib.sha256(), 0, list[Mapping[str, object]]()
        async with aclosing(_parts_of(source())) as contents:
            while True:
                try:
                    content = await anext(contents, b"")
                except (BridgeError, OSError) as error:
                    return read_failure(error)
                if not content:
                    break
                digest.update(content)
                sent += len(content)
                part, part_sha256 = {"PartNumber": len(parts) + 1}, hashlib.sha256(content).hexdigest()
                outcome = await self._put(
                    "upload_part", upload | part, content, size=len(content), sha256=part_sha256, tries=PART_TRIES
                )
                if not isinstance(outcome, Stored):
                    return outcome
                parts.append({**part, "ETag": outcome.etag})
        if sent != size or digest.hexdigest() != sha256:
            return body_differs(sent, digest.hexdigest(), accepted_size=size, accepted_sha256=sha256)
        await self._call("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
        return Stored()

    async def _abort(self, upload: Mapping[str, str]) -> None:
        with suppress(BridgeError, TimeoutError):  # parts that stay are removed by a lifecycle rule of the bucket
            async with asyncio.timeout(ABORT_SECONDS):
                await self._call("abort_multipart_upload", **upload)

    # -- aiobotocore -----------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        """Open a client; it finds credentials (settings, environment, profile, role), and renews those that expire."""
        account, session = self._account, get_session()
        region = account.region or session.get_config_variable("region") or os.environ.get("AWS_REGION")
        config = AioConfig(
            signature_version="s3v4",
            # Few of the servers that people run themselves have a host name for each bucket.
            s3={"addressing_style": "path" if account.endpoint_url else "virtual"},
            # Other servers reject the checksums that botocore adds by default. Digests are checked by the bridge.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1, "mode": "standard"},  # `_send` decides what is repeated
            user_agent=USER_AGENT,
        )
        client = session.create_client(
            "s3",
            region_name=region or FALLBACK_REGION,
            endpoint_url=account.endpoint_url or None,
            aws_access_key_id=account.access_key_id or None,
            aws_secret_access_key=account.secret_access_key or None,
            config=config,
        )
        self._client = await self._ends.enter_async_context(client)
        self._client.meta.events.register("before-send.s3", self._send)  # instead of the library's transport

    async def _sign(self, operation: str, parameters: Mapping[str, object], *, seconds: int = URL_SECONDS) -> str:
        """Return a URL that does `operation` for `seconds`. Metadata are signed as headers, to be sent with it."""
        try:
            url: str = await self._client.generate_presigned_url(operation, Params=dict(parameters), ExpiresIn=seconds)
        except (BotoCoreError, ClientError) as error:
            raise await self._no_credentials(error) from None
        return url

    async def _call(self, operation: str, **parameters: object) -> dict[str, Any]:
        """Return S3's answer as botocore documents it; FileNotFoundError if an object that MAY_BE_MISSING is."""
        purpose, result, _ = OPERATIONS[operation]
        try:
            found: dict[str, Any] = await getattr(self._client, operation)(**parameters)
        except (ResponseParserError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # The parsers convert numbers and dates, and do not catch what the conversion raises.
            raise _not_done(purpose, "its answer has values that cannot be read") from None
        except (BotoCoreError, ClientError) as error:
            raise await self._no_credentials(error) from None
        if result and not result & found.keys():
            raise _not_done(purpose, f"its answer has no {' or '.join(sorted(result))}")
        return found

    async def _no_credentials(self, error: Exception) -> Unavailable:
        """Return what to raise, and open a new client: one that was opened without credentials never gets any."""
        now = asyncio.get_running_loop().time()
        if now - self._opened_at >= KEY_SEARCH_SECONDS:
            self._opened_at = now  # only one of the calls that fail together searches
            await self._ends.aclose()
            await self._open()
        return Unavailable(f"No keys for S3 were found ({type(error).__name__}). Set [s3], or give the machine a role.")

    async def _send(self, request: Any, event_name: str, **_: object) -> AioAWSResponse:
        """Send what the library signed. Only successes are returned to it, so it neither retries nor redirects."""
        operation = xform_name(event_name.rpartition(".")[2])
        returns_object = operation == "get_object"
        s3_request = Request(
            method=request.method,
            url=URL(request.url, encoded=True),
            headers={name: _text(value) for name, value in request.headers.items()},
            body=request.body or None,
            limits=READ_LIMITS if returns_object else None,
            max_answer_bytes=RANGE_BYTES if returns_object else MAX_ANSWER_BYTES,
        )
        purpose, result, repeatable = OPERATIONS[operation]
        call = operation.partition("_")[0]
        now = asyncio.get_running_loop().time
        began_at = now()
        answer = await self._session.observed(call, self._session.send(s3_request))
        failed = not isinstance(answer, HttpResponse) or answer.status >= 500
        if failed and repeatable and now() - began_at <= IMMEDIATE_SECONDS:
            answer = await self._session.observed(call, self._session.send(s3_request))
        if not isinstance(answer, HttpResponse):
            raise Unavailable(f"S3 cannot be called: {answer.message} It is tried again later.")
        if returns_object:  # `read_piece` reads it, whatever its status
            return AioAWSResponse(request.url, 200, {}, _RawAnswer(answer))
        if answer.status == 404 and operation in MAY_BE_MISSING:
            raise FileNotFoundError
        if answer.status >= 300 or ((answer.body or result) and not holds_document(answer)):
            raise _not_done(purpose, describe_failure(answer))
        # The parser fails on a Last-Modified that is not a date, and no other header is needed.
        metadata = {name: value for name, value in answer.headers.items() if name.startswith(METADATA)}
        return AioAWSResponse(request.url, answer.status, metadata, _RawAnswer(answer))


class _RawAnswer:
    """An answer that was read already, as the library expects the raw response of its own transport."""

    def __init__(self, answer: HttpResponse) -> None:
        self.answer = answer

    async def read(self) -> bytes:
        return self.answer.body

    def close(self) -> None:
        """Do nothing: nothing is open."""


async def _parts_of(chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    part = bytearray()
    async with aclosing(chunks):
        async for chunk in chunks:
            part += chunk
            while len(part) >= PART_BYTES:
                yield bytes(part[:PART_BYTES])
                del part[:PART_BYTES]
    if part:
        yield bytes(part)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _not_done(purpose: str, cause: str) -> Unavailable:
    return Unavailable(f"S3 did not {purpose}: {cause}. It is tried again later.")
