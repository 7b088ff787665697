"""Which credentials reach CodeArts: no secret goes to a recipient that it was not meant for."""

import json

import pytest

from bridge.client.credentials import AccessKeySigner
from bridge.domain.request_rate import Api
from bridge.protocols import aksk_signing
from bridge.server.proxy.request_target import Upstream as Service
from tests.integration.server.proxy.conftest import JOB, OTHER_JOB, OUR_TOKEN
from tests.support.proxy_upstream import OK, get

BUILD_INFO = f"/v1/job/{JOB}/1/build-info"
OURS = f"X-Auth-Token: {OUR_TOKEN}".encode()
CI = "X-Auth-Token: token-of-ci"

CLAIMS = (
    *("X_Auth_Token", "X_Project_Id", "X-User-Id", "X-Iam-User", "X-Domain-Name", "Projectid", "X-Amz-Security-Token"),
    *("X-Real-IP", "X-Original-Uri", "X-Original-Method", "X-Forwarded-Uri", "X-Forwarded-For", "X-Forwarded-User"),
    *("X-Remote-User", "Cookie2", "X-Envoy-Original-Path", "X-Accel-Redirect", "X-Mine", "Content_Length"),
)


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


def error_of(answer):
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert b"X-Request-Id: " in answer
    assert body["error_code"] == body["error"]["code"]
    return body["error_code"]


def sent(proxied):
    return [request for upstream in proxied.upstreams.values() for request in upstream.requests]


@pytest.mark.parametrize(
    "proof",
    [
        CI,
        "Authorization: Bearer token-of-ci",
        CI + "\r\nAuthorization: Bearer other\r\nCookie: s=1\r\nX-Security-Token: t\r\nX-Subject-Token: t",
        CI + "\r\nX-Project-Id: 1\r\nX-Domain-Id: 2\r\nX-Bridge-Hook: h\r\nX-Sdk-Date: d",
        CI + "\r\nX-HTTP-Method-Override: DELETE\r\nX-Original-URL: /v1/other\r\nX-Rewrite-URL: /v1/other",
        *(f"{CI}\r\n{name}: {OTHER_JOB}" for name in CLAIMS),
    ],
    ids=lambda proof: proof.split("\r\n")[-1],
)
async def test_a_lent_call_carries_the_proof_of_the_bridge_alone(start, proof):
    proxied = await start()

    assert status_of(await proxied.ask(get(BUILD_INFO, proof, "X-Language: en-us"))) == 200

    build = proxied.upstreams[Service.BUILD]
    assert build.head == [f"GET {BUILD_INFO} HTTP/1.1".encode(), b"X-Language: en-us", OURS]


@pytest.mark.parametrize(
    "line",
    [
        "Accept: application/json",
        "aCCept-eNCoding: gzip",
        "Accept-Language: zh-cn",
        "Content-Type: application/json",
        'If-None-Match: "a"',
        "User-Agent: huaweicloud-usdk-python/3.0",
        "Range: bytes=0-1",
        "Cache-Control: no-cache",
        "traceparent: 00-a-b-01",
    ],
)
async def test_a_lent_call_carries_what_says_how_the_client_wants_its_answer(start, line):
    proxied = await start()

    assert status_of(await proxied.ask(get(BUILD_INFO, CI, line))) == 200

    assert proxied.upstreams[Service.BUILD].head[1:] == [line.encode(), OURS]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("Content-Length: 40", b"x" * 40),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"),
        ("Content-Length: 0", b""),
    ],
    ids=["of a length", "in chunks", "empty"],
)
async def test_a_lent_call_that_reads_has_no_body(start, method, line, body):
    proxied = await start()

    request = get(BUILD_INFO, CI, "Content-Encoding: gzip", "Content-Type: text/plain", line, method=method, body=body)
    await proxied.ask(request)

    build = proxied.upstreams[Service.BUILD]
    assert build.head == [f"{method} {BUILD_INFO} HTTP/1.1".encode(), b"Content-Type: text/plain", OURS]
    assert build.body == b""


async def test_a_lent_call_that_writes_has_its_body(start):
    proxied = await start(paths=("*",), methods=("PUT",))

    await proxied.ask(get(BUILD_INFO, CI, "Content-Length: 3", method="PUT", body=b"abc"))

    assert proxied.upstreams[Service.BUILD].body == b"abc"


