"""Upstreams that fail and callers that stall: each gets a response, and no other caller waits."""

import asyncio
import contextlib
import socket
import struct

import pytest

from bridge.server.proxy.places import MAX_CALLS
from bridge.server.proxy.request_target import Upstream as Service
from tests.integration.server.proxy.test_authorization_on_the_wire import BUILD_INFO, CI, error_of, status_of
from tests.support.proxy_upstream import OK, ask, ask_once, get, read_request

PATH = "/v1/any"
MIB = 1 << 20
STUCK_SECONDS = 0.5  # too short on a busy machine: then the reader takes its answer sooner, which hides a fault at most


async def silent(reader, _writer):
    await reader.read()


def saying(answer):
    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    return script


async def resets(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()  # sends RST


@pytest.mark.parametrize(
    "script",
    [
        saying(b""),
        resets,
        saying(b"SSH-2.0-x\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Le"),
        saying(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
    ],
)
async def test_an_upstream_without_an_answer_is_502(proxied, build, script):
    build.script = script

    answer = await proxied.ask(get(PATH))

    assert (status_of(answer), error_of(answer)) == (502, "APIGW.0202")


async def test_an_upstream_that_cannot_be_reached_is_502(start):
    proxied = await start(open_to_all=True)
    build = proxied.upstreams[Service.BUILD]
    build.stop()

    answer = await proxied.ask(get(PATH))

    assert (status_of(answer), error_of(answer)) == (502, "APIGW.0202")


async def test_an_upstream_that_never_answers_is_504(start):
    proxied = await start(open_to_all=True, idle_seconds=0.5)
    proxied.upstreams[Service.BUILD].script = silent

    answer = await proxied.ask(get(PATH))

    assert (status_of(answer), error_of(answer)) == (504, "APIGW.0203")


async def test_a_caller_that_never_sends_its_body_is_503(start):
    proxied = await start(open_to_all=True, idle_seconds=0.5)

    answer = await ask_once(proxied.url, get(PATH, "Content-Length: 5", method="POST", body=b"ab"))

    assert (status_of(answer), error_of(answer)) == (503, "BRIDGE.UNAVAILABLE")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    ],
)
async def test_a_part_is_never_taken_for_the_whole(proxied, build, answer):
    build.script = saying(answer)

    with contextlib.suppress(ConnectionResetError):
        came = await proxied.ask(get(PATH))
        assert not came.endswith(b"0\r\n\r\n")
        assert b"Content-Length: 10" in came or b"chunked" in came


