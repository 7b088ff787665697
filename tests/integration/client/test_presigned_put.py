import asyncio
import hashlib
from urllib.parse import quote

import pytest

from bridge.client.presigned_put import PIECE_BYTES, PresignedUploader
from bridge.client.ssrf_guard import StorageUrlPolicy
from bridge.domain.outcomes import (
    CorruptBody,
    NotSent,
    OutcomeUnknown,
    PutRejected,
    SpoolUnreadable,
    Stored,
    UrlRejected,
)
from bridge.errors import CorruptBlob, Unavailable

REPORT = b"<testsuite>" + b"x" * 1000 + b"</testsuite>"
LARGE = bytes(range(256)) * (4 * PIECE_BYTES // 256) + b"end"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
PRIVATE = StorageUrlPolicy(allow_private=True)
QUERY = "X-Amz-Signature=canary%2Fa+b&x=%20"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def digest(data):
    return {"size": len(data), "sha256": sha256(data)}


class Bucket:
    """A storage over bare bytes: keeps the head and what came of the body, answers once the body is complete."""

    def __init__(self, answer=OK):
        self.answer = answer
        self.heads = []
        self.bodies = []
        self.complete = 0
        self.left = asyncio.Event()  # the first connection has ended

    async def serve(self, reader, writer):
        try:
            await self.receive(reader, writer)
        finally:
            self.left.set()

    async def receive(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        body = bytearray()
        self.heads.append(head)
        self.bodies.append(body)
        length = int(self.headers[b"content-length"])
        while len(body) < length:
            piece = await reader.read(65536)
            if not piece:
                return
            body += piece
        self.complete += 1
        writer.write(self.answer)
        await writer.drain()
        await reader.read()

    @property
    def headers(self):
        lines = self.heads[-1].split(b"\r\n")[1:-2]
        return {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}


class Source:
    """An asynchronous source of pieces that remembers whether it was closed."""

    def __init__(self, *pieces, error=None):
        self.closed = False
        self.pieces = pieces
        self.error = error

    async def read(self):
        try:
            for piece in self.pieces:
                yield piece
            if self.error:
                raise self.error
        finally:
            self.closed = True


@pytest.fixture
def new_storage(new_session):
    def make(rules=PRIVATE, **options):
        return PresignedUploader(new_session("storage", public_only=not rules.allow_private), rules, **options)

    return make


@pytest.fixture
async def bucket_url(raw_server):
    async def start(bucket):
        return f"http://127.0.0.1:{await raw_server(bucket.serve)}/bucket/k%2Fey?{QUERY}"

    return start


def pieces_of(data, size):
    return Source(*(data[start : start + size] for start in range(0, len(data), size))).read()


@pytest.mark.parametrize("data", [REPORT, LARGE, b"a", b""], ids=["small", "large", "one byte", "empty"])
@pytest.mark.parametrize("piece_bytes", [None, 1000, PIECE_BYTES])
async def test_exactly_the_report_arrives(bucket_url, new_storage, data, piece_bytes):
    bucket = Bucket()
    chunks = data if piece_bytes is None else pieces_of(data, piece_bytes)
    assert await new_storage().put(await bucket_url(bucket), chunks, **digest(data)) == Stored()
    assert bytes(bucket.bodies[0]) == data
    assert bucket.headers[b"content-length"] == str(len(data)).encode()


async def test_empty_pieces_do_not_matter(bucket_url, new_storage):
    bucket = Bucket()
    chunks = Source(b"", REPORT[:9], b"", b"", REPORT[9:], b"").read()
    assert await new_storage().put(await bucket_url(bucket), chunks, **digest(REPORT)) == Stored()
    assert bytes(bucket.bodies[0]) == REPORT


async def test_storage_receives_the_url_unaltered_and_no_header_but_its_own(bucket_url, new_storage):
    bucket = Bucket()
    await new_storage().put(await bucket_url(bucket), REPORT, **digest(REPORT))
    assert bucket.heads[0].splitlines()[0] == f"PUT /bucket/k%2Fey?{QUERY} HTTP/1.1".encode()
    assert set(bucket.headers) == {b"host", b"content-length", b"content-type"}
    assert bucket.headers[b"content-type"] == b"application/xml"


@pytest.mark.parametrize(
    "pieces",
    [
        [REPORT[:-1]],
        [REPORT[:500], REPORT[500:-1]],
        [REPORT, b"x"],
        [REPORT[:500], REPORT[500:] + b"x"],
        [REPORT[:500], REPORT[500:-1] + b"?"],
        [b"?" + REPORT[1:]],
        [],
    ],
    ids=["short", "short in two", "long", "long in two", "other end", "other start", "nothing"],
)
async def test_a_report_that_is_not_the_one_accepted_is_never_complete(bucket_url, new_storage, pieces):
    bucket = Bucket()
    outcome = await new_storage().put(await bucket_url(bucket), Source(*pieces).read(), **digest(REPORT))
    assert isinstance(outcome, CorruptBody)
    await bucket.left.wait()
    assert bucket.complete == 0


async def test_of_damaged_bytes_at_hand_nothing_is_sent(bucket_url, new_storage):
    bucket = Bucket()
    outcome = await new_storage().put(await bucket_url(bucket), REPORT, size=len(REPORT), sha256=sha256(b"other"))
    assert isinstance(outcome, CorruptBody)
    assert bucket.heads == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CorruptBlob("Blob 7 is damaged. Send the report again."), CorruptBody),
        (FileNotFoundError(2, "gone", "/canary/path"), CorruptBody),
        (OSError(5, "Input/output error", "/canary/path"), SpoolUnreadable),
        (Unavailable("The spool is away. It is tried again."), SpoolUnreadable),
    ],
)
async def test_a_source_that_fails_ends_the_put_without_an_response(bucket_url, new_storage, error, kind):
    bucket = Bucket()
    chunks = Source(REPORT[:500], REPORT[500:-1], error=error).read()
    outcome = await new_storage().put(await bucket_url(bucket), chunks, **digest(REPORT))
    assert isinstance(outcome, kind)
    assert "canary" not in outcome.message
    await bucket.left.wait()
    assert bucket.complete == 0


