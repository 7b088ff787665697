import asyncio
import gzip
import zlib
from urllib.parse import quote

import pytest
from aiohttp import web
from yarl import URL

from bridge.client import session
from bridge.client.session import MAX_ANSWER_BYTES, Request, Timeouts
from bridge.domain.outcomes import NotSent, OutcomeUnknown
from bridge.protocols.http_response import HttpResponse, describe_error, read_object
from tests.support.loop_clock import LoopClock

CANARY = "canary-signature"
IMPATIENT = Timeouts(connect_seconds=5, read_seconds=0.1, total_seconds=5)


def post(url, **options):
    return Request(method="POST", url=URL(url, encoded=True), body=b"a=b", **options)


def get(url, **options):
    return Request(method="GET", url=URL(url, encoded=True), **options)


async def read_request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


def saying(*pieces, hang=False):
    """Serve one request: write `pieces`, then hang until the client gives up, or close."""

    async def serve(reader, writer):
        await read_request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if hang:
            await reader.read()

    return serve


async def test_a_response_comes_back_whole(aiohttp_server, new_session):
    async def handle(request):
        return web.Response(status=418, text=await request.text(), headers={"X-Some": "Thing"})

    app = web.Application()
    app.router.add_post("/", handle)
    server = await aiohttp_server(app)
    answer = await new_session(clock=lambda: 77).send(post(str(server.make_url("/"))))
    assert isinstance(answer, HttpResponse)
    assert (answer.status, answer.body, answer.headers["x-some"], answer.received_at) == (418, b"a=b", "Thing", 77)


async def test_only_the_headers_of_the_request_are_sent(raw_server, new_session):
    seen = []

    async def serve(reader, writer):
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    port = await raw_server(serve)
    await new_session().send(post(f"http://127.0.0.1:{port}/a%2Fb?c=%2F+%20", headers={"X-Own": "1"}))
    lines = seen[0].split(b"\r\n")
    assert lines[0] == b"POST /a%2Fb?c=%2F+%20 HTTP/1.1"
    assert {line.partition(b":")[0] for line in lines[1:-2]} == {b"Host", b"X-Own", b"Content-Length"}


async def test_a_rejected_connection_is_not_sent(closed_port, new_session):
    outcome = await new_session().send(post(f"http://127.0.0.1:{closed_port}/?{CANARY}"))
    assert isinstance(outcome, NotSent)
    assert "127.0.0.1" in outcome.message
    assert CANARY not in outcome.message


async def test_a_name_that_cannot_be_one_is_not_sent(new_session):
    outcome = await new_session().send(post(f"http://{'a' * 64}.invalid/?{CANARY}"))
    assert isinstance(outcome, NotSent)
    assert CANARY not in outcome.message


