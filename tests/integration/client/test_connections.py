import asyncio

import aiohttp
import pytest
from yarl import URL

from bridge.client import connections as connections_module
from bridge.client.connections import MAX_WRITE_BYTES, Connections, UnusableResponse
from tests.support.loop_clock import LoopClock

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LARGE = bytes(range(256)) * (2 * MAX_WRITE_BYTES // 256)
READ_SECONDS = 60.0
LONG_SECONDS = 600.0


class Peer:
    """A server over bare bytes; `requests` are the heads and bodies that came, by connection."""

    def __init__(self, *answers, until=None):
        self.answers = iter(answers)
        self.until = until  # awaited before a body is read
        self.requests = []
        self.arrived = asyncio.Event()  # the head of a request
        self.answered = 0

    async def serve(self, reader, writer):
        requests = []
        self.requests.append(requests)
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.arrived.set()
            if self.until is not None:
                await self.until.wait()
            lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            requests.append((head, await reader.readexactly(int(lengths[0]) if lengths else 0)))
            writer.write(next(self.answers, OK))
            await writer.drain()
            self.answered += 1


@pytest.fixture
async def connections():
    made = Connections(limit=4, max_header_bytes=8190)
    yield made
    await made.close()


@pytest.fixture
async def url_of(raw_server):
    async def start(serve):
        return URL(f"http://127.0.0.1:{await raw_server(serve)}/a?b=c")

    return start


async def call(connections, url, *, method="POST", headers=None, body=b"x", seconds=LONG_SECONDS, limit=1000):
    connection = await connections.connect(url, seconds=60)
    give_up_at = asyncio.get_running_loop().time() + seconds
    return await connections.call(
        *(connection, method, url, headers or {}, body),
        give_up_at=give_up_at,
        read_seconds=READ_SECONDS,
        max_answer_bytes=limit,
    )


async def pieces(*parts):
    for part in parts:
        yield part


async def test_calls_one_after_the_other_share_a_connection(connections, url_of):
    peer = Peer()
    url = await url_of(peer.serve)
    for body in (b"x", None, LARGE, b""):
        assert await call(connections, url, body=body) == (200, {"content-length": "2"}, b"ok")
    [requests] = peer.requests
    assert [body for _, body in requests] == [b"x", b"", LARGE, b""]


@pytest.mark.parametrize(
    ("method", "headers", "body", "sent"),
    [
        ("GET", {}, None, b""),
        ("POST", {}, None, b"Content-Length: 0\r\n"),
        ("POST", {}, b"", b"Content-Length: 0\r\n"),
        ("POST", {"X-Own": "1"}, b"abc", b"X-Own: 1\r\nContent-Length: 3\r\n"),
        ("PUT", {"Content-Length": "3"}, pieces(b"a", b"bc"), b"Content-Length: 3\r\n"),
    ],
)
async def test_a_head_has_host_and_length_beside_its_own_headers(connections, url_of, method, headers, body, sent):
    peer = Peer()
    url = await url_of(peer.serve)
    await call(connections, url, method=method, headers=headers, body=body)
    expected = f"{method} /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:{url.port}\r\n".encode() + sent + b"\r\n"
    assert peer.requests[0][0][0] == expected


async def test_a_host_that_is_signed_is_sent_once_and_as_it_is(connections, url_of):
    peer = Peer()
    await call(connections, await url_of(peer.serve), headers={"Host": "signed.example"})
    assert peer.requests[0][0][0].lower().count(b"host:") == 1
    assert b"\r\nHost: signed.example\r\n" in peer.requests[0][0][0]


async def test_an_iterable_without_a_length_is_not_sent(connections, url_of):
    peer = Peer()
    with pytest.raises(ValueError, match="Content-Length"):
        await call(connections, await url_of(peer.serve), body=pieces(b"a"))
    assert peer.requests in ([], [[]])


async def test_the_response_comes_after_informational_ones(connections, url_of):
    peer = Peer(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert (await call(connections, await url_of(peer.serve))).status == 200


async def test_a_response_to_head_has_no_body(connections, url_of):
    peer = Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert (await call(connections, await url_of(peer.serve), method="HEAD", body=None)).body == b""


async def test_a_connection_whose_response_came_before_the_end_of_the_body_is_not_used_again(
    connections, raw_server, monkeypatch
):
    monkeypatch.setattr(connections_module, "END_SECONDS", 0)
    heads = []

    async def serve(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        await reader.read()

    url = URL(f"http://127.0.0.1:{await raw_server(serve)}/")
    never = asyncio.Event()

    async def endless():
        yield b"a"
        await never.wait()
        yield b"b"

    for _ in range(2):
        assert (await call(connections, url, headers={"Content-Length": "2"}, body=endless())).status == 200
    assert len(heads) == 2


async def test_a_success_waits_for_the_end_of_a_body_whose_bytes_have_all_been_sent(connections, url_of):
    """It came while the last piece was still being counted, so a PUT that had arrived was made again."""
    peer, counted, ended = Peer(), asyncio.Event(), False

    async def body():
        nonlocal ended
        yield b"abc"
        await counted.wait()
        ended = True

    url = await url_of(peer.serve)
    calling = asyncio.create_task(call(connections, url, headers={"Content-Length": "3"}, body=body()))
    while peer.answered < 1:  # noqa: ASYNC110 -- the peer is in this event loop
        await asyncio.sleep(0)
    await asyncio.wait((calling,), timeout=0.05)
    assert not calling.done()
    counted.set()
    assert (await calling).status == 200
    assert ended
    await call(connections, url)
    assert len(peer.requests) == 1  # one connection


async def test_a_connection_whose_response_is_too_large_is_not_used_again(connections, url_of):
    peer = Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + bytes(1001))
    url = await url_of(peer.serve)
    with pytest.raises(UnusableResponse):
        await call(connections, url)
    await call(connections, url)
    assert len(peer.requests) == 2


async def test_a_body_may_take_longer_than_a_piece_of_the_response(connections, url_of):
    clock, may_read = LoopClock(), asyncio.Event()
    peer = Peer(until=may_read)
    large = LARGE * 128  # more than the system buffers
    calling = asyncio.create_task(call(connections, await url_of(peer.serve), body=large))
    await peer.arrived.wait()
    clock.advance(2 * READ_SECONDS)
    await asyncio.sleep(0.01)
    may_read.set()
    assert (await calling).status == 200
    assert peer.requests[0][0][1] == large


@pytest.mark.parametrize("seconds", [READ_SECONDS / 2, LONG_SECONDS], ids=["the call's end", "a piece's time"])
@pytest.mark.parametrize("body", [b"x", LARGE], ids=["small", "large"])
async def test_a_call_ends_in_time_if_nothing_comes(connections, raw_server, seconds, body):
    arrived = asyncio.Event()

    async def serve(reader, _writer):
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()

    clock = LoopClock()
    url = URL(f"http://127.0.0.1:{await raw_server(serve)}/")
    calling = asyncio.create_task(call(connections, url, body=body, seconds=seconds))
    await arrived.wait()
    await asyncio.sleep(0.01)
    clock.advance(min(seconds, READ_SECONDS) - 1)
    await asyncio.sleep(0.01)
    assert not calling.done()
    clock.advance(2)
    with pytest.raises(TimeoutError):
        await calling


async def test_the_addresses_of_few_hosts_are_remembered(connections, url_of, monkeypatch):
    monkeypatch.setattr(connections_module, "MAX_ADDRESSES", 2)
    for _ in range(5):
        assert (await call(connections, await url_of(Peer().serve))).status == 200
        assert len(connections._addresses) <= 2


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "file:///etc/passwd", "/path"])
async def test_only_http_is_spoken(connections, url):
    with pytest.raises(aiohttp.InvalidURL):
        await connections.connect(URL(url), seconds=1)
