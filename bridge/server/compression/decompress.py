"""Undoes the compression of uploads while they come in: bounded in memory, in work at a time, and in what comes out.

It knows neither sockets nor what the bytes mean, and of the foldings only that each has members.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from bridge.errors import BadReport, TooLarge
from bridge.server.compression.codecs import ContentCoding, Damaged, Decompressor, begin

FED_BYTES: Final = 16 * 1024  # folded at once: a step that unfolds to nothing is short too
MAX_MEMBERS: Final = 10_000  # of one stream: bgzip begins one every 64 KiB; empty ones cost time and count nothing

_REPEATED: Final = frozenset({ContentCoding.GZIP, ContentCoding.ZSTD})  # several members in a row are one stream


class DecompressionPipeline:
    """One stream on its way out of its `folded` layers, given in the order in which they were applied.

    `what` names the stream in errors, as the first word of a sentence. Both methods raise BadReport where it is
    damaged, has something behind its end, or ends too early; `feed` raises TooLarge as soon as any layer has come to
    more than `max_bytes`, having unfolded less than 1 MiB beyond. After an error nothing more may be fed.
    """

    def __init__(self, folded: Sequence[ContentCoding], *, what: str, max_bytes: int) -> None:
        self._layers = tuple(_Layer(folding, what, max_bytes) for folding in reversed(folded))

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` unfolds to, in pieces of about folding.PIECE_BYTES, to be consumed before more is fed.

        Pieces may be empty: each ends a short step of work, and whoever runs on an event loop lets others go on then.
        """
        return _through(self._layers, data)

    def close(self) -> None:
        """Say that the stream has ended."""
        for layer in self._layers:
            layer.close()


async def decompressed(pieces: AsyncIterator[bytes], unfolding: DecompressionPipeline) -> AsyncIterator[bytes]:
    """Yield the whole stream that comes in `pieces`, unfolded; others have their turn between any two steps of work."""
    async for piece in pieces:
        for plain in unfolding.feed(piece):
            if plain:
                yield plain
            await asyncio.sleep(0)
    unfolding.close()


class _Layer:
    """Undoes one folding."""

    def __init__(self, folding: ContentCoding, what: str, max_bytes: int) -> None:
        self._folding = folding
        self._what = what
        self._max_bytes = max_bytes
        self._unfolded = 0
        self._members = 0
        self._member: Decompressor | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), FED_BYTES):
            yield from self._feed_slice(data[at : at + FED_BYTES])

    def close(self) -> None:
        if self._member is not None or not self._members:
            raise BadReport(
                f"{self._what} ends before its {self._folding} compression does. Send it again, and send all of it."
            )

    def _feed_slice(self, data: bytes) -> Iterator[bytes]:
        while data:
            member = self._member = self._member or self._begin()
            yield self._take(member, data)
            while not (member.hungry or member.ended):
                yield self._take(member, b"")
            data = b""
            if member.ended:
                data, self._member = member.rest, None

    def _begin(self) -> Decompressor:
        if self._members and self._folding not in _REPEATED:
            raise BadReport(
                f"{self._what} goes on after the end of its {self._folding} compression. Send nothing behind it."
            )
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise TooLarge(
                f"{self._what} has more than {MAX_MEMBERS} {self._folding} streams in a row. Compress it as one."
            )
        return begin(self._folding)

    def _take(self, member: Decompressor, data: bytes) -> bytes:
        try:
            piece = member.take(data)
        except Damaged as error:
            raise BadReport(
                f"{self._what} is not the {self._folding} stream that it says it is. Compress it again, or not at all."
            ) from error
        self._unfolded += len(piece)
        if self._unfolded > self._max_bytes:
            raise TooLarge(
                f"{self._what} unfolds to more than {self._max_bytes} bytes. Split it, or send less at once."
            )
        return piece


def _through(layers: Sequence[_Layer], data: bytes) -> Iterator[bytes]:
    if not layers:
        yield data
        return
    for piece in layers[0].feed(data):
        yield from _through(layers[1:], piece)
