import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from tests.faults.proxy import FaultProxy, Faults, Spoil
from tests.support.byte_server import ByteServer
from tests.support.processes import until

SAID, ANSWER = b"hello", bytes(range(200))


@asynccontextmanager
async def through(faults):
    """Stand before an upstream that answers each connection's first bytes; yields how to speak through."""
    heard = []

    async def serve(reader, writer):
        heard.append(await reader.read(100))
        if heard[-1]:
            writer.write(ANSWER)

    async with ByteServer(serve) as upstream, FaultProxy(upstream.url, faults) as proxy:

        async def speak(seconds=20):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
            try:
                writer.write(SAID)
                async with asyncio.timeout(seconds):
                    return await reader.read()
            finally:
                writer.close()

        yield proxy, speak, heard


async def test_without_faults_all_passes():
    async with through(Faults()) as (_, speak, heard):
        assert await speak() == ANSWER
        assert heard == [SAID]


@pytest.mark.parametrize(
    ("back", "arrives"),
    [
        (Spoil(cut_after=7), ANSWER[:7]),
        (Spoil(corrupt_at=3), ANSWER[:3] + b"\xfc" + ANSWER[4:]),
        (Spoil(bytes_a_second=2_000), ANSWER),
    ],
)
async def test_an_answer_arrives_as_it_was_spoilt(back, arrives):
    async with through(Faults(back=back)) as (_, speak, _heard):
        assert await speak() == arrives


async def test_what_goes_there_is_spoilt_on_its_own():
    async with through(Faults(there=Spoil(corrupt_at=0))) as (_, speak, heard):
        assert await speak() == ANSWER
        assert heard == [b"\x97ello"]


@pytest.mark.parametrize("faults", [Faults(refuse=True), Faults(back=Spoil(cut_after=5, reset=True))])
async def test_a_reset_is_no_polite_end(faults):
    async with through(faults) as (_, speak, _heard):
        with pytest.raises(ConnectionResetError):
            await speak()


async def test_a_black_hole_says_nothing_and_may_be_cut():
    async with through(Faults(there=Spoil(black_hole=True))) as (proxy, speak, heard):
        with pytest.raises(TimeoutError):
            await speak(0.2)
        await until(lambda: proxy.accepted == 1, "the proxy has had the connection")
        speaking = asyncio.create_task(speak())
        await until(lambda: proxy.accepted == 2, "the proxy has the connection")
        await proxy.cut_all()
        with pytest.raises(ConnectionResetError):
            await speaking
        assert SAID not in heard


async def test_a_delay_comes_before_the_first_byte():
    async with through(Faults(back=Spoil(delay_seconds=0.2))) as (_, speak, _heard):
        began = time.monotonic()
        assert await speak() == ANSWER
        assert time.monotonic() - began >= 0.2


async def test_faults_meet_connections_that_are_made_after_them():
    async with through(Faults()) as (proxy, speak, _heard):
        proxy.faults.refuse = True
        with pytest.raises(ConnectionResetError):
            await speak()
        proxy.faults.refuse = False
        assert await speak() == ANSWER
