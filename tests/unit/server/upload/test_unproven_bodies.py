"""Bodies that have not proven their signatures: how many bytes of them there may be, and which one makes way."""

import asyncio

import pytest

from bridge.domain.callers import AuthScheme, Caller
from bridge.errors import Unauthenticated, Unavailable
from bridge.server.auth.authenticator import AuthResult
from bridge.server.upload.file_store import FileBuffer
from bridge.server.upload.unproven_bodies import ADDRESSES, UnprovenBodies

MAX = 100
CALLER = Caller(scheme=AuthScheme.AKSK, name="sdk", routes=None, scopes=frozenset())


class Proof:
    """A body's check that rejects it if `good` is false."""

    def __init__(self, *, good=True):
        self.certain = self.signature_verified = False
        self.fed = b""
        self._good = good

    def feed(self, piece):
        self.fed += piece

    async def finish(self):
        if not self._good:
            raise Unauthenticated


class Sender:
    """A client that sends a body piece by piece; `ended` is its outcome."""

    def __init__(self, bodies, origin, *, good=True):
        self._pieces = asyncio.Queue()
        self._proof = Proof(good=good)
        self.buffer = FileBuffer(None, max_size=MAX, memory_size=MAX, reserve_space=lambda _: None)
        self.ended = asyncio.create_task(self._receive(bodies, origin))

    async def _receive(self, bodies, origin):
        identity = AuthResult(caller=CALLER, body=self._proof)
        async with bodies.proven(identity, self._arriving(), self.buffer, origin=origin) as pieces:
            return b"".join([piece async for piece in pieces])

    async def _arriving(self):
        while piece := await self._pieces.get():
            yield piece

    async def send(self, size):
        self._pieces.put_nowait(b"x" * size)
        for _ in range(5):
            await asyncio.sleep(0)

    async def end(self):
        self._pieces.put_nowait(b"")
        return await self.ended

    @property
    def made_way(self):
        return self.ended.done() and isinstance(self.ended.exception(), Unavailable)


@pytest.fixture
async def sender():
    bodies, senders = UnprovenBodies(), []

    def make(origin, **options):
        senders.append(Sender(bodies, origin, **options))
        return senders[-1]

    yield make
    for each in senders:
        each.ended.cancel()
    await asyncio.gather(*(each.ended for each in senders), return_exceptions=True)


async def test_a_body_is_read_once_it_has_proven_its_signature(sender):
    honest = sender("a")
    await honest.send(60)
    await honest.send(40)
    assert await honest.end() == b"x" * 100


async def test_a_body_of_another_signature_is_not_read(sender):
    impostor = sender("a", good=False)
    await impostor.send(60)
    with pytest.raises(Unauthenticated):
        await impostor.end()


async def test_the_oldest_body_of_an_address_makes_way_for_its_next_one(sender):
    first, second, other = sender("a"), sender("a"), sender("b")
    await first.send(60)
    await other.send(60)
    await second.send(60)
    assert (first.made_way, second.made_way, other.made_way) == (True, False, False)
    assert await second.end() == b"x" * 60


async def test_the_address_with_the_most_bytes_makes_way_for_others(sender):
    honest = sender("honest")
    await honest.send(30)
    greedy = [sender(f"greedy {number}") for number in range(ADDRESSES)]
    for each in greedy:
        await each.send(90)
    await honest.send(30)
    assert [each.made_way for each in greedy] == [True, False]
    assert await honest.end() == b"x" * 60


async def test_a_body_of_the_address_with_the_most_bytes_makes_way_itself(sender):
    others = [sender(f"other {number}") for number in range(ADDRESSES + 1)]
    for each in others:
        await each.send(65)
    greedy = sender("greedy")
    await greedy.send(70)
    assert others[0].made_way
    await greedy.send(10)
    assert greedy.made_way


async def test_the_bytes_of_a_body_that_ended_are_free_for_others(sender):
    for _ in range(3):
        honest = sender("a")
        await honest.send(MAX)
        assert await honest.end() == b"x" * MAX