async def test_a_source_that_takes_its_time_is_no_stall_of_the_storage(bucket_url, new_storage):
    stall_seconds = 1.0
    bucket = Bucket()

    async def slow():
        yield REPORT[:500]
        await asyncio.sleep(2 * stall_seconds)
        yield REPORT[500:]

    outcome = await new_storage(stall_seconds=stall_seconds).put(await bucket_url(bucket), slow(), **digest(REPORT))
    assert isinstance(outcome, Stored)


async def test_an_expired_url_is_a_rejection_with_s3s_words(bucket_url, new_storage):
    body = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    bucket = Bucket(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    outcome = await new_storage().put(await bucket_url(bucket), REPORT, **digest(REPORT))
    assert outcome == PutRejected(status=403, code="AccessDenied", message="Request has expired")


async def test_a_rejection_before_the_end_of_the_report_is_heard(raw_server, new_storage):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await reader.read()

    report = LARGE * 16
    outcome = await new_storage().put(f"http://127.0.0.1:{await raw_server(serve)}/k", report, **digest(report))
    assert isinstance(outcome, PutRejected)


async def test_a_200_before_the_end_of_the_report_is_unknown(raw_server, new_storage):
    more = asyncio.Event()

    async def chunks():
        yield REPORT[:500]
        yield REPORT[500:600]
        await more.wait()
        yield REPORT[600:]

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.read()

    outcome = await new_storage().put(f"http://127.0.0.1:{await raw_server(serve)}/k", chunks(), **digest(REPORT))
    assert isinstance(outcome, OutcomeUnknown)


async def test_storage_that_takes_nothing_is_unknown(raw_server, new_storage):
    gone = asyncio.Event()

    async def serve(reader, _writer):
        await reader.readuntil(b"\r\n\r\n")
        await gone.wait()

    report = LARGE * 16
    url = f"http://127.0.0.1:{await raw_server(serve)}/k?{QUERY}"
    outcome = await new_storage(stall_seconds=0.2).put(url, report, **digest(report))
    assert isinstance(outcome, OutcomeUnknown)
    assert "stopped reading" in outcome.message
    assert "canary" not in outcome.message


async def test_storage_that_cuts_is_unknown(raw_server, new_storage):
    async def serve(reader, _writer):
        await reader.readuntil(b"\r\n\r\n")

    outcome = await new_storage().put(f"http://127.0.0.1:{await raw_server(serve)}/k?{QUERY}", LARGE, **digest(LARGE))
    assert isinstance(outcome, OutcomeUnknown)
    assert "canary" not in outcome.message


async def test_unreachable_storage_was_sent_nothing(closed_port, new_storage):
    outcome = await new_storage().put(f"http://127.0.0.1:{closed_port}/k?{QUERY}", REPORT, **digest(REPORT))
    assert isinstance(outcome, NotSent)
    assert "canary" not in outcome.message


@pytest.mark.parametrize(
    "url",
    [
        "http://storage.example/k?canary",
        "https://user:canary@storage.example/k",
        "https://[broken/k?canary",
        "https://storage.example:port/k?canary",
        "https://storage.example:99999/k?canary",
        "https://xn--a/k?canary",
        "ftp://storage.example/k",
        "not a url",
        "",
    ],
)
async def test_a_url_that_may_not_be_called_is_not_called(new_storage, url):
    outcome = await new_storage(StorageUrlPolicy()).put(url, REPORT, **digest(REPORT))
    assert isinstance(outcome, UrlRejected)
    assert "canary" not in outcome.message


@pytest.mark.parametrize("host", ["127.0.0.1:9", "[::ffff:127.0.0.1]:9", "localhost:9"])
async def test_a_url_of_an_address_that_is_not_public_is_not_called(new_storage, host):
    outcome = await new_storage(StorageUrlPolicy()).put(f"https://{host}/k?canary", REPORT, **digest(REPORT))
    assert isinstance(outcome, NotSent)
    assert "canary" not in outcome.message


async def test_a_host_outside_the_list_is_not_called(bucket_url, new_storage):
    bucket = Bucket()
    rules = StorageUrlPolicy(hosts=("*.amazonaws.com",), allow_private=True)
    outcome = await new_storage(rules).put(await bucket_url(bucket), REPORT, **digest(REPORT))
    assert isinstance(outcome, UrlRejected)
    assert bucket.heads == []


@pytest.mark.parametrize("url", ["good", "refused"])
async def test_the_source_is_closed_however_the_put_ends(bucket_url, new_storage, closed_port, url):
    source = Source(REPORT)
    chunks = source.read()
    assert await anext(chunks) == REPORT  # started, so that closing it shows
    target = await bucket_url(Bucket()) if url == "good" else f"http://127.0.0.1:{closed_port}/k"
    await new_storage().put(target, chunks, size=0, sha256=sha256(b""))
    assert source.closed


async def test_a_put_that_is_given_up_closes_its_source_and_is_no_outcome(raw_server, new_storage):
    arrived = asyncio.Event()

    async def serve(reader, _writer):
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()

    source = Source(*[LARGE] * 16)
    url = f"http://127.0.0.1:{await raw_server(serve)}/k"
    put = asyncio.create_task(new_storage().put(url, source.read(), size=16 * len(LARGE), sha256=sha256(b"")))
    await arrived.wait()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert source.closed


async def test_one_session_serves_many_puts_side_by_side(bucket_url, new_storage):
    bucket = Bucket()
    url, storage = await bucket_url(bucket), new_storage()
    outcomes = await asyncio.gather(*(storage.put(url, LARGE, **digest(LARGE)) for _ in range(8)))
    assert outcomes == [Stored()] * 8
    assert {bytes(body) for body in bucket.bodies} == {LARGE}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Amz-Signature", "5c1f0a9b8e7d6c5b4a39281706f5e4d3"),
        ("X-Amz-Credential", "AKIDCANARY0001/20300101/eu-central-1/s3/aws4_request"),
        ("X-Amz-Security-Token", "IQoJb3JpZ2luX2VjEJr//////////wEaCXVz"),
        ("sig", "b64Signature+of/another=provider"),
        ("OSSAccessKeyId", "LTAI5tCANARYKEY0001"),
    ],
)
async def test_storage_that_repeats_a_value_of_its_url_is_not_quoted(raw_server, new_session, name, value):
    told = f"the value {value} of {quote(name)} is wrong, key {value.partition('/')[0]}!"
    error = f"<Error><Code>AccessDenied</Code><Message>{told}</Message></Error>".encode()
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/xml\r\nContent-Length: {len(error)}\r\n\r\n"
    bucket = Bucket(head.encode() + error)
    query = f"X-Amz-Date=20300101T000000Z&{name}={quote(value, safe='')}"
    url = f"http://127.0.0.1:{await raw_server(bucket.serve)}/k?{query}"
    outcome = await PresignedUploader(new_session(), PRIVATE).put(url, REPORT, **digest(REPORT))
    assert isinstance(outcome, PutRejected)
    assert outcome.message == f"the value … of {name} is wrong, key …!"
