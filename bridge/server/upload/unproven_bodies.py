"""Hold the bodies of uploads whose signature only the whole body proves, until it does: nothing else is done with them.

A client that holds an access key, which is no secret, can send such bodies. So their bytes are bounded, of all
connections and of each address. If there are too many, the oldest body of the address that has the most of them makes
way: a body that never ends keeps no other one out.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bridge.errors import Unavailable
from bridge.server.auth.authenticator import AuthResult
from bridge.server.upload.file_store import FileBuffer

ADDRESSES: Final = 2
"""How many addresses may each have a body of the largest size at the same time. One address may have that much."""

MEMORY_BYTES: Final = 64 * 1024
"""Of one body in memory, the rest is in the spool. With a connection each, a thousand bodies take 64 MB."""

MADE_WAY: Final = (
    "The bridge receives more signed uploads than it can hold until their bodies have proven their signatures, so "
    "nothing of this one was stored. Send it again, or send the digest of its body in X-Sdk-Content-Sha256 when it is "
    "signed: the signature is then verified before the body arrives."
)


class _Body:
    """A body that is arriving."""

    def __init__(self, origin: str, timeout: asyncio.Timeout) -> None:
        self.origin = origin
        self.size = 0
        self.gone = asyncio.Event()  # its bytes are no longer stored
        self._timeout = timeout

    def end(self) -> None:
        """End the block that receives the body."""
        self._timeout.reschedule(asyncio.get_running_loop().time())


class UnprovenBodies:
    """The bodies that are arriving unproven. Outlives a reload of the settings."""

    def __init__(self) -> None:
        self._arriving: dict[_Body, None] = {}  # the oldest first

    @asynccontextmanager
    async def proven(
        self, identity: AuthResult, pieces: AsyncIterator[bytes], buffer: FileBuffer, *, origin: str
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Receive a body into `buffer`, and yield its pieces for a block once it has proven its signature.

        A body may have `buffer.max_size` bytes, and so may all of one `origin` (see `network_of`). Raise
        Unauthenticated if the body is not the one that was signed, Unavailable if it has to make way for others.
        """
        timeout = asyncio.timeout(None)
        body = _Body(origin, timeout)
        try:
            await self._receive(identity, pieces, buffer, body, timeout)
            await identity.body.finish()
            yield buffer.read()
        finally:
            try:
                await buffer.discard()
            finally:
                body.gone.set()

    async def _receive(
        self,
        identity: AuthResult,
        pieces: AsyncIterator[bytes],
        buffer: FileBuffer,
        body: _Body,
        made_way: asyncio.Timeout,
    ) -> None:
        self._arriving[body] = None
        try:
            async with made_way:
                async for piece in identity.feed_body(pieces):
                    await self._make_room(body, len(piece), buffer.max_size)
                    body.size += len(piece)
                    await buffer.write(piece)
        except TimeoutError:
            if made_way.expired():
                raise Unavailable(MADE_WAY) from None
            raise
        finally:
            self._arriving.pop(body, None)

    async def _make_room(self, body: _Body, size: int, max_bytes: int) -> None:
        """Return once `size` more bytes may be stored for `body`; raise Unavailable if it is the one that makes way."""
        while True:
            sizes: Counter[str] = Counter()
            for other in self._arriving:
                sizes[other.origin] += other.size
            if sizes[body.origin] + size > max_bytes:
                origin = body.origin
            elif sizes.total() + size > ADDRESSES * max_bytes:
                origin = sizes.most_common(1)[0][0]
            else:
                return
            oldest = next(other for other in self._arriving if other.origin == origin)
            del self._arriving[oldest]
            if oldest is body:
                raise Unavailable(MADE_WAY)
            oldest.end()
            await oldest.gone.wait()  # for both there is no room
