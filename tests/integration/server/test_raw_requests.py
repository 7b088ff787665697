"""What each kind of strange HTTP gets from the real server: bytes over a socket, an answer in CodeArts' shape."""

import asyncio

import pytest
import pytest_asyncio

from bridge.server.http.protocol import MAX_SEGMENTS
from tests.support.listener import running, say

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOB = "a1" * 16
UPLOAD_PATH = "/v1/report/junit/report/upload"
TARGET = f"{UPLOAD_PATH}?job_id={JOB}&build_no=1"
KNOWN = "Host: x\r\nX-Auth-Token: canary-token\r\n"
CALLERS = """\
[[callers.tokens]]
name = "ci"
token = "canary-token"
scopes = ["upload", "status"]
[[routes]]
name = "shop"
project_token = "t-123456"
"""
EMPTY_CHUNKS = "0\r\n\r\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory):
    async with running(tmp_path_factory.mktemp("gateway"), CALLERS) as gateway:
        yield gateway


@pytest.fixture
def url(gateway):
    return gateway.server_url


@pytest.fixture(params=["server", "admin"])
def each_url(request, gateway):
    return getattr(gateway, f"{request.param}_url")


def upload(*headers: str, body: str = "", target: str = TARGET) -> str:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"POST {target} HTTP/1.1\r\n{KNOWN}{lines}\r\n{body}"


def get(target: str, *headers: str, version: str = "1.1") -> str:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"GET {target} HTTP/{version}\r\n{KNOWN}{lines}\r\n"


MALFORMED = {
    "two lengths": upload("Content-Length: 3", "Content-Length: 4", body="abc"),
    "the same length twice": upload("Content-Length: 3", "Content-Length: 3", body="abc"),
    "a list of lengths": upload("Content-Length: 3, 3", body="abc"),
    "a length with a sign": upload("Content-Length: +3", body="abc"),
    "a length beyond 64 bits": upload("Content-Length: 99999999999999999999", body="abc"),
    "a length and chunks": upload("Content-Length: 3", "Transfer-Encoding: chunked", body=EMPTY_CHUNKS),
    "chunks and a length": upload("Transfer-Encoding: chunked", "Content-Length: 3", body=EMPTY_CHUNKS),
    "an unknown transfer coding": upload("Transfer-Encoding: x", body=EMPTY_CHUNKS),
    "chunked twice": upload("Transfer-Encoding: chunked, chunked", body=EMPTY_CHUNKS),
    "a folded header": get("/livez", "X-Long: a", " b"),
    "a blank in a header's name": get("/livez", "X Y: 1"),
    "a blank before the colon": get("/livez", "X-Y : 1"),
    "a header without a name": get("/livez", ": 1"),
    "a NUL in a header": get("/livez", "X-Y: a\0b"),
    "a bare carriage return": get("/livez", "X-Y: a\rb"),
    "bare line feeds": "GET /livez HTTP/1.1\nHost: x\n\n",
    "two hosts": get("/livez", "Host: y"),
    "no host": "GET /livez HTTP/1.1\r\n\r\n",
    "a blank in the path": get("/a b"),
    "bytes beyond ASCII in the path": get("/\xff\xfe"),
    "a port out of range": get("http://x:99999/livez"),
    "a host that is no punycode": get("http://xn--a/livez"),
    "an unknown version": get("/livez", version="9.9"),
    "HTTP/2 without TLS": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01",
    "no HTTP at all": "hello\r\n\r\n",
    "hundreds of headers": get("/livez", *[f"X-{number}: 1" for number in range(200)]),
}
TOO_LONG = {
    "a request line of 64 KiB": get("/" + "a" * 65_536),
    "a header of 140 KB": get("/livez", f"X-Long: {'a' * 140_000}"),
}


