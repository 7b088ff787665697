"""A large object in parts, each by the same PUT as everything else; S3 shows it only once all have come.

It follows "Uploading and copying objects using multipart upload" of the S3 user guide; it knows neither prefix nor
who asks. Whatever goes wrong, the upload is aborted: parts that stay are paid for and seen by nobody.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress

from yarl import URL

from bridge.client.presigned_put import NO_HEADERS, PresignedUploader, retry_immediate_failures
from bridge.client.session import GuardedSession, Request
from bridge.client.signer import Signer
from bridge.domain.outcomes import NotSent, OutcomeUnknown, PutOutcome, Stored, body_differs, read_failure
from bridge.errors import BridgeError, Unavailable
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.s3_documents import complete_body, is_complete, read_upload_id, refusal

MULTIPART_BYTES = 64 * 1024 * 1024
"""The largest object that goes in one PUT: a larger one would begin again from nothing when it is cut."""

PART_BYTES = 16 * 1024 * 1024
"""In memory at a time, sent again alone when it fails; 10,000 of them, as many as S3 takes, are 156 GiB."""

TRIES = 3  # for one part: by then it is not an idle connection that was closed
ABORT_SECONDS = 10.0


class PartedPut:
    """One object on its way into `place` (bucket and key, as S3's operations name them)."""

    def __init__(
        self, signer: Signer, storage: PresignedUploader, session: GuardedSession, place: Mapping[str, str]
    ) -> None:
        self._signer = signer
        self._storage = storage
        self._session = session
        self._place = place

    async def put(
        self, chunks: AsyncGenerator[bytes], *, size: int, sha256: str, metadata: Mapping[str, str]
    ) -> PutOutcome:
        """Keep `size` bytes of hex digest `sha256` with `metadata` beside them; raise Unavailable without keys."""
        begun = await self._begin(metadata)
        if not isinstance(begun, str):
            return begun
        outcome: PutOutcome | None = None
        try:
            outcome = await self._put(begun, chunks, size=size, sha256=sha256)
        finally:
            if not isinstance(outcome, Stored):
                await asyncio.shield(self._abort(begun))
        return outcome

    async def _begin(self, metadata: Mapping[str, str]) -> str | OutcomeUnknown:
        url = await self._signer.sign("create_multipart_upload", {**self._place, "Metadata": dict(metadata)})
        headers = {f"x-amz-meta-{name}": value for name, value in metadata.items()}
        answer = await self._send("begin", "POST", url, headers)
        return (isinstance(answer, HttpResponse) and read_upload_id(answer)) or _failed(answer)

    async def _put(self, upload_id: str, chunks: AsyncGenerator[bytes], *, size: int, sha256: str) -> PutOutcome:
        digest, sent, etags = hashlib.sha256(), 0, list[str]()
        try:
            async with aclosing(_parts(chunks)) as parts:
                async for part in parts:
                    digest.update(part)
                    sent += len(part)
                    outcome = await self._put_part(upload_id, len(etags) + 1, part)
                    if not isinstance(outcome, Stored):
                        return outcome
                    etags.append(outcome.etag)
        except (BridgeError, OSError) as error:
            return read_failure(error)
        if sent != size or digest.hexdigest() != sha256:
            return body_differs(sent, digest.hexdigest(), accepted_size=size, accepted_sha256=sha256)
        return await self._complete(upload_id, etags)

    async def _put_part(self, upload_id: str, number: int, part: bytes) -> PutOutcome:
        sha256 = hashlib.sha256(part).hexdigest()
        place = {**self._place, "UploadId": upload_id, "PartNumber": number}

        async def put() -> PutOutcome:
            try:
                url = await self._signer.sign("upload_part", place)
            except Unavailable as error:  # no keys: the bytes were read
                return OutcomeUnknown(message=str(error))
            return await self._storage.put(url, part, size=len(part), sha256=sha256)

        return await retry_immediate_failures(put, tries=TRIES)

    async def _complete(self, upload_id: str, etags: list[str]) -> PutOutcome:
        url = await self._signer.sign("complete_multipart_upload", {**self._place, "UploadId": upload_id})
        headers = {"Content-Type": "application/xml"}
        answer = await self._send("complete", "POST", url, headers, complete_body(etags))
        return Stored() if isinstance(answer, HttpResponse) and is_complete(answer) else _failed(answer)

    async def _abort(self, upload_id: str) -> None:
        with suppress(BridgeError, TimeoutError):  # what stays is for the bucket's own rule to remove
            async with asyncio.timeout(ABORT_SECONDS):
                url = await self._signer.sign("abort_multipart_upload", {**self._place, "UploadId": upload_id})
                await self._send("abort", "DELETE", url)

    async def _send(
        self, call: str, method: str, url: str, headers: Mapping[str, str] = NO_HEADERS, body: bytes | None = None
    ) -> HttpResponse | NotSent | OutcomeUnknown:
        request = Request(method=method, url=URL(url, encoded=True), headers=headers, body=body)
        return await self._session.observed(call, self._session.send(request))


async def _parts(chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    part = bytearray()
    async with aclosing(chunks):
        async for chunk in chunks:
            part += chunk
            while len(part) >= PART_BYTES:
                yield bytes(part[:PART_BYTES])
                del part[:PART_BYTES]
    if part:
        yield bytes(part)


def _failed(answer: HttpResponse | NotSent | OutcomeUnknown) -> OutcomeUnknown:
    if isinstance(answer, HttpResponse):
        return OutcomeUnknown(status=answer.status, message=f"S3 did not take an object in parts: {refusal(answer)}")
    return OutcomeUnknown(message=answer.message)
