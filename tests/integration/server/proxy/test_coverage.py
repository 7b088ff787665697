"""Coverage uploads through the proxy: with the bridge's credentials, streamed, and only for jobs of the caller."""

import asyncio
from dataclasses import replace
from functools import partial
from hashlib import sha256

import pytest

from bridge.client.credentials import StaticHeaders
from bridge.protocols import aksk_signing
from bridge.server.auth.authenticator import Authenticator
from bridge.server.auth.signatures import Lockout, SignatureVerifier
from bridge.server.proxy.handler import MAX_SIGNED_BYTES
from bridge.server.proxy.request_target import Upstream as Service
from bridge.store.signature_uses import record_signature_uses
from tests.integration.server.proxy.conftest import CREDENTIALS, JOB, MAX_COVERAGE, OTHER_JOB, OUR_TOKEN
from tests.integration.server.proxy.test_authorization_on_the_wire import error_of, sent, status_of
from tests.integration.server.proxy.test_places import KEY as PROXY_KEY
from tests.integration.server.proxy.test_places import NOW
from tests.support.proxy_upstream import ask_once, get, read_request

KEY = replace(PROXY_KEY, caller=replace(PROXY_KEY.caller, scopes=frozenset({"upload"})))
UPLOADER = "X-Auth-Token: token-of-of-shop"
FORM = "Content-Type: multipart/form-data; boundary=b"
OURS = f"X-Auth-Token: {OUR_TOKEN}".encode()


def target(job_id=JOB):
    return f"/v1/report/junit/coverage/upload?job_id={job_id}&build_no=1&node_id=n"


