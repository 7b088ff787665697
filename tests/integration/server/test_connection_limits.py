"""Connections that keep the bridge waiting are closed; others are served."""

import asyncio
import json

import pytest
from aiohttp import web

from bridge.server.http.listener import ConnectionLimiter, Listener
from tests.support.loop_clock import LoopClock

GET = b"GET /ok HTTP/1.1\r\nHost: bridge\r\n\r\n"
HALF = b"GET /ok HTTP/1.1\r\nHost: bri"
LIMIT, STEP, NEVER = 30.0, 1.0, 1e6  # seconds; a connection may be silent for more than a LIMIT between requests
ANSWER_BYTES = 16 << 20  # more than every buffer between the two
PIECE_BYTES = 1 << 16
PIECES_OF_A_LIMIT = 120  # more than the buffers of the kernel hold


@pytest.fixture
def cuts():
    return []


@pytest.fixture
async def clock():
    return LoopClock()


class Stage:
    """One small application behind listeners, and connections to them; `held` is set while a request is held.

    `taken` is set once the headers of a request have come.
    """

    def __init__(self, cuts):
        self.held, self.release, self.taken = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._cuts = cuts
        self._listeners, self._writers = [], []

    async def listen(self, **limits):
        app = web.Application()
        app.add_routes([web.route("*", "/ok", self._ok), web.get("/large", self._large), web.get("/hold", self._hold)])
        limiter = ConnectionLimiter(self._cuts, **{"header_seconds": NEVER, "write_seconds": NEVER, **limits})
        listener = Listener(app, "127.0.0.1", 0, limiter=limiter, shutdown_seconds=0.1)
        self._port = int((await listener.start()).rpartition(":")[2])
        self._listeners.append(listener)

    async def connect(self, said=b"", **options):
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, **options)
        self._writers.append(writer)
        writer.write(said)
        return reader, writer

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

    async def _large(self, _):
        return web.Response(body=bytes(ANSWER_BYTES))

    async def _hold(self, _):
        self.held.set()
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