async def test_an_answer_that_stalls_is_cut(start):
    proxied = await start(open_to_all=True, idle_seconds=0.5)

    async def stalls(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart")
        await reader.read()

    proxied.upstreams[Service.BUILD].script = stalls

    with contextlib.suppress(ConnectionResetError):
        assert b"APIGW" not in await proxied.ask(get(PATH))


async def test_an_answer_before_the_end_of_the_body_comes_through(proxied, build):
    async def refuses(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    build.script = refuses

    kept_alive = get(PATH, "Content-Length: 5", method="POST", body=b"ab").replace(b"Connection: close\r\n", b"")
    answer = await ask_once(proxied.url, kept_alive)

    assert answer.startswith(b"HTTP/1.1 413 Too Large\r\n")
    assert b"Connection: close" in answer


async def test_a_connection_that_the_upstream_closed_meanwhile_is_replaced(proxied, build):
    seen = []

    async def once(reader, writer):
        seen.append(await read_request(reader))
        writer.write(OK)
        await writer.drain()
        if len(seen) == 1:
            await reader.readuntil(b"\r\n\r\n")  # and closes without a word

    build.script = once

    assert status_of(await proxied.ask(get(PATH))) == 200
    assert status_of(await proxied.ask(get(PATH))) == 200
    assert build.connections == 2


async def test_a_body_is_never_sent_twice(proxied, build):
    build.script = saying(b"")

    answer = await proxied.ask(get(PATH, "Content-Length: 1", method="PUT", body=b"a"))

    assert status_of(answer) == 502
    assert build.connections == 1


# -- 100 (Continue) --------------------------------------------------------------------------------------------------


async def test_a_caller_that_waits_is_told_to_go_on_once_the_upstream_is_there(proxied, build):
    reader, writer = await _connected(proxied)
    writer.write(get(PATH, "Expect: 100-continue", "Content-Length: 2", method="PUT"))

    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"ab")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()

    assert build.body == b"ab"
    assert b"Expect" not in build.requests[-1]


@pytest.mark.parametrize("headers", [["Expect: 100-continue"], ["Expect: 100-continue", "X-Auth-Token: token-of-ci"]])
async def test_a_caller_that_is_rejected_never_sends_its_body(start, headers):
    proxied = await start()

    answer = await ask_once(proxied.url, get("/v1/job/x", *headers, "Content-Length: 2", method="PUT"))

    assert status_of(answer) in (401, 403)


async def test_another_expectation_is_rejected(proxied):
    assert status_of(await proxied.ask(get(PATH, "Expect: wonders"))) == 417


# -- floods and slow readers -----------------------------------------------------------------------------------------


async def test_a_flood_is_sent_away_and_makes_way_again(proxied, build):
    open_, all_here = asyncio.Event(), asyncio.Event()
    came = []

    async def waits(reader, writer):
        came.append(await read_request(reader))
        if len(came) == MAX_CALLS:
            all_here.set()
        await open_.wait()
        writer.write(OK)

    build.script = waits
    crowd = [asyncio.create_task(proxied.ask(get(BUILD_INFO, CI))) for _ in range(MAX_CALLS)]
    await all_here.wait()

    turned_away = await proxied.ask(get(BUILD_INFO, CI))
    elsewhere = await proxied.ask(get("/v3/projects"))
    open_.set()

    assert (status_of(turned_away), error_of(turned_away)) == (503, "BRIDGE.UNAVAILABLE")
    assert b"Retry-After: 1" in turned_away
    assert status_of(elsewhere) == 200
    assert {status_of(answer) for answer in await asyncio.gather(*crowd)} == {200}
    assert status_of(await proxied.ask(get(BUILD_INFO, CI))) == 200


async def test_callers_that_go_away_give_their_places_back(proxied, build):
    came, gone = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def waits(reader, writer):
        if gone_for_good.is_set():
            await read_request(reader)
            writer.write(OK)
            return
        await reader.readuntil(b"\r\n\r\n")
        came.release()
        await reader.read()  # until the bridge lets go
        gone.release()

    gone_for_good = asyncio.Event()
    build.script = waits
    writers = [(await _connected(proxied))[1] for _ in range(MAX_CALLS)]
    for writer in writers:
        writer.write(get(BUILD_INFO, CI))
    for _ in writers:
        await came.acquire()
    for writer in writers:
        writer.transport.abort()
    for _ in writers:
        await gone.acquire()

    gone_for_good.set()
    assert status_of(await proxied.ask(get(BUILD_INFO, CI))) == 200


async def test_a_reader_that_takes_nothing_stops_the_upstream(proxied, build):
    pieces = 64
    sent = 0
    stuck = asyncio.Event()

    async def pours(reader, writer):
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (pieces * MIB))
        for _ in range(pieces):
            writer.write(bytes(MIB))
            try:
                await asyncio.wait_for(writer.drain(), STUCK_SECONDS)
            except TimeoutError:
                stuck.set()
                await writer.drain()
            sent += MIB

    build.script = pours
    reader, writer = await _connected(proxied, limit=MIB)
    writer.write(get(PATH))

    await stuck.wait()
    assert sent < pieces * MIB // 2
    whole = await reader.read()
    writer.close()

    assert len(whole.partition(b"\r\n\r\n")[2]) == pieces * MIB


async def _connected(proxied, **how):
    host, port = proxied.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port), **how)


async def test_large_bodies_arrive_whole_both_ways(proxied, build):
    body = bytes(range(256)) * 4096 * 4  # 4 MiB

    async def echoes(reader, writer):
        request = await read_request(reader)
        content = request.partition(b"\r\n\r\n")[2]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        await writer.drain()

    build.script = echoes

    answer = await ask(proxied.url, get(PATH, f"Content-Length: {len(body)}", method="POST", body=body))

    assert answer.partition(b"\r\n\r\n")[2] == body
