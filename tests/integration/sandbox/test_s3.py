import asyncio
import hashlib
from urllib.parse import urlsplit

import pytest
from aiobotocore.session import get_session
from yarl import URL

from bridge.sandbox.sandbox import Sandbox
from bridge.sandbox.state import BUCKET, Behavior


@pytest.fixture
async def registration(testnod):
    _, body = await testnod.register()
    return body


async def put(http, url, **kwargs):
    async with http.put(URL(url, encoded=True), **kwargs) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_a_put_stores_the_bytes_as_they_came(http, sandbox, registration):
    body = b"<testsuite/>" * 50_000
    status, text, headers = await put(http, registration["presigned_url"], data=body)
    assert (status, text) == (200, "")
    assert headers["ETag"] == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    upload = sandbox.state.runs.upload(registration["upload_id"])
    assert (upload.size, upload.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert sandbox.state.objects.find(upload.key).body == body


async def test_compressed_bytes_are_not_unfolded(http, sandbox, registration):
    await put(http, registration["presigned_url"], data=b"\x1f\x8b not really", headers={"Content-Encoding": "gzip"})
    upload = sandbox.state.runs.upload(registration["upload_id"])
    assert sandbox.state.objects.find(upload.key).body == b"\x1f\x8b not really"


async def test_a_url_is_good_for_five_minutes(http, clock, registration):
    clock.move(300)
    assert (await put(http, registration["presigned_url"], data=b"x"))[0] == 200
    clock.move(1)
    status, text, headers = await put(http, registration["presigned_url"], data=b"x")
    assert status == 403
    assert headers["Content-Type"].startswith("application/xml")
    assert "<Error><Code>AccessDenied</Code><Message>Request has expired</Message>" in text


async def test_a_url_for_another_object_is_refused(http, sandbox, registration):
    url = registration["presigned_url"].replace(f"/{registration['upload_id']}.xml", "/77.xml")
    status, text, _ = await put(http, url, data=b"x")
    assert status == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in text
    assert len(sandbox.state.objects) == 0


async def test_an_amz_header_that_was_not_signed_is_refused(http, sandbox, registration):
    headers = {"x-amz-acl": "private"}
    status, text, _ = await put(http, registration["presigned_url"], data=b"x", headers=headers)
    assert status == 403
    assert "<Code>AccessDenied</Code>" in text
    assert "<HeadersNotSigned>x-amz-acl</HeadersNotSigned>" in text
    assert len(sandbox.state.objects) == 0


async def test_a_chunked_body_is_refused(http, sandbox, registration):
    async def pieces():
        yield b"<testsuite/>"

    status, text, _ = await put(http, registration["presigned_url"], data=pieces())
    assert status == 411
    assert "<Code>MissingContentLength</Code>" in text
    assert len(sandbox.state.objects) == 0


async def test_a_url_without_a_signature_is_denied(http, registration):
    url = registration["presigned_url"].partition("?")[0]
    assert (await put(http, url, data=b"x"))[0] == 403


async def test_only_put_is_allowed(http, registration):
    async with http.get(URL(registration["presigned_url"], encoded=True)) as answer:
        assert answer.status == 405


async def begin_put(registration, length, body):
    parts = urlsplit(registration["presigned_url"])
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {length}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


async def test_a_body_that_ends_early_is_not_stored(sandbox, registration):
    reader, writer = await begin_put(registration, 100, b"<tests")
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()
    assert [call.status for call in sandbox.state.calls.at("s3.put")] == [400]
    assert sandbox.state.runs.upload(registration["upload_id"]).put_at is None
    assert len(sandbox.state.objects) == 0


async def test_a_body_that_stands_still_is_answered_with_request_timeout(sandbox, registration):
    sandbox.state.behavior = sandbox.state.behavior.changed({"storage_idle_seconds": 0.01})
    reader, writer = await begin_put(registration, 100, b"<tests")
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert len(sandbox.state.objects) == 0


async def test_only_digests_are_kept_when_asked_for(http, sandbox, registration):
    sandbox.state.behavior = sandbox.state.behavior.changed({"keep_bytes": False})
    await put(http, registration["presigned_url"], data=b"<testsuite/>")
    stored = sandbox.state.objects.find(sandbox.state.runs.upload(registration["upload_id"]).key)
    assert (stored.body, stored.size) == (None, 12)


@pytest.fixture
async def real_time_sandbox():
    async with Sandbox(behavior=Behavior(url_seconds=60)) as sandbox:
        yield sandbox


@pytest.mark.parametrize(("bucket", "expected"), [(BUCKET, 200), ("another", 404)])
async def test_a_url_that_aiobotocore_signed_is_accepted(http, real_time_sandbox, bucket, expected):
    keys = real_time_sandbox.state.keys
    async with get_session().create_client(
        "s3",
        region_name=keys.region,
        endpoint_url=real_time_sandbox.s3_url,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
    ) as client:
        url = await client.generate_presigned_url(
            "put_object", Params={"Bucket": bucket, "Key": "by hand/ü.xml"}, ExpiresIn=60
        )
    assert (await put(http, url, data=b"x"))[0] == expected
