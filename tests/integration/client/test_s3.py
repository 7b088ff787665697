"""The bridge's own bucket in a real S3 server, which verifies every signature."""

import hashlib
import io
import logging
import ssl
from contextlib import suppress

import pytest
import structlog
import trustme
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from bridge.client import s3
from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.s3 import LISTED_KEYS, MULTIPART_BYTES, PART_BYTES, RANGE_BYTES
from bridge.client.session import MAX_ANSWER_BYTES
from bridge.domain.outcomes import CorruptBody, OutcomeUnknown, PutRejected, SpoolUnreadable, Stored
from bridge.errors import CorruptBlob, Unavailable
from bridge.protocols.s3 import ObjectListing
from bridge.settings.tls_files import read_authorities
from bridge.telemetry import logs
from tests.support.backends import open_bucket
from tests.support.forward_proxy import ForwardProxy
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
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 1024 * 1024)
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 1024 * 1024)


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
    assert "X-Amz" not in outcome.text


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
    assert rest == ObjectListing(keys=tuple(names[LISTED_KEYS:]))
    folders = await bucket.list("", folders=True)
    assert folders == ObjectListing(prefixes=("2026010100/", "2026010101/", "aside/"))


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
        monkeypatch.setattr(s3, "KEY_SEARCH_SECONDS", 0)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        with pytest.raises(Unavailable):
            await bucket.metadata("a")
        assert await bucket.metadata("a") is None  # keys that came later are found


# -- a server that answers as a test wants -------------------------------------------------------------------------


def response(status, body=b"", **headers):
    """Return an HTTP response as bytes."""
    fields = {"Content-Length": len(body), "Connection": "close"} | headers
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body


def document(root, inner=""):
    return response(200, f'<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{root}>'.encode())


OK = response(200)
BUSY = response(503)
PAGE = response(200, b"<html><title>Log in</title></html>", Content_Type="text/html")
ERROR = response(200, b"<Error><Code>InternalError</Code><Message>We failed.</Message></Error>")
BEGUN = document("InitiateMultipartUploadResult", "<UploadId>u-1</UploadId>")
COMPLETED = document("CompleteMultipartUploadResult", "<ETag>e</ETag>")
CUT = None