async def test_failing_tls_is_not_sent(raw_server, new_session):
    async def serve(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    outcome = await new_session().send(post(f"https://127.0.0.1:{await raw_server(serve)}/?{CANARY}"))
    assert isinstance(outcome, NotSent)
    assert "TLS" in outcome.message


async def test_tls_that_is_never_answered_is_not_sent(raw_server, new_session):
    async def serve(reader, _writer):
        await reader.read()

    session = new_session(limits=Timeouts(connect_seconds=0.1))
    outcome = await session.send(post(f"https://127.0.0.1:{await raw_server(serve)}/?{CANARY}"))
    assert outcome == NotSent(message="testnod: no connection in time.")


async def test_a_call_that_gets_no_connection_of_the_pool_is_not_sent(raw_server, new_session):
    arrived = asyncio.Event()

    async def serve(reader, _writer):
        arrived.set()
        await reader.read()

    url = f"http://127.0.0.1:{await raw_server(serve)}/"
    session = new_session(connections=1)
    first = asyncio.create_task(session.send(post(url)))
    await arrived.wait()
    outcome = await session.send(post(url, limits=Timeouts(connect_seconds=0.05)))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert isinstance(outcome, NotSent)


@pytest.mark.parametrize(
    "serve",
    [
        saying(hang=True),
        saying(b"HTTP/1.1 200 OK\r\n", hang=True),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", hang=True),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", hang=True),
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", hang=True),
        saying(),
        saying(b"HTTP/1.1 201 Crea"),
        saying(b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nab"),
        saying(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"),
        saying(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10_000 + b"\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n", b"x" * 200_000, hang=True),
        saying(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nab"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab"),
        saying(b"\x00" * 100),
    ],
)
@pytest.mark.parametrize("method", [get, post])
async def test_whatever_fails_once_a_connection_stood_is_unknown(raw_server, new_session, serve, method):
    outcome = await new_session(limits=IMPATIENT).send(method(f"http://127.0.0.1:{await raw_server(serve)}/?{CANARY}"))
    assert isinstance(outcome, OutcomeUnknown)
    assert outcome.message.startswith("testnod: ")
    assert CANARY not in outcome.message


async def test_a_response_that_drips_ends_with_the_total_limit(raw_server, new_session):
    async def serve(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        gone = asyncio.ensure_future(reader.read())

        def drip():
            writer.write(b"x")
            return gone.done()

        await clock.pass_until(drip, limits.read_seconds / 100)

    clock = LoopClock()
    limits = Timeouts(connect_seconds=60, read_seconds=60, total_seconds=120)
    outcome = await new_session(limits=limits).send(post(f"http://127.0.0.1:{await raw_server(serve)}/"))
    assert outcome == OutcomeUnknown(message="testnod: no complete response in time.")


async def test_a_kept_alive_connection_that_the_server_cuts_is_unknown(raw_server, new_session):
    async def serve(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await read_request(reader)

    url = f"http://127.0.0.1:{await raw_server(serve)}/"
    session = new_session()
    assert isinstance(await session.send(post(url)), HttpResponse)
    assert isinstance(await session.send(post(url)), OutcomeUnknown)


async def test_an_endless_answer_is_cut_and_unknown(raw_server, new_session):
    sent = []

    async def serve(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            await writer.drain()
            sent.append(0x4000)

    outcome = await new_session().send(post(f"http://127.0.0.1:{await raw_server(serve)}/"))
    assert isinstance(outcome, OutcomeUnknown)
    assert "64 KiB" in outcome.message


@pytest.mark.parametrize(("size", "kind"), [(MAX_ANSWER_BYTES, HttpResponse), (MAX_ANSWER_BYTES + 1, OutcomeUnknown)])
@pytest.mark.parametrize(
    ("encoding", "fold"), [("identity", bytes), ("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_a_response_has_at_most_64_kib_unfolded(raw_server, new_session, size, kind, encoding, fold):
    body = fold(b"x" * size)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    outcome = await new_session().send(get(f"http://127.0.0.1:{await raw_server(saying(head, body))}/"))
    assert isinstance(outcome, kind)
    assert outcome.status == 200  # an answer came: that tells more of it than of the connection
    assert not isinstance(outcome, HttpResponse) or outcome.body == b"x" * size


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_response_and_not_followed(aiohttp_server, new_session, status):
    followed = []

    async def away(_request):
        return web.Response(status=status, headers={"Location": "/there"})

    async def there(request):
        followed.append(request)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", away)
    app.router.add_route("*", "/there", there)
    server = await aiohttp_server(app)
    answer = await new_session().send(post(str(server.make_url("/")), headers={"Project-Token": CANARY}))
    assert answer.status == status
    assert followed == []


async def test_a_cookie_is_not_kept(aiohttp_server, new_session):
    cookies = []

    async def handle(request):
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "a=b"})

    app = web.Application()
    app.router.add_post("/", handle)
    url = str((await aiohttp_server(app)).make_url("/")).replace("127.0.0.1", "localhost")
    session = new_session()
    for _ in range(2):
        assert isinstance(await session.send(post(url)), HttpResponse)
    assert cookies == [None, None]


async def test_proxies_of_the_surroundings_are_not_used(raw_server, new_session, closed_port, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    port = await raw_server(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    assert isinstance(await new_session().send(get(f"http://127.0.0.1:{port}/")), HttpResponse)


async def test_a_header_with_a_line_break_is_not_sent_and_not_shown(closed_port, new_session):
    request = post(f"http://127.0.0.1:{closed_port}/", headers={"Project-Token": f"{CANARY}\r\nX: y"})
    outcome = await new_session().send(request)
    assert isinstance(outcome, NotSent)
    assert CANARY not in outcome.message
    assert "line break" in outcome.message


async def test_giving_a_call_up_is_no_outcome(raw_server, new_session):
    arrived = asyncio.Event()
    observed = []

    async def serve(reader, _writer):
        arrived.set()
        await reader.read()

    session = new_session(observer=lambda *seen: observed.append(seen))
    request = post(f"http://127.0.0.1:{await raw_server(serve)}/")
    call = asyncio.create_task(session.observed("register", session.send(request)))
    await arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert observed == []


async def test_the_observer_hears_of_every_call_that_ended(closed_port, new_session):
    observed = []
    session = new_session(observer=lambda *seen: observed.append(seen))
    await session.observed("finalize", session.send(post(f"http://127.0.0.1:{closed_port}/")))
    [(upstream, call, seconds, outcome)] = observed
    assert (upstream, call, outcome) == ("testnod", "finalize", "NotSent")
    assert seconds >= 0


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", "not public"),
        ("localhost", "not public"),
        ("0.0.0.0", "not public"),
        ("[::ffff:127.0.0.1]", "not public"),
        ("[::ffff:7f00:1]", "not public"),
        ("[64:ff9b::7f00:1]", "not public"),
        ("2130706433", "cannot be called"),
        ("127.1", "cannot be called"),
    ],
)
async def test_a_guarded_session_reaches_no_address_that_is_not_public(raw_server, new_session, host, why):
    visits = []

    async def serve(reader, writer):
        visits.append(1)
        await saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(reader, writer)

    port = await raw_server(serve)
    outcome = await new_session(public_only=True).send(get(f"http://{host}:{port}/?{CANARY}"))
    assert isinstance(outcome, NotSent)
    assert why in outcome.message
    assert CANARY not in outcome.message
    assert visits == []


@pytest.mark.parametrize(
    "header",
    [
        *("Project-Token", "X-Auth-Token", "X-Subject-Token", "X-Security-Token", "X-Amz-Security-Token"),
        "Authorization",
    ],
)
async def test_an_upstream_that_repeats_a_secret_of_the_request_is_not_quoted(aiohttp_server, new_session, header):
    async def echo(request):
        said = f"no {request.headers[header]} nor {await request.text()}"
        return web.json_response({"error_message": said}, status=500)

    app = web.Application()
    app.router.add_post("/", echo)
    server = await aiohttp_server(app)
    request = Request(
        method="POST",
        url=server.make_url("/"),
        headers={header: "canary-token"},
        body=b"canary-password",
        secrets=("canary-password",),
    )
    answer = await new_session().send(request)
    assert describe_error(answer, read_object(answer.body)["error_message"]) == "no … nor …"


@pytest.mark.parametrize(
    "echoed",
    [
        lambda headers: headers["Authorization"].partition("Signature=")[2],
        lambda headers: headers["Authorization"].partition("Access=")[2].partition(",")[0],
        lambda headers: quote(headers["Authorization"], safe=""),
    ],
    ids=["signature", "access key", "header in percent"],
)
async def test_an_upstream_that_repeats_a_part_of_the_authorization_is_not_quoted(aiohttp_server, new_session, echoed):
    async def echo(request):
        return web.json_response({"error_message": f"no {echoed(request.headers)}!"}, status=500)

    app = web.Application()
    app.router.add_get("/", echo)
    server = await aiohttp_server(app)
    signed = "SDK-HMAC-SHA256 Access=CANARYACCESSKEY, SignedHeaders=host, Signature=0123456789abcdef0123"
    answer = await new_session().send(
        Request(method="GET", url=server.make_url("/"), headers={"Authorization": signed})
    )
    assert describe_error(answer, read_object(answer.body)["error_message"]) == "no …!"


@pytest.mark.parametrize(
    ("headers", "heard"),
    [
        ({"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}, [1_700_000_000_000_000]),
        ({"Date": "Tue, 14 Nov 2023 22:13:20 GMT", "Age": "40"}, []),
        ({"Date": "soon"}, []),
        ({}, []),
    ],
    ids=["dated", "from a cache", "garbled", "undated"],
)
async def test_the_time_of_an_upstream_is_read_from_every_answer_that_it_made_itself(
    raw_server, new_session, headers, heard
):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    port = await raw_server(saying(f"HTTP/1.1 500 Odd\r\n{lines}Content-Length: 0\r\n\r\n".encode()))
    dates = []
    await new_session(dated=lambda _upstream, at: dates.append(at)).send(get(f"http://127.0.0.1:{port}/"))
    assert dates == heard


async def test_a_date_that_repeats_the_last_one_is_passed_on_once_and_again_after_a_second(
    raw_server, new_session, monkeypatch
):
    headers = "Date: Tue, 14 Nov 2023 22:13:20 GMT\r\nConnection: close\r\nContent-Length: 0\r\n"
    port = await raw_server(saying(f"HTTP/1.1 500 Odd\r\n{headers}\r\n".encode()))
    dates = []
    upstream = new_session(dated=lambda _upstream, at: dates.append(at))
    monkeypatch.setattr(session, "DATE_SECONDS", 600.0)
    for _ in range(3):
        await upstream.send(get(f"http://127.0.0.1:{port}/"))
    assert len(dates) == 1

    monkeypatch.setattr(session, "DATE_SECONDS", 0.0)
    await upstream.send(get(f"http://127.0.0.1:{port}/"))
    assert len(dates) == 2