@pytest.mark.parametrize("request_text", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_not_well_formed_is_refused_in_codearts_shape_and_nothing_of_it_repeated(url, request_text):
    answer = await say(url, request_text.encode("latin1"))

    assert (answer.status, answer.json["status"], answer.json["error_code"]) == (400, "fail", "CB.00060200")
    assert answer.json["error_msg"].startswith("The request is not well-formed HTTP/1.1")
    assert len(answer.headers["x-request-id"]) == 32
    assert b"canary" not in answer.body


@pytest.mark.parametrize("request_text", TOO_LONG.values(), ids=TOO_LONG)
async def test_what_is_too_long_says_so(url, request_text):
    answer = await say(url, request_text.encode("latin1"))

    assert (answer.status, answer.json["error_code"]) == (400, "CB.00060200")
    assert "is too long" in answer.json["error_msg"]
    assert "x-request-id" in answer.headers


TAKEN = {
    "a header of 100 KB": (get("/livez", f"X-Subject-Token: {'a' * 100_000}"), 200),
    "absolute form, whatever host it names": (get("http://elsewhere.example/livez"), 200),
    "absolute form of an upload": (upload("Content-Length: 0", target=f"http://elsewhere.example{TARGET}"), 400),
    "HTTP/1.0": ("GET /livez HTTP/1.0\r\n\r\n", 200),
    "an upgrade that is not asked for": (get("/livez", "Connection: Upgrade", "Upgrade: websocket"), 200),
    "Expect: 100-continue": (upload("Expect: 100-continue", "Content-Length: 0"), 400),
}


@pytest.mark.parametrize(("request_text", "status"), TAKEN.values(), ids=TAKEN)
async def test_what_is_odd_but_clear_is_taken(url, request_text, status):
    answer = await say(url, request_text.encode("latin1"))

    assert answer.status == status
    if status == 400:  # it came as far as the counter
        assert answer.json["error_msg"].startswith("The upload contains no files.")


EARLY = {
    "no token": (
        upload("Expect: 100-continue", "Content-Length: 9").replace("X-Auth-Token: canary-token\r\n", ""),
        401,
    ),
    "a wrong token": (upload("Expect: 100-continue", "Content-Length: 9").replace("canary-token", "x"), 401),
    "too large": (upload("Expect: 100-Continue", "Content-Length: 999999999999"), 413),
    "a wrong parameter": (upload("Expect: 100-continue", "Content-Length: 9", target=f"{TARGET}0&node_id=a_b"), 400),
    "a wrong path": (upload("Expect: 100-continue", "Content-Length: 9", target="/bridge/v1/x"), 404),
    "a wrong method": (get(TARGET, "Expect: 100-continue", "Content-Length: 9"), 405),
}


@pytest.mark.parametrize(("request_text", "status"), EARLY.values(), ids=EARLY)
async def test_a_client_that_waits_gets_its_rejection_before_it_sends_the_body(url, request_text, status):
    answer = await say(url, request_text.encode(), skip_100=False)

    assert (answer.status, answer.headers["connection"]) == (status, "close")


async def test_a_client_that_waits_is_continued_once_and_answered(url):
    report = '<testsuite><testcase name="a"/></testsuite>'
    body = f'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\n{report}\r\n--b--\r\n'
    form = "Content-Type: multipart/form-data; boundary=b"
    request_text = upload("Expect: 100-continue", form, f"Content-Length: {len(body)}", body=body)

    assert (await say(url, request_text.encode(), skip_100=False)).status == 100
    assert (await say(url, request_text.encode())).json["status"] == "success"
    old = request_text.replace("HTTP/1.1", "HTTP/1.0")  # HTTP/1.0 has no 100 (Continue)
    assert (await say(url, old.encode(), skip_100=False)).json["status"] == "success"


@pytest.mark.parametrize("branch", ["%E7%99%BB%E5%BD%95", "%B5%C7%C2%BC"], ids=["UTF-8", "GBK"])
async def test_a_branch_in_the_query_is_legible_however_it_is_encoded(url, branch):
    answer = await say(url, upload("Content-Length: 0", target=f"{TARGET}&branch={branch}&branch=x+%26y").encode())

    assert 'branch is given twice, as "登录" and as "x &y"' in answer.json["error_msg"]


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
async def test_a_url_that_is_not_percent_encoded_is_named(url, encoding):
    answer = await say(url, upload("Content-Length: 0", target=f"{TARGET}&branch=登录").encode(encoding))

    assert answer.status == 400
    assert "Percent-encode what is not ASCII" in answer.json["error_msg"]


@pytest.mark.parametrize("expectation", ["x", "\xff\xfe"])
async def test_another_expectation_than_100_continue_is_refused(each_url, expectation):
    answer = await say(each_url, upload(f"Expect: {expectation}", "Content-Length: 0").encode("latin1"))

    assert (answer.status, answer.json["status"]) == (417, "fail")
    assert "x-request-id" in answer.headers
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/", "/a", "/v1/report"])
async def test_a_path_is_looked_up_only_if_its_segments_are_few(each_url, path):
    deep = await say(each_url, get(path * (MAX_SEGMENTS + 1)).encode())
    assert (deep.status, deep.json["error_code"]) == (400, "CB.00060200")
    assert f"more than {MAX_SEGMENTS} segments" in deep.json["error_msg"]
    known = await say(each_url, get(path * (MAX_SEGMENTS // path.count("/"))).encode())
    assert "segments" not in known.json["error_msg"]
    query = await say(each_url, get(f"/livez?{path * 1000}").encode())
    assert query.status == 200


NEIGHBOURS = {
    "two slashes": get("//livez"),
    "two slashes and a host": get("//elsewhere.example/livez"),
    "dots": upload("Content-Length: 0", target=f"/v1/../v1/report/junit/report/upload?job_id={JOB}&build_no=1"),
    "encoded dots": get("/%2e%2e/livez"),
    "an encoded slash in a build": get(f"/bridge/v1/builds/{JOB}%2f1"),
    "an encoded slash in the upload": upload(
        "Content-Length: 0", target=TARGET.replace("report/junit", "report%2fjunit")
    ),
    "a path in upper case": get("/LIVEZ"),
    "no path": f"OPTIONS * HTTP/1.1\r\n{KNOWN}\r\n",
    "a tunnel": f"CONNECT x:443 HTTP/1.1\r\n{KNOWN}\r\n",
}


@pytest.mark.parametrize("request_text", NEIGHBOURS.values(), ids=NEIGHBOURS)
async def test_no_other_spelling_of_a_path_leads_to_what_the_bridge_answers_itself(url, request_text):
    answer = await say(url, request_text.encode("latin1"))

    assert 400 <= answer.status < 500
    assert answer.json["status"] == "fail"
    assert "no files" not in answer.json["error_msg"]
    assert "x-request-id" in answer.headers


async def test_the_same_token_twice_identifies_no_caller(url):
    answer = await say(url, get(f"/bridge/v1/builds/{JOB}/1", "X-Auth-Token: canary-token").encode())

    assert (answer.status, answer.json["error_code"]) == (401, "APIGW.0301")


@pytest.mark.parametrize(
    "begun",
    [
        f"POST {TARGET} HTTP/1.1\r\n{KNOWN}Content-Le",
        upload("Content-Type: multipart/form-data; boundary=b", "Content-Length: 100", body="--b\r\n"),
    ],
    ids=["in its headers", "in its body"],
)
async def test_a_request_that_breaks_off_gets_no_answer(url, begun):
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    writer.write(begun.encode())
    writer.write_eof()

    assert await reader.read() == b""
    writer.close()
