"""Decompress uploads while they arrive, with bounds on memory, on the work per step, and on the output."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from bridge.errors import BadReport, TooLarge
from bridge.server.compression.codecs import DECOMPRESS_ERRORS, ContentCoding, Decompressor, new_decompressor

INPUT_BYTES: Final = 16 * 1024  # per step, so that a step without output is short too
MAX_MEMBERS: Final = 10_000  # of one stream: bgzip starts one every 64 KiB; empty ones cost time and produce nothing

_MULTI_MEMBER: Final = frozenset({ContentCoding.GZIP, ContentCoding.ZSTD})  # several members in a row are one stream


class DecompressionPipeline:
    """Removes the layers of `codings`, which are given in the order in which they were applied.

    `what` is the name of the stream and starts the sentences of errors. Both methods raise BadReport if the stream is
    damaged, ends too early, or has data after its end. `feed` raises TooLarge if the output of any layer exceeds
    `max_bytes`, after at most 1 MiB more. After an error, no more may be fed.
    """

    def __init__(self, codings: Sequence[ContentCoding], *, what: str, max_bytes: int) -> None:
        self._layers = tuple(_Layer(coding, what, max_bytes) for coding in reversed(codings))

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the output for `data` in pieces of about codecs.PIECE_BYTES; consume them before feeding more.

        Pieces may be empty: each ends a short step of work, after which a caller on an event loop should yield.
        """
        return _feed_layers(self._layers, data)

    def close(self) -> None:
        """Mark the end of the input."""
        for layer in self._layers:
            layer.close()


async def decompressed(pieces: AsyncIterator[bytes], pipeline: DecompressionPipeline) -> AsyncIterator[bytes]:
    """Yield the decompressed stream of `pieces`; other tasks can run between any two steps of work."""
    async for piece in pieces:
        for plain in pipeline.feed(piece):
            if plain:
                yield plain
            await asyncio.sleep(0)
    pipeline.close()


class _Layer:
    """Removes one coding."""

    def __init__(self, coding: ContentCoding, what: str, max_bytes: int) -> None:
        self._coding = coding
        self._what = what
        self._max_bytes = max_bytes
        self._output_size = 0
        self._members = 0
        self._member: Decompressor | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), INPUT_BYTES):
            yield from self._feed_slice(data[start : start + INPUT_BYTES])

    def close(self) -> None:
        if self._member is not None or not self._members:
            raise BadReport(f"{self._what} ends before its {self._coding} compression does. Send the whole file again.")

    def _feed_slice(self, data: bytes) -> Iterator[bytes]:
        while data:
            member = self._member = self._member or self._next_member()
            yield self._decompress(member, data)
            while not (member.needs_input or member.ended):
                yield self._decompress(member, b"")
            data = b""
            if member.ended:
                data, self._member = member.unused_data, None

    def _next_member(self) -> Decompressor:
        if self._members and self._coding not in _MULTI_MEMBER:
            raise BadReport(f"{self._what} has data after the end of its {self._coding} compression. Remove that data.")
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise TooLarge(
                f"{self._what} has more than {MAX_MEMBERS} {self._coding} streams in a row. Compress it as one stream."
            )
        return new_decompressor(self._coding)

    def _decompress(self, member: Decompressor, data: bytes) -> bytes:
        try:
            piece = member.decompress(data)
        except DECOMPRESS_ERRORS as error:
            raise BadReport(
                f"{self._what} is not valid {self._coding} data. Compress it again, or send it uncompressed."
            ) from error
        self._output_size += len(piece)
        if self._output_size > self._max_bytes:
            raise TooLarge(
                f"{self._what} decompresses to more than {self._max_bytes} bytes. Split it, or send fewer files."
            )
        return piece


def _feed_layers(layers: Sequence[_Layer], data: bytes) -> Iterator[bytes]:
    if not layers:
        yield data
        return
    for piece in layers[0].feed(data):
        yield from _feed_layers(layers[1:], piece)
