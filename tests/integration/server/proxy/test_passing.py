"""What goes in comes out, both ways: targets, headers and bodies, byte for byte."""

import pytest

from tests.support.proxy_upstream import get

PATH = "/v1/any"


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1/any/",
        "/v1/any?",
        "/v1/any?a=&b&=c&&",
        "/v1/any?a=%2F%2f+%20~'()*!",
        "/v1/any?q=../..//x;y=%00",
        "/v1/any?next=http://elsewhere.example/?a",
        "/v1/any?a=1&a=2&A=3",
        "/v1/%E4%B8%AD/%20a%3F",
        "/v1/a:b@c,d=e+f!$&'()*",
        "/v1/any?%zz",
    ],
)
async def test_a_target_arrives_as_it_was_written(proxied, build, target):
    await proxied.ask(get(target))

    assert build.head[0] == f"GET {target} HTTP/1.1".encode()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_every_method_goes_on(proxied, build, method):
    await proxied.ask(get(PATH, method=method))

    assert build.head == [f"{method} /v1/any HTTP/1.1".encode()]


@pytest.mark.parametrize(
    "line",
    [
        b"X-Twice: 1\r\nX-Twice: 2\r\nx-twice: 3",
        b"X-Empty: ",
        b"X-UTF-8: \xe4\xb8\xad\xe6\x96\x87",
        b"X-GBK: \xd6\xd0\xce\xc4",
        b"X-Quoted: \"a, b\"; c='d'",
        b"aCCept-eNCoding: br;q=1.0, *;q=0",
        b"User-Agent: odd/1.0 (x)",
        b"Cookie: a=b; c",
        b"X-Auth-Token: an-iam-token",
        b"Authorization: Bearer another-callers",
        b"X-Project-Id: 123",
        b"X-Long: " + b"x" * 100_000,
        b'If-None-Match: W/"a"',
        b"Range: bytes=0-1",
    ],
    ids=lambda line: line[:20].decode("ascii", "replace"),
)
async def test_headers_of_an_open_caller_arrive_as_they_were_written(proxied, build, line):
    await proxied.ask(get(PATH, line))

    assert build.head[1:] == line.split(b"\r\n")


async def test_the_upstream_is_told_its_own_name_and_who_passed_the_call_on(proxied, build):
    await proxied.ask(get(PATH))

    lines = build.requests[-1].split(b"\r\n")
    assert b"Host: " + build.url.removeprefix("http://").encode() in lines
    assert [line for line in lines if line.startswith(b"Via: 1.1 codearts-testnod-bridge-")]


@pytest.mark.parametrize(
    "line",
    [
        "Keep-Alive: timeout=5",
        "Proxy-Authorization: Basic eDp5",
        "Proxy-Connection: keep-alive",
        "TE: trailers",
        "Upgrade: h2c",
        "Connection: X-Mine\r\nX-Mine: 1",
        "X-Bridge-Hook: secret",
        "X-Sdk-Date: 20260101T000000Z",
        "Authorization: SDK-HMAC-SHA256 Access=a, SignedHeaders=host, Signature=b",
        "X-Original-URL: /v1/other",
        "X-HTTP-Method-Override: DELETE",
        "X-Auth-Token: token-of-ended",
        "Authorization: bearer token-of-ended",
    ],
)
async def test_what_is_for_the_bridge_alone_stays_with_it(proxied, build, line):
    await proxied.ask(get(PATH, line))

    assert build.head == [b"GET /v1/any HTTP/1.1"]


async def test_a_caller_cannot_have_the_length_of_its_body_dropped(proxied, build):
    await proxied.ask(get(PATH, "Connection: Content-Length", "Content-Length: 3", method="POST", body=b"abc"))

    assert build.head[1:] == [b"Content-Length: 3"]


@pytest.mark.parametrize(
    ("lines", "body", "arrives"),
    [
        (["Content-Length: 5"], b"\x00\xff\r\nz", b"\x00\xff\r\nz"),
        (["Content-Length: 0"], b"", b""),
        (["Content-Length: 6", "Content-Encoding: gzip"], b"no zip", b"no zip"),
        (["Transfer-Encoding: chunked"], b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: 1\r\n\r\n", b"abcde"),
    ],
)
async def test_bodies_go_on_as_they_are(proxied, build, lines, body, arrives):
    await proxied.ask(get(PATH, *lines, method="POST", body=body))

    assert build.head[1:] == [line.encode() for line in lines] or lines == ["Transfer-Encoding: chunked"]
    assert unchunked(build.body) == arrives if "chunked" in lines[0] else build.body == arrives


def unchunked(body):
    """Return what chunks hold."""
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        whole, body = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return whole


@pytest.mark.parametrize(
    ("answer", "arrives"),
    [
        (
            b"HTTP/1.1 200 Fine\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 Fine\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            b"HTTP/1.1 200 OK\r\nX: \xd6\xd0\r\nY:\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b!",
            b"HTTP/1.1 200 OK\r\nX: \xd6\xd0\r\nY: \r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b!",
        ),
        (
            b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 99\r\n\r\n',
            b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 99\r\n\r\n',
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            b"HTTP/1.1 503 Away\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\naway",
            b"HTTP/1.1 503 Away\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\naway",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2;e\r\nok\r\n0\r\nX: 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nok",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", b"HTTP/1.1 200 OK\r\n\r\nto the end"),
        (
            b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nX-Subject-Token: " + b"t" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX-Subject-Token: " + b"t" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
        ),
    ],
)
async def test_answers_come_back_as_they_were_written(proxied, build, answer, arrives):
    async def once(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    build.script = once

    head, _, body = (await proxied.ask(get(PATH))).partition(b"\r\n\r\n")

    ours = (b"Via: 1.1 codearts-", b"Connection: close", b"Transfer-Encoding: chunked")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(ours)]
    if b"Transfer-Encoding: chunked" in head:
        body = unchunked(body)
    assert b"\r\n".join([*lines, b"", body]) == arrives


async def test_a_head_has_the_length_that_a_get_would_have(proxied, build):
    build.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"

    answer = await proxied.ask(get(PATH, method="HEAD"))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_caller_of_http_1_0_gets_its_body_unchunked(proxied, build):
    build.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

    answer = await proxied.ask(b"GET /v1/any HTTP/1.0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"chunked" not in answer
    assert answer.endswith(b"\r\n\r\nok")


async def test_connections_serve_many_calls_on_both_sides(proxied, build):
    twice = b"GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n" + get("/v1/b")

    answer = await proxied.ask(twice)

    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert build.connections == 1
