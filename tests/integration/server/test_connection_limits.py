"""Connections that keep the bridge waiting are closed; others are served."""

import asyncio
import errno
import json
import socket
import ssl
import time
from itertools import pairwise

import pytest
import trustme
from aiohttp import web
from structlog.testing import capture_logs

from bridge.server.http import connections, protocol
from bridge.server.http.connections import ConnectionLimiter
from bridge.server.http.listener import Listener
from bridge.server.http.protocol import MAX_HEAD_BYTES, mark_verified
from tests.support.loop_clock import LoopClock

GET = b"GET /ok HTTP/1.1\r\nHost: bridge\r\n\r\n"
HALF = b"GET /ok HTTP/1.1\r\nHost: bri"
LIMIT, STEP, NEVER = 30.0, 1.0, 1e6  # seconds; a connection may be silent for more than a LIMIT between requests
ANSWER_BYTES = 16 << 20  # more than every buffer between the two
PIECE_BYTES = 1 << 16
LARGE_BYTES = 8 << 20  # of a body
FIELD = b"X-Field: " + b"x" * 100_000 + b"\r\n"
OPEN_HEAD = b"GET /ok HTTP/1.1\r\nHost: bridge\r\n"
FAILURES = 5  # to accept; fewer than the lines of one event that are written before they are counted
PAUSE = 1.0  # seconds after each of them
PIECES_OF_A_LIMIT = 120  # more than the buffers of the kernel hold


@pytest.fixture
def cuts():
    return []


@pytest.fixture
async def clock():
    return LoopClock()


class Shown:
    """A certificate that stays as it is."""

    def __init__(self, context):
        self.context = context


class Stage:
    """One small application behind listeners, and connections to them; `held` is set while a request is held.

    `taken` is set once the headers of a request have come.
    """

    def __init__(self, cuts):
        self.held, self.release, self.taken = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._cuts = cuts
        self._listeners, self._writers = [], []

    async def listen(self, *, certificate=None, **limits):
        app = web.Application(client_max_size=LARGE_BYTES)
        app.add_routes(
            [web.route("*", "/ok", self._ok), web.get("/large", self._large), web.route("*", "/hold", self._hold)]
        )
        limits = {"header_seconds": NEVER, "write_seconds": NEVER, **limits}
        limiter = self._limiter = ConnectionLimiter(self._cuts, **limits)
        listener = Listener(
            app, "127.0.0.1", 0, limiter=limiter, shutdown_seconds=0.1, certificate=certificate and Shown(certificate)
        )
        self._port = int((await listener.start()).rpartition(":")[2])
        self._listeners.append(listener)

    async def connect(self, said=b"", **options):
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, **options)
        self._writers.append(writer)
        writer.write(said)
        return reader, writer

    async def connect_and_guard(self):
        """Connect; return the connection, and the server's side of it."""
        others = set(self._limiter._open)
        connection = await self.connect()
        while not (opened := {one for one in self._limiter._open if one._transport} - others):  # noqa: ASYNC110 -- as it is accepted
            await asyncio.sleep(0)
        return connection, opened.pop()

    async def work(self):
        """Have a request under way on a connection of its own; return what will be its answer."""
        answer = asyncio.create_task(answered(await self.connect(), GET.replace(b"/ok", b"/hold")))
        await self.held.wait()
        return answer

    async def close(self):
        self.release.set()
        for writer in self._writers:
            writer.close()
        for listener in self._listeners:
            await listener.close()

    async def _ok(self, request):
        self.taken.set()
        return web.Response(text=f"took {len(await request.read())}")

    async def _large(self, request):
        mark_verified(request, "ci")
        return web.Response(body=bytes(ANSWER_BYTES))

    async def _hold(self, request):
        if "stranger" not in request.query:
            mark_verified(request, request.query.get("caller", "ci"))
        self.held.set()
        await request.read()
        await self.release.wait()
        return web.Response(text="held")


@pytest.fixture
async def stage(cuts):
    stage = Stage(cuts.append)
    yield stage
    await stage.close()


