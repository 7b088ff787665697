"""Bytes that flow through a filter piece by piece: the plumbing of repair and stripping.

It knows neither XML nor encodings, and no file: a source is whatever gives the same bytes again when called again.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from bridge.domain.junit.text_source import Source

__all__ = ["PIECE_SIZE", "Filter", "Source", "regroup", "through"]

PIECE_SIZE: Final = 64 << 10  # bytes: as the gate gives them to lxml; also holds every honest XML declaration


class Filter(Protocol):
    """Takes a document in pieces and gives another; what it still holds comes at the close."""

    def feed(self, piece: bytes, /) -> bytes: ...

    def close(self) -> bytes: ...


def through(stage: Filter, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Let chunks run through a filter, to its close."""
    for chunk in chunks:
        if out := stage.feed(chunk):
            yield out
    if out := stage.close():
        yield out


def regroup(chunks: Iterable[bytes], size: int = PIECE_SIZE) -> Iterator[bytes]:
    """Give the same bytes in pieces of `size`, the last may be shorter."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        whole = len(held) - len(held) % size
        for start in range(0, whole, size):
            yield bytes(held[start : start + size])
        del held[:whole]
    if held:
        yield bytes(held)