def form(content=b"", *, size=None, **fields):
    """Return a form with fields before one file; `size` makes its content as long as the whole form is to be."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="coverage.xml"\r\n\r\n'
    start, end = "".join(parts).encode() + head, b"\r\n--b--\r\n"
    return start + (content if size is None else b"x" * (size - len(start) - len(end))) + end


def post(body, *headers, job_id=JOB, length=None):
    size = len(body) if length is None else length
    return get(target(job_id), *headers, FORM, f"Content-Length: {size}", method="POST", body=body)


def chunked(body, *headers):
    framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return get(target(), *headers, FORM, "Transfer-Encoding: chunked", method="POST", body=framed)


async def test_an_uploader_sends_coverage_with_the_proof_of_the_bridge(start):
    proxied = await start()
    assert status_of(await proxied.ask(post(form(b"coverage"), UPLOADER, "Cookie: s=1"))) == 200
    build = proxied.upstreams[Service.BUILD]
    assert build.head[0] == f"POST {target()} HTTP/1.1".encode()
    assert OURS in build.head
    assert b"of-shop" not in build.requests[0]
    assert b"Cookie" not in build.requests[0]
    assert build.body == form(b"coverage")
    assert proxied.counted.coverage == [200]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (post(form(), UPLOADER, job_id=OTHER_JOB), 403, "APIGW.0302"),
        (post(form(), UPLOADER, job_id=f"{JOB}&job_id={OTHER_JOB}"), 400, "CB.00060200"),
        (post(form(), UPLOADER, job_id=""), 400, "CB.00060200"),
        (post(form(), "X-Auth-Token: token-of-ci"), 403, "APIGW.0302"),
        (post(form()), 401, "APIGW.0301"),
        (post(b"", UPLOADER, length=MAX_COVERAGE + 1), 413, "BRIDGE.TOO_LARGE"),
    ],
)
async def test_what_may_not_be_uploaded_is_rejected_and_counted_and_nothing_goes_on(start, request_, status, code):
    proxied = await start()
    answer = await ask_once(proxied.url, request_)
    assert (status_of(answer), error_of(answer)) == (status, code)
    assert sent(proxied) == []
    assert proxied.counted.coverage == [status]


async def test_a_body_without_a_length_is_ended_at_the_limit_and_never_complete(start):
    proxied = await start()
    received = asyncio.get_running_loop().create_future()

    async def reads_all(reader, _writer):
        received.set_result(await reader.read())

    proxied.upstreams[Service.BUILD].script = reads_all
    answer = await proxied.ask(chunked(form(size=MAX_COVERAGE + 1), UPLOADER))
    assert (status_of(answer), error_of(answer)) == (413, "BRIDGE.TOO_LARGE")
    assert not (await received).endswith(b"0\r\n\r\n")


async def test_a_body_at_the_limit_is_forwarded(start):
    proxied = await start()
    assert status_of(await proxied.ask(post(form(size=MAX_COVERAGE), UPLOADER))) == 200
    assert len(proxied.upstreams[Service.BUILD].body) == MAX_COVERAGE


async def test_a_body_without_a_length_is_forwarded_whole(start):
    proxied = await start()
    assert status_of(await proxied.ask(chunked(form(size=50_000), UPLOADER))) == 200
    assert proxied.upstreams[Service.BUILD].body.endswith(b"--b--\r\n\r\n0\r\n\r\n")


async def test_credentials_that_sign_have_a_limit_of_their_own(start):
    account = StaticHeaders((("X-Auth-Token", OUR_TOKEN),))
    account.max_body_bytes = 1000
    proxied = await start(account=account)
    assert status_of(await proxied.ask(post(form(size=1000), UPLOADER))) == 200
    assert status_of(await ask_once(proxied.url, post(b"", UPLOADER, length=1001))) == 413


async def test_a_body_is_streamed(start):
    proxied = await start()
    first = asyncio.get_running_loop().create_future()

    async def reads_first(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        first.set_result(head + await reader.readuntil(b"first"))
        await reader.readuntil(b"--b--\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    proxied.upstreams[Service.BUILD].script = reads_first
    host, port = proxied.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = form(b"first and more of it")
    middle = body.index(b"of it")
    writer.write(post(body[:middle], UPLOADER, length=len(body)))
    assert (await first).endswith(b"first")
    writer.write(body[middle:])
    assert status_of(await read_request(reader)) == 200
    writer.close()


async def test_callers_of_an_open_bridge_upload_with_what_they_have(start):
    proxied = await start(open_to_all=True)
    for headers in ((), ("X-Auth-Token: theirs",)):
        assert status_of(await proxied.ask(post(form(), *headers))) == 200
    build = proxied.upstreams[Service.BUILD]
    assert all(OURS not in request for request in build.requests)
    assert b"X-Auth-Token: theirs" in build.requests[1]


# -- signed ------------------------------------------------------------------------------------------------------------


def signature_of(digest, *, announced=False):
    """Return the headers of a signed upload whose body has this digest."""
    path, _, query = target().partition("?")
    headers = [("Host", "bridge.example")] + [(aksk_signing.PAYLOAD_HEADER, digest)] * announced
    raw = aksk_signing.RawRequest(method="POST", path=path, query=query, headers=tuple(headers))
    pair = aksk_signing.AccessKeyPair(access_key=KEY.access_key, secret_key=KEY.secret_key)
    added = aksk_signing.sign(raw, pair, at=NOW, payload_sha256=digest)
    return [f"{name}: {value}" for name, value in (*headers[1:], *added)]


@pytest.fixture
def used():
    """The digests of bodies by signature."""
    return {}


@pytest.fixture
def signing(used):
    async def record_use(use):
        return used.setdefault(use.signature_key, use.body_sha256)

    verifier = SignatureVerifier([KEY], now=lambda: NOW, lockout=Lockout(lambda: NOW), record_use=record_use)
    return Authenticator(CREDENTIALS, now=lambda: NOW, signatures=verifier)


@pytest.fixture(params=["body left out", "digest announced"])
def signed(request):
    """Return a request with a body, and the signature of that body or of another."""

    def signed(body, of=None):
        if request.param == "body left out":
            return post(body, *signature_of(aksk_signing.UNSIGNED_PAYLOAD))
        return post(body, *signature_of(sha256(body if of is None else of).hexdigest(), announced=True))

    return signed


async def test_a_signing_caller_uploads_more_than_other_signed_calls_may_have(start, signing, signed):
    proxied = await start(callers=signing)
    body = form(size=MAX_SIGNED_BYTES + 1)
    assert status_of(await proxied.ask(signed(body))) == 200
    assert proxied.upstreams[Service.BUILD].body == body


async def test_a_signing_caller_is_held_to_the_limit_of_coverage(start, signing, signed):
    proxied = await start(callers=signing)
    answer = await ask_once(proxied.url, signed(form(size=MAX_COVERAGE + 1)))
    assert (status_of(answer), error_of(answer)) == (413, "BRIDGE.TOO_LARGE")
    assert sent(proxied) == []


async def test_another_body_with_a_copied_signature_never_arrives_whole(start, signing, signed):
    proxied = await start(callers=signing)
    first, other = form(b"x" * 50_000), form(b"y" * 50_000)
    assert status_of(await proxied.ask(signed(first))) == 200
    answer = await proxied.ask(signed(other, of=first))
    assert status_of(answer) == 401
    assert len(proxied.upstreams[Service.BUILD].requests) == 1


async def test_a_signature_serves_one_body_at_every_replica_and_no_other_form_is_ever_complete(start, database):
    """The last bytes of a body are not the end of its form, if something follows the form."""

    def callers():  # of one replica
        record_use = partial(database.write, record_signature_uses)
        verifier = SignatureVerifier([KEY], now=lambda: NOW, lockout=Lockout(lambda: NOW), record_use=record_use)
        return Authenticator(CREDENTIALS, now=lambda: NOW, signatures=verifier)

    first, replica = await start(callers=callers()), await start(callers=callers())
    received = asyncio.get_running_loop().create_future()

    async def reads_all(reader, _writer):
        received.set_result(await reader.read())

    headers = signature_of(aksk_signing.UNSIGNED_PAYLOAD)
    assert status_of(await first.ask(post(form(b"first"), *headers))) == 200
    replica.upstreams[Service.BUILD].script = reads_all
    answer = await replica.ask(post(form(b"other" * 10_000) + b"\r\n" * 100, *headers))
    assert (status_of(answer), error_of(answer)) == (401, "APIGW.0301")
    seen = await received
    assert b"other" in seen
    assert b"--b--" not in seen
    replica.upstreams[Service.BUILD].script = None
    assert status_of(await replica.ask(post(form(b"first"), *headers))) == 200


async def test_a_signed_form_that_was_read_whole_is_checked_too(start, signing):
    """Without the announced digest, a body is read before its signature is known."""
    proxied = await start(callers=signing)
    body = form(job_id=OTHER_JOB)
    headers = signature_of(sha256(body).hexdigest())
    answer = await proxied.ask(post(body, *headers))
    assert (status_of(answer), error_of(answer)) == (400, "CB.00060200")
    assert sent(proxied) == []


# -- the form ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"job_id": OTHER_JOB}, {"build_no": "2"}, {"node_id": "m"}, {"jobId": JOB}])
@pytest.mark.parametrize("caller", ["token-of-of-shop", "token-of-uploader"])
async def test_a_form_that_names_another_build_is_rejected_and_never_complete(start, fields, caller):
    proxied = await start()
    answer = await proxied.ask(post(form(b"x" * 200_000, **fields), f"X-Auth-Token: {caller}"))
    assert (status_of(answer), error_of(answer)) == (400, "CB.00060200")
    assert next(iter(fields)).encode() in answer
    assert sent(proxied) == []
    assert proxied.counted.coverage == [400]


async def test_a_form_may_repeat_what_its_query_states(start):
    proxied = await start()
    body = form(b"coverage", job_id=JOB.upper(), build_no="1", node_id="n")
    assert status_of(await proxied.ask(post(body, UPLOADER))) == 200
    assert proxied.upstreams[Service.BUILD].body == body


@pytest.mark.parametrize("caller", ["token-of-ci", "token-of-anywhere"])
async def test_a_form_with_another_job_is_rejected_also_if_the_proxys_paths_allow_the_call(start, caller):
    proxied = await start(paths=["*"], methods=["POST"])
    header = f"X-Auth-Token: {caller}"
    answer = await proxied.ask(post(form(job_id=OTHER_JOB), header))
    assert (status_of(answer), error_of(answer), sent(proxied)) == (400, "CB.00060200", [])
    assert status_of(await proxied.ask(post(form(), header))) == 200


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Type: application/x-www-form-urlencoded"],
        ["Content-Type: application/json"],
        ["Content-Type: multipart/mixed; boundary=b"],
        ["Content-Type: multipart/form-data"],
        ["Content-Type: multipart/form-data; boundary=b; boundary=c"],
        ["Content-Type: multipart/form-data; boundary=b", "Content-Type: text/plain"],
        ["Content-Type: multipart/form-data; boundary=b", "Content-Encoding: gzip"],
        [],
    ],
)
async def test_what_is_no_form_with_one_reading_is_not_forwarded(start, headers):
    proxied = await start()
    body = f"job_id={OTHER_JOB}".encode()
    request = get(target(), UPLOADER, *headers, f"Content-Length: {len(body)}", method="POST", body=body)
    answer = await proxied.ask(request)
    assert (status_of(answer), error_of(answer)) == (400, "CB.00060200")
    assert sent(proxied) == []