async def is_cut(reader):
    """Wait until the other side ends the connection without having said anything."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def is_cut_in_time(reader, clock):
    """Let time pass until that has happened."""
    cut = asyncio.create_task(is_cut(reader))
    await clock.pass_until(cut.done, STEP)
    return await cut


async def answered(connection, said):
    reader, writer = connection
    writer.write(said)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head.split(b"\r\n")[0], await reader.readexactly(length)


@pytest.mark.parametrize("said", [b"", b"G", HALF, GET[:-2]], ids=["nothing", "a byte", "half", "no blank line"])
async def test_headers_that_never_end_are_cut(stage, cuts, clock, said):
    await stage.listen(header_seconds=LIMIT)
    reader, _ = await stage.connect(said)
    assert await is_cut_in_time(reader, clock)
    assert cuts == ["header_timeout"]


async def test_dripping_headers_do_not_lengthen_their_time(stage, cuts, clock):
    await stage.listen(header_seconds=LIMIT)
    reader, writer = await stage.connect(b"GET /ok HTTP/1.1\r\n")
    cut = asyncio.create_task(is_cut(reader))

    def drip():
        writer.write(b"X-More: y\r\n")
        return cut.done()

    await clock.pass_until(drip, STEP)
    assert await cut
    assert cuts == ["header_timeout"]


async def test_the_next_request_of_a_connection_has_its_own_time(stage, cuts, clock):
    await stage.listen(header_seconds=LIMIT)
    connection = await stage.connect()
    for _ in range(3):
        assert await answered(connection, GET) == (b"HTTP/1.1 200 OK", b"took 0")
        clock.advance(LIMIT * 0.6)
    connection[1].write(HALF)
    assert await is_cut_in_time(connection[0], clock)
    assert cuts == ["header_timeout"]


async def test_a_request_under_way_has_the_time_that_its_handler_gives_it(stage, cuts, clock):
    await stage.listen(header_seconds=LIMIT)
    working = await stage.work()
    slow = await stage.connect(b"POST /ok HTTP/1.1\r\nHost: bridge\r\nContent-Length: 2\r\n\r\na")
    await stage.taken.wait()
    assert await is_cut_in_time((await stage.connect())[0], clock)  # so that much time has passed
    stage.release.set()
    assert (await working)[1] == b"held"
    assert (await answered(slow, b"b"))[1] == b"took 2"
    assert cuts == ["header_timeout"]


async def test_who_takes_nothing_of_an_answer_is_cut(stage, cuts, clock):
    await stage.listen(write_seconds=LIMIT)
    reader, writer = await stage.connect(GET.replace(b"/ok", b"/large"), limit=PIECE_BYTES)
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()
    await clock.pass_until(lambda: bool(cuts), STEP)
    assert cuts == ["write_timeout"]


async def test_who_takes_an_answer_slowly_gets_it_whole(stage, cuts, clock):
    await stage.listen(write_seconds=LIMIT)
    reader, _ = await stage.connect(GET.replace(b"/ok", b"/large"), limit=PIECE_BYTES)
    await reader.readuntil(b"\r\n\r\n")
    taken = 0
    while taken < ANSWER_BYTES:
        taken += len(await reader.read(PIECE_BYTES))
        clock.advance(LIMIT / PIECES_OF_A_LIMIT)
        await asyncio.sleep(0)  # the server sends more
    assert (taken, cuts) == (ANSWER_BYTES, [])


async def test_beyond_the_limit_the_longest_silent_connection_gives_its_place(stage, cuts):
    await stage.listen(max_connections=3)
    working = await stage.work()
    oldest, _ = await stage.connect()
    younger = await stage.connect(HALF)
    honest = await stage.connect()
    assert await is_cut(oldest)
    assert await answered(honest, GET) == (b"HTTP/1.1 200 OK", b"took 0")
    assert await answered(younger, GET[len(HALF) :]) == (b"HTTP/1.1 200 OK", b"took 0")
    stage.release.set()
    assert (await working)[1] == b"held"
    assert cuts == ["limit"]


async def test_where_all_work_a_new_connection_is_told_to_come_again(stage, cuts):
    await stage.listen(max_connections=1)
    working = await stage.work()
    status, body = await answered(await stage.connect(), b"")
    assert status == b"HTTP/1.1 503 Service Unavailable"
    assert json.loads(body)["error_code"] == "BRIDGE.UNAVAILABLE"
    stage.release.set()
    assert (await working)[1] == b"held"
    assert await answered(await stage.connect(), GET) == (b"HTTP/1.1 200 OK", b"took 0")
    assert cuts == ["limit", "limit"]  # the second one gave its place: it had been answered


async def test_a_crowd_of_one_address_that_sends_nothing_makes_way_before_others(stage, cuts):
    await stage.listen(max_connections=4)
    kept = await stage.connect()
    assert await answered(kept, GET) == (b"HTTP/1.1 200 OK", b"took 0")
    honest = await stage.connect()
    crowd = [await stage.connect(local_addr=("127.0.0.2", 0)) for _ in range(4)]
    assert await is_cut(crowd[0][0])
    assert await is_cut(crowd[1][0])
    for connection in (kept, honest):
        assert await answered(connection, GET) == (b"HTTP/1.1 200 OK", b"took 0")
    assert cuts == ["limit", "limit"]


async def test_where_all_work_the_longest_request_of_a_stranger_makes_way(stage, cuts):
    await stage.listen(max_connections=3)
    working = await stage.work()
    strangers = []
    for _ in range(2):
        stage.held.clear()
        strangers.append(await stage.connect(GET.replace(b"/ok", b"/hold?stranger")))
        await stage.held.wait()
    assert await answered(await stage.connect(), GET) == (b"HTTP/1.1 200 OK", b"took 0")
    assert await is_cut(strangers[0][0])
    stage.release.set()
    assert (await working)[1] == b"held"
    assert (await strangers[1][0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert cuts == ["limit"]


def slow(caller):
    return b"POST /hold?caller=" + caller + b" HTTP/1.1\r\nHost: bridge\r\nContent-Length: 100\r\n\r\n"


async def test_where_verified_callers_send_slowly_the_slowest_of_the_greediest_makes_way(stage, cuts):
    await stage.listen(max_connections=4)
    senders = []
    for caller, sent in ((b"honest", b""), (b"greedy", b"a" * 50), (b"greedy", b""), (b"greedy", b"a" * 40)):
        stage.held.clear()
        senders.append(await stage.connect(slow(caller) + sent))
        await stage.held.wait()
    assert await answered(await stage.connect(), GET) == (b"HTTP/1.1 200 OK", b"took 0")
    assert await is_cut(senders[2][0])
    stage.release.set()
    for (_, writer), size in ((senders[0], 100), (senders[1], 50), (senders[3], 60)):
        writer.write(b"b" * size)
    for reader, _ in (senders[0], senders[1], senders[3]):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert cuts == ["limit"]


async def test_a_verified_caller_that_takes_its_answer_slowly_makes_way(stage, cuts):
    await stage.listen(max_connections=1)
    reader, writer = await stage.connect(GET.replace(b"/ok", b"/large"), limit=PIECE_BYTES)
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()
    assert await answered(await stage.connect(), GET) == (b"HTTP/1.1 200 OK", b"took 0")
    assert cuts == ["limit"]


# -- bytes of heads -------------------------------------------------------------------------------------------------


async def test_a_head_with_two_long_tokens_is_taken(stage, cuts):
    await stage.listen()
    connection = await stage.connect()
    for _ in range(3):
        assert await answered(connection, OPEN_HEAD + 2 * FIELD + b"\r\n") == (b"HTTP/1.1 200 OK", b"took 0")
    assert cuts == []


@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["without an end", "with its end"])
async def test_a_head_that_is_too_large_is_answered_431(stage, cuts, end):
    await stage.listen()
    status, body = await answered(await stage.connect(), OPEN_HEAD + 3 * FIELD + end)
    answer = json.loads(body)
    assert status == b"HTTP/1.1 431 Request Header Fields Too Large"
    assert (answer["status"], answer["error_code"]) == ("fail", "CB.00060200")
    assert str(MAX_HEAD_BYTES) in answer["error"]["message"]
    assert cuts == ["header_size"]


async def test_a_client_whose_head_was_too_large_is_cut_also_if_it_goes_on(stage, clock):
    await stage.listen()
    reader, writer = await stage.connect(OPEN_HEAD + 3 * FIELD)
    await reader.readuntil(b"\r\n\r\n")
    cut = asyncio.create_task(is_cut_after_a_body(reader))

    def sends():
        writer.write(FIELD)
        return cut.done()

    await clock.pass_until(sends, STEP)
    assert await cut


async def is_cut_after_a_body(reader):
    try:
        await reader.read()
    except ConnectionResetError:
        return True
    return reader.at_eof()


async def test_a_second_head_is_not_read_without_end_while_the_first_request_is_under_way(stage, cuts):
    await stage.listen()
    reader, writer = await stage.connect(GET.replace(b"/ok", b"/hold"))
    await stage.held.wait()
    writer.write(OPEN_HEAD + 4 * FIELD)
    assert await is_cut(reader)
    assert cuts == ["header_size"]


@pytest.mark.parametrize("body", [b"", b"a"], ids=["no body", "a body"])
async def test_a_head_that_begins_beside_the_request_before_it_counts(stage, cuts, body):
    await stage.listen()
    first = b"POST /hold HTTP/1.1\r\nHost: bridge\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    reader, _ = await stage.connect(first.replace(b"POST", b"GET") + OPEN_HEAD + 4 * FIELD)
    assert await is_cut(reader)  # 431 would be taken for the answer of the first request
    assert cuts == ["header_size"]


CHUNKED = b"POST /ok HTTP/1.1\r\nHost: bridge\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"


async def test_trailers_are_bounded_as_a_head_is(stage, cuts):
    await stage.listen()
    reader, _ = await stage.connect(CHUNKED + 4 * FIELD)
    assert await is_cut(reader)
    assert cuts == ["header_size"]


SMALL_HEAD_BYTES = 80
TURNS = 4  # of the event loop, until the handler of a request that has been read waits for its body


async def read_in_pieces(guarded, turns, *pieces):
    """Have a server read `pieces` with so many turns of the event loop between them."""
    for piece in pieces:
        guarded.data_received(piece)
        for _ in range(turns):
            await asyncio.sleep(0)


@pytest.mark.parametrize("turns", range(TURNS))
@pytest.mark.parametrize(
    "sent",
    [CHUNKED, GET.replace(b"/ok", b"/hold") + OPEN_HEAD, slow(b"ci").replace(b"100", b"1") + b"a" + OPEN_HEAD],
    ids=["trailers", "a head", "a head after a body"],
)
async def test_what_is_too_large_closes_the_connection_however_it_is_split(stage, cuts, monkeypatch, sent, turns):
    """The handler of the request before it may not have begun: it must not hold the connection open."""
    monkeypatch.setattr(protocol, "MAX_HEAD_BYTES", SMALL_HEAD_BYTES)
    await stage.listen()
    sent += b"X-Field: " + b"x" * SMALL_HEAD_BYTES
    with capture_logs() as logs:
        for position in range(1, len(sent)):
            (reader, _), guarded = await stage.connect_and_guard()
            await read_in_pieces(guarded, turns, sent[:position], sent[position:])
            assert await is_cut(reader), position
    assert cuts == ["header_size"] * (len(sent) - 1)
    assert logs == []


@pytest.mark.parametrize("turns", range(TURNS))
async def test_requests_within_the_limits_are_answered_however_they_are_split(stage, cuts, monkeypatch, turns):
    monkeypatch.setattr(protocol, "MAX_HEAD_BYTES", SMALL_HEAD_BYTES)
    await stage.listen()
    connection, guarded = await stage.connect_and_guard()
    for sent, text in (
        (CHUNKED + b"X-Field: " + b"x" * 40 + b"\r\n\r\n", b"took 1"),
        (OPEN_HEAD + b"Content-Length: 9\r\n\r\na\r\n\r\nbbbb", b"took 9"),
        (GET, b"took 0"),
    ):
        for position in range(1, len(sent)):
            await read_in_pieces(guarded, turns, sent[:position], sent[position:])
            assert await answered(connection, b"") == (b"HTTP/1.1 200 OK", text), position
    assert cuts == []


@pytest.mark.parametrize("chunk", [0, 7, 1 << 16], ids=["a length", "tiny chunks", "chunks"])
async def test_a_large_body_is_no_head(stage, cuts, chunk):
    await stage.listen()
    size = LARGE_BYTES // 2 if chunk != 7 else 1 << 19
    if chunk:
        piece = b"%x\r\n" % chunk + bytes(chunk) + b"\r\n"
        sent = b"Transfer-Encoding: chunked\r\n\r\n" + size // chunk * piece + b"0\r\n\r\n"
        size = size // chunk * chunk
    else:
        sent = b"Content-Length: %d\r\n\r\n" % size + b"\r\n\r\n" * (size // 4)
    connection = await stage.connect()
    for _ in range(2):
        took = await answered(connection, b"POST /ok HTTP/1.1\r\nHost: bridge\r\n" + sent)
        assert took == (b"HTTP/1.1 200 OK", b"took %d" % size)
        assert (await answered(connection, OPEN_HEAD + 2 * FIELD + b"\r\n"))[1] == b"took 0"
    assert cuts == []


async def test_heads_of_all_connections_are_bounded_and_the_oldest_large_one_is_closed(stage, cuts, monkeypatch):
    monkeypatch.setattr(connections, "MAX_HEADS_BYTES", 5 * len(FIELD))
    await stage.listen()
    small, small_writer = await stage.connect(HALF)
    attackers = [(await stage.connect(OPEN_HEAD + FIELD + FIELD))[0] for _ in range(4)]
    assert await is_cut(attackers[0])
    assert await is_cut(attackers[1])
    honest = await stage.connect()
    assert await answered(honest, OPEN_HEAD + 2 * FIELD + b"\r\n") == (b"HTTP/1.1 200 OK", b"took 0")
    small_writer.write(GET[len(HALF) :])
    assert (await small.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert set(cuts) == {"header_size"}


async def test_heads_that_were_answered_or_closed_count_no_more(stage, cuts, monkeypatch):
    monkeypatch.setattr(connections, "MAX_HEADS_BYTES", 3 * len(FIELD))
    await stage.listen()
    kept = [await stage.connect() for _ in range(4)]
    for connection in kept:
        assert await answered(connection, OPEN_HEAD + 2 * FIELD + b"\r\n") == (b"HTTP/1.1 200 OK", b"took 0")
    for _ in range(4):
        reader, writer = await stage.connect(OPEN_HEAD + 2 * FIELD)
        writer.write_eof()
        assert await is_cut(reader)
    for connection in kept:
        assert await answered(connection, GET) == (b"HTTP/1.1 200 OK", b"took 0")
    assert cuts == []


# -- handshakes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tls():
    """Return the context of a server and that of a client which trusts it."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def test_connections_that_never_begin_their_handshake_count_and_make_way(stage, cuts, tls):
    server, client = tls
    await stage.listen(certificate=server, max_connections=3)
    silent = [await stage.connect() for _ in range(5)]
    assert await is_cut(silent[0][0])
    assert await is_cut(silent[1][0])
    honest = await stage.connect(ssl=client, server_hostname="localhost")
    assert await answered(honest, GET) == (b"HTTP/1.1 200 OK", b"took 0")
    assert cuts == ["limit"] * 3