class Answering:
    """A server that answers each connection's only request with the next of `left`, and keeps the `asked` heads."""

    def __init__(self, answers):
        self.left = list(answers)
        self.asked = []
        self.url = ""

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.splitlines()[1:])}
        await reader.readexactly(int(fields.get("content-length", 0)))
        answer = self.left.pop(0)
        if answer is not CUT:
            writer.write(answer if not head.startswith("HEAD") else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
            await writer.drain()


@pytest.fixture
def answering(raw_server):
    """Start such a server."""

    async def start(*answers):
        server = Answering(answers)
        server.url = f"http://127.0.0.1:{await raw_server(server.serve)}"
        return server

    return start


@pytest.mark.parametrize("first", [CUT, BUSY], ids=["cut", "503"])
async def test_what_fails_at_once_is_asked_once_more(answering, first):
    server = await answering(first, OK)
    async with open_bucket(server) as bucket:
        assert await bucket.metadata("a") == {}
    assert server.left == []


async def test_what_fails_twice_has_failed(answering):
    server = await answering(CUT, CUT, OK)
    async with open_bucket(server) as bucket:
        with pytest.raises(Unavailable, match="cannot be called"):
            await bucket.metadata("a")
    assert server.left == [OK]


async def test_a_put_that_is_cut_at_once_is_made_once_more(answering):
    server = await answering(CUT, OK)
    async with open_bucket(server) as bucket:
        assert await put(bucket, "a", b"") == Stored()
    assert server.left == []


async def test_what_hangs_is_not_asked_again(answering, monkeypatch):
    for module in ("s3", "presigned_put"):
        monkeypatch.setattr(f"bridge.client.{module}.IMMEDIATE_SECONDS", -1)  # as if the first had taken long
    server = await answering(CUT, OK, CUT, OK)
    async with open_bucket(server) as bucket:
        assert isinstance(await put(bucket, "a", b""), OutcomeUnknown)
        server.left.pop(0)
        with pytest.raises(Unavailable):
            await bucket.metadata("a")
    assert server.left == [OK]


@pytest.mark.parametrize("call", ["list", "metadata", "delete", "move", "read"])
@pytest.mark.parametrize("status", [301, 307, 400])
async def test_neither_a_redirect_nor_another_region_is_followed(answering, call, status):
    other = await answering(OK, OK)
    region = {"Location": f"{other.url}/", "x_amz_bucket_region": "eu-west-1"}
    error = f"<Error><Code>PermanentRedirect</Code><Endpoint>{other.url[7:]}</Endpoint></Error>".encode()
    server = await answering(response(status, error, **region), OK)
    async with open_bucket(server) as bucket:
        calls = {
            "list": lambda: bucket.list(""),
            "metadata": lambda: bucket.metadata("a"),
            "delete": lambda: bucket.delete("a"),
            "move": lambda: bucket.move("a", "b"),
            "read": lambda: get(bucket, "a"),
        }
        with pytest.raises(Unavailable, match=str(status)):
            await calls[call]()
    assert (len(server.asked), other.asked) == (1, [])


async def test_calls_go_through_the_outbound_proxy_and_through_no_proxy_of_the_environment(
    weed, monkeypatch, closed_port
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    async with ForwardProxy() as proxy:
        way_out = OutboundProxy(proxy=URL(f"http://127.0.0.1:{proxy.port}"))
        for way in (OutboundProxy(), way_out):
            async with open_bucket(weed, outbound_proxy=way) as bucket:
                assert await put(bucket, "a", b"content") == Stored()
                assert await get(bucket, "a") == b"content"
                assert (await bucket.list("")).keys == ("a",)
        assert [method for method, target in proxy.asked if target.startswith(weed.url)] == ["PUT", "GET", "GET"]


async def test_a_bucket_behind_tls_is_trusted_by_the_settings_authorities_alone(aiohttp_server, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def answer(_request):
        return web.Response(headers={"x-amz-meta-name": "n"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = Answering(())
    server.url = str((await aiohttp_server(app, ssl=context)).make_url("/")).rstrip("/")
    trusting = OutboundProxy(trust=read_authorities(str(tmp_path / "ca.pem")))
    async with open_bucket(server, outbound_proxy=trusting) as bucket:
        assert await bucket.metadata("a") == {"name": "n"}
    async with open_bucket(server) as bucket:
        with pytest.raises(Unavailable, match=r"certificate of 127\.0\.0\.1 is not trusted"):
            await bucket.metadata("a")


async def test_no_credentials_are_in_messages_or_logs(answering, monkeypatch, caplog):
    for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "canary-s", "SESSION_TOKEN": "canary-t"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    echo = response(400, b"<Error><Code>Bad</Code><Message>canary-t Signature=canary-u</Message></Error>")
    server = await answering(echo, document("ListBucketResult", "<Name>b</Name>"))
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.set_up(level="DEBUG", stream=stream)
    try:
        async with open_bucket(server, access_key_id="", secret_access_key="") as bucket:
            with pytest.raises(Unavailable) as caught:
                await bucket.list("")
            assert await bucket.list("") == ObjectListing()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
        logging.captureWarnings(capture=False)
    assert str(caught.value) == "S3 did not list its bucket: 400 Bad … Signature=…. It is tried again later."
    assert "X-Amz-Security-Token: canary-t" in server.asked[0]
    assert "User-Agent: codearts-testnod-bridge" in server.asked[0]
    assert "canary" not in stream.getvalue() + caplog.text
    assert "AWS4-HMAC" not in stream.getvalue() + caplog.text


# -- documents of other servers, and documents that are not S3's ------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "page"),
    [
        ("<IsTruncated>false</IsTruncated>", ObjectListing()),
        ("<Contents><Key>{}a</Key></Contents>", ObjectListing(keys=("a",))),
        ("<Contents><Key>{0}a</Key></Contents><Contents><Key>{0}b</Key></Contents>", ObjectListing(keys=("a", "b"))),
        ("<CommonPrefixes><Prefix>{}a/</Prefix></CommonPrefixes>", ObjectListing(prefixes=("a/",))),
        (
            "<IsTruncated>true</IsTruncated><NextContinuationToken>t==</NextContinuationToken>",
            ObjectListing(following="t=="),
        ),
        ("<IsTruncated>true</IsTruncated>", ObjectListing()),
        ("<IsTruncated>false</IsTruncated><NextContinuationToken>t</NextContinuationToken>", ObjectListing()),
        ("<Contents><Size>1</Size></Contents>", ObjectListing()),
        ("<Contents><Key>{}a%2Bb</Key></Contents>", ObjectListing(keys=("a%2Bb",))),
        ("<EncodingType>url</EncodingType><Contents><Key>{}a%2Bb</Key></Contents>", ObjectListing(keys=("a+b",))),
    ],
)
@pytest.mark.parametrize("root", ["ListBucketResult", "ListObjectsV2Output"])
async def test_a_listing_is_read_whatever_its_root_element_is_called(answering, root, inner, page):
    server = await answering()
    async with open_bucket(server) as bucket:
        server.left.append(document(root, inner.format(bucket._prefix)))
        assert await bucket.list("") == page


@pytest.mark.parametrize(
    "answer",
    [
        PAGE,
        ERROR,
        response(200),
        response(200, b"OK"),
        response(200, b"<ListBucketResult"),
        response(200, b"\xff"),
        document("Other"),
        document("ListBucketResult", "<Contents><Size>many</Size></Contents>"),
        document("ListBucketResult", "<Contents><LastModified>long ago</LastModified></Contents>"),
        response(200, b"<ListBucketResult>" + b" " * MAX_ANSWER_BYTES + b"</ListBucketResult>"),
        response(200, b'<!DOCTYPE a [<!ENTITY b "bb">]><ListBucketResult><Name>&b;</Name></ListBucketResult>'),
    ],
)
async def test_what_is_no_listing_is_unavailable_never_an_empty_page(answering, answer):
    server = await answering(answer, answer)  # one that is too large is asked for once more
    async with open_bucket(server) as bucket:
        with pytest.raises(Unavailable, match=r"S3 (did not list|cannot be called).* It is tried again later\."):
            await bucket.list("")


ELEMENTS = ["Name", "IsTruncated", "KeyCount", "Contents", "CommonPrefixes", "Key", "Prefix", "Size", "LastModified"]
ELEMENTS += ["Owner", "EncodingType", "NextContinuationToken", "ETag", "Error", "RestoreStatus", "ChecksumAlgorithm"]
TEXTS = ["", "true", "url", "%", "-1", "9" * 400, "1e999", "nan", "0001-01-01", "99999999999999999999", "a&amp;b", "中"]
tree = st.recursive(
    st.sampled_from(TEXTS),
    lambda inner: st.lists(st.tuples(st.sampled_from(ELEMENTS), inner), max_size=4).map(
        lambda children: "".join(f"<{name}>{text}</{name}>" for name, text in children)
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(inners=st.lists(tree, min_size=5, max_size=5))
async def test_any_document_is_a_listing_or_unavailable(answering, inners):
    server = await answering(*(document("ListBucketResult", inner) for inner in inners))
    async with open_bucket(server) as bucket:
        for _ in inners:
            with suppress(Unavailable):
                assert isinstance(await bucket.list(""), ObjectListing)


@pytest.mark.parametrize("answer", [PAGE, ERROR, response(200), response(200, b"OK"), document("Other")])
async def test_an_object_that_was_not_copied_is_not_removed(answering, answer):
    server = await answering(answer, response(204))
    async with open_bucket(server) as bucket:
        if answer == document("Other"):  # S3-compatible servers have root elements of their own
            await bucket.move("a", "b")
        else:
            with pytest.raises(Unavailable, match="S3 did not move an object: 200 "):
                await bucket.move("a", "b")
            assert len(server.asked) == 1


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("root", ["InitiateMultipartUploadResult", "InitiateMultipartUpload"])
async def test_a_server_may_name_the_elements_of_a_multipart_upload_otherwise(answering, root):
    begun, part = document(root, "<UploadId>u-1</UploadId>"), response(200, ETag='"e"')
    server = await answering(begun, part, document("CompleteMultipartUpload", "<ETag>e</ETag>"))
    async with open_bucket(server) as bucket:
        assert await put(bucket, "large", b"x" * (2 * 1024 * 1024)) == Stored()
    assert [line.split()[0] for line in server.asked] == ["POST", "PUT", "POST"]


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (PAGE, "200 with an HTML page"),
        (ERROR, "200 InternalError We failed"),
        (response(200), "200 with 0 bytes (no type) that are not what was asked for"),
        (response(200, b"OK", Content_Type="text/plain"), "200 with 2 bytes (text/plain)"),
        (document("Other", "<Id>1</Id>"), "its answer has no "),
        (response(403, b"<Error><Code>AccessDenied</Code></Error>"), "403 AccessDenied"),
        (BUSY, "HTTP 503 without a readable message"),
        (CUT, "cannot be called"),
    ],
)
@pytest.mark.parametrize("step", ["begin", "complete"])
async def test_a_multipart_upload_that_fails_is_not_repeated_and_its_message_has_what_came(
    answering, step, answer, cause
):
    part = response(200, ETag='"e"')
    server = await answering(*([answer] if step == "begin" else [BEGUN, part, answer, response(204)]), OK)
    async with open_bucket(server) as bucket:
        outcome = await put(bucket, "large", b"x" * (2 * 1024 * 1024))
    assert isinstance(outcome, OutcomeUnknown)
    assert cause in outcome.message
    assert answer is CUT or outcome.message.startswith("S3 did not take an object in parts: ")
    assert server.left == [OK]  # each step once, and the upload was aborted if one was begun


async def test_headers_that_nothing_reads_may_hold_anything(answering):
    odd = {"Last_Modified": "long ago", "x_amz_missing_meta": "many", "Expires": "-1", "x_amz_mp_parts_count": "x"}
    server = await answering(response(200, x_amz_meta_name="n", **odd), response(200, b"content", **odd))
    async with open_bucket(server) as bucket:
        assert await bucket.metadata("a") == {"name": "n"}
        assert await get(bucket, "a") == b"content"
