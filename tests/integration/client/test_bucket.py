"""The bridge's own bucket in a real S3 server, which verifies every signature."""

import hashlib

import pytest

from bridge.client import multipart, signer
from bridge.client.bucket import RANGE_BYTES
from bridge.client.multipart import MULTIPART_BYTES, PART_BYTES
from bridge.domain.outcomes import CorruptBody, OutcomeUnknown, PutRejected, SpoolUnreadable, Stored
from bridge.errors import CorruptBlob, Unavailable
from bridge.protocols.s3_documents import LISTED_KEYS, Listing
from tests.support.backends import open_bucket
from tests.support.weed import ACCESS_KEY, BUCKET, SECRET_KEY


def source(content, piece_bytes=300_000, error=None):
    async def pieces():
        for start in range(0, len(content), piece_bytes):
            yield content[start : start + piece_bytes]
        if error:
            raise error

    return pieces


async def put(bucket, key, content, *, error=None, digest_of=None, **metadata):
    sha256 = hashlib.sha256(content if digest_of is None else digest_of).hexdigest()
    return await bucket.put(key, source(content, error=error), size=len(content), sha256=sha256, metadata=metadata)


async def get(bucket, key):
    return b"".join([piece async for piece in bucket.read(key)])


@pytest.fixture
def in_parts(monkeypatch):
    """Have objects of a MiB and more go in parts of 5 MiB, the smallest that S3 takes."""
    monkeypatch.setattr("bridge.client.bucket.MULTIPART_BYTES", 1024 * 1024)
    monkeypatch.setattr(multipart, "PART_BYTES", 5 * 1024 * 1024)


def test_what_goes_in_parts_has_more_than_one():
    assert PART_BYTES < MULTIPART_BYTES == 64 * 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, RANGE_BYTES - 1, RANGE_BYTES, RANGE_BYTES + 1, 3 * RANGE_BYTES + 7])
async def test_what_was_put_is_read_back_with_its_metadata(bucket, size):
    content = bytes(range(251)) * (size // 251 + 1)
    content = content[:size]
    assert await put(bucket, "a/b", content, name="%E4%B8%AD", **{"sent-size": "5"}) == Stored()
    assert await get(bucket, "a/b") == content
    assert await bucket.metadata("a/b") == {"name": "%E4%B8%AD", "sent-size": "5"}


async def test_what_is_not_there_is_told_apart_from_what_cannot_be_asked(bucket, weed):
    assert await bucket.metadata("nothing") is None
    with pytest.raises(FileNotFoundError):
        await get(bucket, "nothing")
    async with open_bucket(weed, access_key_id="somebody-else") as stranger:
        assert isinstance(await put(stranger, "a", b"x"), PutRejected)
        for asked in (stranger.metadata("a"), get(stranger, "a"), stranger.list(""), stranger.delete("a")):
            with pytest.raises(Unavailable, match=r"S3 did not"):
                await asked


@pytest.mark.parametrize("wrong", [{"secret_access_key": "wrong"}, {"name": "no-such-bucket"}])
async def test_a_wrong_account_is_refused_in_s3s_words_and_without_a_secret(weed, wrong):
    async with open_bucket(weed, **wrong) as bucket:
        outcome = await put(bucket, "a", b"x")
    assert outcome.code in ("SignatureDoesNotMatch", "NoSuchBucket")
    assert "X-Amz" not in outcome.said


async def test_another_content_than_was_promised_is_damaged_and_not_kept(bucket):
    assert isinstance(await put(bucket, "a", b"content", digest_of=b"other"), CorruptBody)
    assert await bucket.metadata("a") is None


async def test_listings_come_in_order_page_by_page_and_only_below_what_was_asked(bucket):
    names = [f"2026010100/{number:03}" for number in range(LISTED_KEYS + 5)]
    for name in [*names, "2026010101/x", "aside/y"]:
        await put(bucket, name, b"x")
    page = await bucket.list("2026010100/")
    assert list(page.keys) == names[:LISTED_KEYS]
    rest = await bucket.list("2026010100/", following=page.following)
    assert rest == Listing(keys=tuple(names[LISTED_KEYS:]))
    folders = await bucket.list("", folders=True)
    assert folders == Listing(prefixes=("2026010100/", "2026010101/", "aside/"))


async def test_what_is_moved_keeps_content_and_metadata(bucket):
    await put(bucket, "a", b"content", name="n")
    await bucket.move("a", "aside/a")
    assert await bucket.metadata("a") is None
    assert await get(bucket, "aside/a") == b"content"
    assert await bucket.metadata("aside/a") == {"name": "n"}


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("size", [5 * 1024 * 1024, 11 * 1024 * 1024 + 3])
async def test_a_large_object_goes_in_parts_and_is_whole(bucket, size):
    content = hashlib.sha256(b"seed").digest() * (size // 32 + 1)
    content = content[:size]
    assert await put(bucket, "large", content, name="n") == Stored()
    assert await get(bucket, "large") == content
    assert await bucket.metadata("large") == {"name": "n"}


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ({"digest_of": b"other"}, CorruptBody),
        ({"error": CorruptBlob("The blob is damaged. Upload it again.")}, CorruptBody),
        ({"error": Unavailable("The spool is away. It is tried again.")}, SpoolUnreadable),
    ],
)
async def test_a_large_object_that_fails_leaves_neither_itself_nor_parts(bucket, weed, said, outcome):
    assert isinstance(await put(bucket, "large", b"x" * (6 * 1024 * 1024), **said), outcome)
    assert await bucket.metadata("large") is None
    with weed.client() as client:
        uploads = client.list_multipart_uploads(Bucket=BUCKET, Prefix=bucket._prefix)
    assert uploads.get("Uploads", []) == []