async def test_a_handshake_that_never_ends_is_cut(stage, cuts, clock, tls):
    await stage.listen(certificate=tls[0], header_seconds=LIMIT)
    reader, _ = await stage.connect(b"\x16\x03\x01")
    assert await is_cut_in_time(reader, clock)
    assert cuts == ["header_timeout"]


async def test_a_handshake_that_fails_frees_its_place(stage, cuts, tls):
    server, client = tls
    await stage.listen(certificate=server, max_connections=1)
    for said in (GET, b"\x16\x03\x01\x00\x05hello"):
        reader, _ = await stage.connect(said)
        await is_cut_after_a_body(reader)
    honest = await stage.connect(ssl=client, server_hostname="localhost")
    assert await answered(honest, GET) == (b"HTTP/1.1 200 OK", b"took 0")
    assert cuts == []


async def test_over_tls_heads_are_bounded_too(stage, cuts, tls):
    server, client = tls
    await stage.listen(certificate=server)
    connection = await stage.connect(ssl=client, server_hostname="localhost")
    status, _ = await answered(connection, OPEN_HEAD + 3 * FIELD)
    assert status == b"HTTP/1.1 431 Request Header Fields Too Large"
    assert cuts == ["header_size"]


# -- a process without descriptors ----------------------------------------------------------------------------------


