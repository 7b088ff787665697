"""Decompress uploads while they arrive, with bounds on memory, on the work per step, and on the output."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, Self

from bridge.errors import BadReport, TooLarge, Unavailable
from bridge.server.compression.codecs import (
    BROTLI_WINDOW_LOG,
    DECOMPRESS_ERRORS,
    ContentCoding,
    Decompressor,
    WindowTooLarge,
    new_decompressor,
    window_size,
)
from bridge.values import dataclass

INPUT_BYTES: Final = 16 * 1024  # per step, so that a step without output is short too
MAX_MEMBERS: Final = 10_000  # of one stream: bgzip starts one every 64 KiB; empty ones cost time and produce nothing

STATE_BYTES: Final = 128 * 1024
"""Of a decompressor besides its window: tables and one block."""

MAX_MEMORY_BYTES: Final = 256 * 1024 * 1024
"""Of the decompressors of all uploads. A window fills up with the output, so small reports take little of it."""

MAX_PARTY_BYTES: Final = MAX_MEMORY_BYTES // 2
"""Of the uploads of one caller, so that it cannot keep all others out."""

_MULTI_MEMBER: Final = frozenset({ContentCoding.GZIP, ContentCoding.ZSTD})  # several members in a row are one stream


class DecompressionMemory:
    """Counts the memory of all decompressors of a process. Outlives a reload of the settings."""

    def __init__(self, *, max_bytes: int = MAX_MEMORY_BYTES, max_party_bytes: int = MAX_PARTY_BYTES) -> None:
        self._max_bytes = max_bytes
        self._max_party_bytes = max_party_bytes
        self._taken: Counter[str] = Counter()

    def take(self, size: int, party: str) -> None:
        """Count `size` bytes more for `party` (see `party_of`); raise Unavailable if there are not so many left."""
        if self._taken[party] + size > self._max_party_bytes or self._taken.total() + size > self._max_bytes:
            raise Unavailable(
                "The bridge decompresses as many uploads as its memory allows, so nothing of this one was stored. "
                "Send it again in a moment, or uncompressed."
            )
        self._taken[party] += size

    def give_back(self, size: int, party: str) -> None:
        """Count `size` bytes less for `party`."""
        self._taken[party] -= size
        if not self._taken[party]:
            del self._taken[party]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryShare:
    """Where the decompressors of one upload count their memory."""

    memory: DecompressionMemory
    party: str


class DecompressionPipeline:
    """Removes the layers of `codings`, which are given in the order in which they were applied.

    `what` is the name of the stream and starts the sentences of errors. Both methods raise BadReport if the stream is
    damaged, ends too early, or has data after its end. `feed` raises TooLarge if the output of any layer exceeds
    `max_bytes`, after at most 1 MiB more, and Unavailable if there is not enough memory left for `share`. After an
    error, no more may be fed. As a context manager, it frees its memory at the end of the block.
    """

    def __init__(
        self, codings: Sequence[ContentCoding], *, what: str, max_bytes: int, share: MemoryShare | None = None
    ) -> None:
        self._layers = tuple(_Layer(coding, what, max_bytes, share) for coding in reversed(codings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the output for `data` in pieces of about codecs.PIECE_BYTES; consume them before feeding more.

        Pieces may be empty: each ends a short step of work, after which a caller on an event loop should yield.
        """
        return _feed_layers(self._layers, data)

    def close(self) -> None:
        """Mark the end of the input."""
        for layer in self._layers:
            layer.close()

    def free(self) -> None:
        """Free the memory; no more may be fed. May be called twice."""
        for layer in self._layers:
            layer.free()


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

    def __init__(self, coding: ContentCoding, what: str, max_bytes: int, share: MemoryShare | None) -> None:
        self._coding = coding
        self._what = what
        self._max_bytes = max_bytes
        self._share = share
        self._taken = 0  # bytes of memory
        self._window_size = window_size(coding)
        self._output_size = 0
        self._members = 0
        self._member: Decompressor | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), INPUT_BYTES):
            yield from self._feed_slice(data[start : start + INPUT_BYTES])

    def close(self) -> None:
        if self._member is not None or not self._members:
            raise BadReport(f"{self._what} ends before its {self._coding} compression does. Send the whole file again.")

    def free(self) -> None:
        self._member = None
        if self._share is not None:
            self._share.memory.give_back(self._taken, self._share.party)
        self._taken = 0

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
        self._count_memory()
        return new_decompressor(self._coding)

    def _decompress(self, member: Decompressor, data: bytes) -> bytes:
        try:
            piece = member.decompress(data)
        except DECOMPRESS_ERRORS as error:
            raise BadReport(
                f"{self._what} is not valid {self._coding} data. Compress it again, or send it uncompressed."
            ) from error
        except WindowTooLarge as error:
            raise BadReport(
                f"{self._what} is compressed with br and a window of more than {1 << BROTLI_WINDOW_LOG} bytes. "
                f"Compress it with a smaller one (brotli --lgwin={BROTLI_WINDOW_LOG}), or with gzip."
            ) from error
        self._output_size += len(piece)
        self._count_memory()
        if self._output_size > self._max_bytes:
            raise TooLarge(
                f"{self._what} decompresses to more than {self._max_bytes} bytes. Split it, or send fewer files."
            )
        return piece

    def _count_memory(self) -> None:
        """Count the part of the window that output has filled: the rest of it takes no memory."""
        size = STATE_BYTES + min(self._window_size, self._output_size)
        if self._share is not None and size > self._taken:
            self._share.memory.take(size - self._taken, self._share.party)
            self._taken = size


def _feed_layers(layers: Sequence[_Layer], data: bytes) -> Iterator[bytes]:
    if not layers:
        yield data
        return
    for piece in layers[0].feed(data):
        yield from _feed_layers(layers[1:], piece)