async def test_a_session_token_is_signed_and_sent(weed, monkeypatch):
    for name, value in {"ACCESS_KEY_ID": "temporary", "SECRET_ACCESS_KEY": "s", "SESSION_TOKEN": "canary"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    async with open_bucket(weed, access_key_id="", secret_access_key="") as bucket:
        url = await bucket.link("a", disposition="attachment", seconds=60)
    assert "temporary" in url
    assert "X-Amz-Security-Token=canary" in url


async def test_without_any_keys_it_says_what_to_set(weed, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    async with open_bucket(weed, access_key_id="", secret_access_key="") as bucket:
        outcome = await put(bucket, "a", b"x")
        assert isinstance(outcome, OutcomeUnknown)
        assert "Set [s3]" in outcome.message
        with pytest.raises(Unavailable, match=r"Set \[s3\]"):
            await bucket.metadata("a")
        monkeypatch.setattr(signer, "LOOK_AGAIN_SECONDS", 0)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        with pytest.raises(Unavailable):
            await bucket.metadata("a")
        assert await bucket.metadata("a") is None  # keys that came later are found


# -- connections that fail, before a server that speaks whatever a test wants --------------------------------------

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"


class Elsewhere:
    """Where a server is that `open_bucket` is to find."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"


@pytest.fixture
def answering(raw_server):
    """Start a server that answers each connection's only request with the next of `answers`, None cutting it."""

    async def start(*answers):
        left = list(answers)

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            answer = left.pop(0)
            if answer is not None:
                writer.write(answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                await writer.drain()

        return Elsewhere(await raw_server(serve)), left

    return start


@pytest.mark.parametrize("first", [None, BUSY], ids=["cut", "503"])
async def test_what_fails_at_once_is_asked_once_more(answering, first):
    server, left = await answering(first, OK)
    async with open_bucket(server) as bucket:
        assert await bucket.metadata("a") == {}
    assert left == []


async def test_what_fails_twice_has_failed(answering):
    server, left = await answering(None, None, OK)
    async with open_bucket(server) as bucket:
        with pytest.raises(Unavailable, match="cannot be asked"):
            await bucket.metadata("a")
    assert left == [OK]


async def test_a_put_that_is_cut_at_once_is_made_once_more(answering):
    server, left = await answering(None, OK)
    async with open_bucket(server) as bucket:
        assert await put(bucket, "a", b"") == Stored()
    assert left == []


async def test_what_hangs_is_not_asked_again(answering, monkeypatch):
    for module in ("bucket", "storage"):
        monkeypatch.setattr(f"bridge.client.{module}.AT_ONCE_SECONDS", -1)  # as if the first had taken long
    server, left = await answering(None, OK, OK)
    async with open_bucket(server) as bucket:
        assert isinstance(await put(bucket, "a", b""), OutcomeUnknown)
    assert left == [OK, OK]