async def test_without_descriptors_the_listener_logs_once_a_second_at_most_and_recovers(
    stage, cuts, clock, monkeypatch
):
    accept, failed_at, loop = socket.socket.accept, [], asyncio.get_running_loop()

    def fails(listening):
        if len(failed_at) >= FAILURES:
            return accept(listening)
        failed_at.append(loop.time())
        raise OSError(errno.EMFILE, "Too many open files")  # as by the kernel, which keeps the connection in its queue

    await stage.listen()
    silent, _ = await stage.connect()
    assert await answered(await stage.connect(), GET) == (b"HTTP/1.1 200 OK", b"took 0")  # so both are accepted
    monkeypatch.setattr(socket.socket, "accept", fails)
    with capture_logs() as lines:
        waiting = asyncio.create_task(answered(await stage.connect(), GET))
        await clock.pass_until(waiting.done, PAUSE / 50)
    assert await waiting == (b"HTTP/1.1 200 OK", b"took 0")
    assert set(cuts) == {"limit"}
    assert await is_cut(silent)
    assert [line["event"] for line in lines] == ["accept_failed"] * FAILURES
    assert len(failed_at) == FAILURES
    pauses = [after - before for before, after in pairwise(failed_at)]
    assert min(pauses) >= PAUSE - time.get_clock_info("monotonic").resolution
