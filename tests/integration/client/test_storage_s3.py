"""PUTs to URLs signed as TestNod signs them, taken by a real S3 server that checks signature, size and expiry."""

import hashlib
import time
from urllib.parse import quote

import pytest

from bridge.client.presigned_put import PIECE_BYTES, PresignedUploader
from bridge.client.ssrf_guard import StorageUrlPolicy
from bridge.domain.outcomes import CorruptBody, PutRejected, Stored
from bridge.sandbox.presign import Keys, presign
from tests.support.weed import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, new_prefix

KEYS = Keys(access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)
FIVE_MINUTES = 300


@pytest.fixture
async def storage(new_session):
    return PresignedUploader(new_session("storage"), StorageUrlPolicy(allow_private=True))


@pytest.fixture
def key():
    """A key with what URLs escape."""
    return f"{new_prefix()}report 报告+1.xml"


def signed(weed, key, *, ago_seconds=0):
    """Return a URL that was handed out some time ago for five minutes, metadata in its query."""
    at = (time.time_ns() // 1_000_000_000 - ago_seconds) * 1_000_000
    url = f"{weed.url}/{BUCKET}/{quote(key)}"
    return presign(KEYS, url, metadata={"upload_id": "7"}, at=at, expires_seconds=FIVE_MINUTES)


def stored(weed, key):
    with weed.client() as client:
        found = client.list_objects_v2(Bucket=BUCKET, Prefix=key).get("Contents", [])
        return client.get_object(Bucket=BUCKET, Key=key)["Body"].read() if found else None


async def put(storage, url, content, *, promised=None):
    digest = hashlib.sha256(content if promised is None else promised).hexdigest()
    return await storage.put(url, content, size=len(content), sha256=digest)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 5_000_000])
async def test_a_report_of_any_size_is_stored_byte_for_byte(weed, storage, key, size):
    content = (b"<testsuite/>" * (size // 12 + 1))[:size]
    assert await put(storage, signed(weed, key), content) == Stored()
    assert stored(weed, key) == content


async def test_a_url_that_has_run_out_is_rejected_as_s3_says_it(weed, storage, key):
    outcome = await put(storage, signed(weed, key, ago_seconds=FIVE_MINUTES + 2), b"x")
    assert outcome == PutRejected(status=403, code="AccessDenied", message="Request has expired")
    assert stored(weed, key) is None


async def test_a_url_that_was_tampered_with_is_rejected(weed, storage, key):
    outcome = await put(storage, signed(weed, key).replace("report", "other"), b"x")
    assert (outcome.status, outcome.code) == (403, "SignatureDoesNotMatch")


async def test_damaged_bytes_are_never_stored(weed, storage, key):
    assert isinstance(await put(storage, signed(weed, key), b"content", promised=b"another"), CorruptBody)
    assert stored(weed, key) is None


async def test_the_same_url_takes_the_report_again(weed, storage, key):
    url = signed(weed, key)
    assert [await put(storage, url, content) for content in (b"one", b"one")] == [Stored(), Stored()]