async def test_a_session_of_the_bridges_account_is_not_handed_out(start):
    proxied = await start()
    proxied.upstreams[Service.BUILD].answer = OK.replace(b"OK\r\n", b"OK\r\nSet-Cookie: s=1\r\nX-Subject-Token: t\r\n")

    answer = await proxied.ask(get(BUILD_INFO, CI))

    assert status_of(answer) == 200
    assert b"Set-Cookie" not in answer
    assert b"X-Subject-Token" not in answer


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (get(BUILD_INFO), 401, "APIGW.0301"),
        (get(BUILD_INFO, "X-Auth-Token: guess"), 401, "APIGW.0301"),
        (get(BUILD_INFO, "X-Auth-Token: token-of-ended"), 401, "APIGW.0301"),
        (get(BUILD_INFO, "X-Auth-Token: token-of-uploader"), 403, "APIGW.0302"),
        (get(f"/v1/job/{OTHER_JOB}/1/build-info", CI), 403, "APIGW.0302"),
        (get(BUILD_INFO, CI, method="DELETE"), 403, "APIGW.0302"),
        (get("/v3/auth/tokens", CI), 403, "APIGW.0302"),
        (get("/v3/auth/tokens", CI, method="PUT"), 403, "APIGW.0302"),
        (get("//v1/job", CI), 400, "CB.00060200"),
        (get(f"/v1/job/{JOB}/../{OTHER_JOB}/build-info", CI), 400, "CB.00060200"),
        (get(f"/v1/job/{JOB}%2F..%2F{OTHER_JOB}/1/build-info", CI), 400, "CB.00060200"),
        (get("http://127.0.0.1:1/v1/job", CI), 400, "CB.00060200"),
        (get(BUILD_INFO, CI, method="TRACE"), 400, "CB.00060200"),
        (get(BUILD_INFO, CI, "Connection: upgrade", "Upgrade: websocket"), 400, "CB.00060200"),
        (get(BUILD_INFO, CI, "Upgrade: h2c, foo"), 400, "CB.00060200"),
    ],
)
async def test_who_may_not_is_told_and_nothing_goes_on(start, request_, status, code):
    proxied = await start()

    answer = await proxied.ask(request_)

    assert (status_of(answer), error_of(answer)) == (status, code)
    assert sent(proxied) == []
    assert [noted for _, noted in proxied.counted.calls] == [status]


async def test_a_login_at_iam_needs_no_token_and_sends_no_token_of_the_bridge(start):
    proxied = await start()
    body = b'{"auth":{}}'

    answer = await proxied.ask(get("/v3/auth/tokens", CI, f"Content-Length: {len(body)}", method="POST", body=body))

    iam = proxied.upstreams[Service.IAM]
    assert status_of(answer) == 200
    assert iam.head == [b"POST /v3/auth/tokens HTTP/1.1", f"Content-Length: {len(body)}".encode()]
    assert iam.body == body


async def test_each_path_goes_to_its_own_service(start):
    proxied = await start(open_to_all=True)

    for path in (BUILD_INFO, "/v2/tasks/1/progress", "/v3/projects"):
        await proxied.ask(get(path))

    assert [upstream.head for upstream in proxied.upstreams.values()] == [
        [f"GET {BUILD_INFO} HTTP/1.1".encode()],
        [b"GET /v2/tasks/1/progress HTTP/1.1"],
        [b"GET /v3/projects HTTP/1.1"],
    ]


async def test_a_service_without_an_endpoint_is_named_with_its_setting(start):
    proxied = await start(services=(Service.BUILD,), open_to_all=True)

    answer = await proxied.ask(get("/v2/tasks/1/progress"))

    assert (status_of(answer), error_of(answer)) == (404, "BRIDGE.NOT_FOUND")
    assert b"codearts.check_endpoint" in answer


async def test_with_a_key_the_bridge_signs_for_the_host_of_the_upstream(start):
    key = aksk_signing.AccessKeyPair(access_key="OURS", secret_key="our-secret")
    proxied = await start(account=AccessKeySigner(key, "", lambda: 1_700_000_000_000_000))

    assert status_of(await proxied.ask(get(f"{BUILD_INFO}?b=%2F&a=", CI))) == 200

    build = proxied.upstreams[Service.BUILD]
    lines = build.requests[-1].decode().partition("\r\n\r\n")[0].split("\r\n")[1:]
    headers = [tuple(line.split(": ", 1)) for line in lines]
    request = aksk_signing.RawRequest(method="GET", path=BUILD_INFO, query="b=%2F&a=", headers=headers)
    authorization = aksk_signing.read_authorization(dict(headers)["Authorization"])
    assert authorization is not None
    assert "host" in authorization.signed_headers
    assert aksk_signing.is_signed_with(request, authorization, "our-secret", aksk_signing.EMPTY_SHA256)


async def test_that_codearts_rejects_the_bridge_is_no_fault_of_the_caller(start):
    proxied = await start()
    proxied.upstreams[Service.BUILD].answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"

    answer = await proxied.ask(get(BUILD_INFO, CI))

    assert (status_of(answer), error_of(answer)) == (502, "APIGW.0202")


async def test_a_call_that_comes_back_is_rejected(proxied, build):
    await proxied.ask(get("/v1/any"))
    via = next(line for line in build.requests[-1].split(b"\r\n") if line.startswith(b"Via: "))

    answer = await proxied.ask(get("/v1/any", b"Via: 1.0 other, " + via.removeprefix(b"Via: ")))

    assert (status_of(answer), error_of(answer)) == (502, "APIGW.0202")
    assert len(build.requests) == 1


THROTTLED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}"


async def test_a_call_that_is_throttled_in_the_bridges_name_slows_its_own_calls_down(start):
    proxied = await start()
    proxied.upstreams[Service.BUILD].answer = THROTTLED
    assert status_of(await proxied.ask(get(BUILD_INFO, CI))) == 429
    assert proxied.throttled == [(Api.BUILD_INFO, 7.0)]


async def test_a_call_that_is_throttled_in_the_callers_own_name_does_not(start):
    proxied = await start(open_to_all=True)
    proxied.upstreams[Service.BUILD].answer = THROTTLED
    assert status_of(await proxied.ask(get(BUILD_INFO, "X-Auth-Token: of-their-own"))) == 429
    assert proxied.throttled == []
