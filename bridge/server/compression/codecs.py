"""The foldings that uploads come in: how they are named and known, and one compressed stream of each.

It knows nothing of limits or of streams in a row. Content-Encoding is read as RFC 9110, section 8.4, has it.
"""

import zlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, Protocol

import brotli  # type: ignore[import-untyped]  # the package brings no type marker
from backports import zstd

from bridge.errors import UnknownEncoding
from bridge.server.http.responses import quote_for_display

PIECE_BYTES: Final = 64 * 1024  # unfolded at once, about: a step of some tenths of a millisecond
MAX_STACKED: Final = 2  # a file that was stored compressed and is sent compressed; more is an attack
ZSTD_WINDOW_LOG: Final = 23  # 8 MiB: what RFC 9659 allows a sender; the format's own limit is gigabytes
MAGIC_BYTES: Final = 4  # that `folding_of` looks at

Damaged: Final = (zlib.error, brotli.error, zstd.ZstdError)


class ContentCoding(StrEnum):
    """A compression, named as in Content-Encoding."""

    GZIP = "gzip"
    DEFLATE = "deflate"  # RFC 9110 means zlib; some senders leave zlib's frame out
    BROTLI = "br"
    ZSTD = "zstd"


_BY_NAME: Final = {folding.value: folding for folding in ContentCoding} | {"x-gzip": ContentCoding.GZIP}


def content_codings(content_encoding: str | None) -> tuple[ContentCoding, ...]:
    """Read a Content-Encoding: the foldings in the order in which they were applied, none for a plain body.

    Raise UnknownEncoding for one that is not known here, and for more than MAX_STACKED.
    """
    names = [name.strip().lower() for name in (content_encoding or "").split(",")]
    names = [name for name in names if name not in {"", "identity"}]
    for name in names:
        if name not in _BY_NAME:
            raise UnknownEncoding(
                f"The Content-Encoding {quote_for_display(name)} is none that is read here. "
                f"Send it as {', '.join(ContentCoding)}, or uncompressed."
            )
    if len(names) > MAX_STACKED:
        raise UnknownEncoding(
            f"The Content-Encoding names {len(names)} compressions, more than {MAX_STACKED}. Compress the upload once."
        )
    return tuple(_BY_NAME[name] for name in names)


def content_coding_of(head: bytes) -> ContentCoding | None:
    """Tell the folding of a file from its first MAGIC_BYTES; br and raw deflate have no mark."""
    if head.startswith(b"\x1f\x8b\x08"):
        return ContentCoding.GZIP
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return ContentCoding.ZSTD
    if head[:1] == b"\x78" and _has_zlib_frame(head):  # a window of 32 KiB, as every compressor has it
        return ContentCoding.DEFLATE
    return None


def begin(folding: ContentCoding) -> "Decompressor":
    """Begin a stream of this folding."""
    return _MEMBERS[folding]()


class Decompressor(Protocol):
    """One compressed stream; some foldings allow several in a row."""

    @property
    def ended(self) -> bool: ...

    @property
    def hungry(self) -> bool:
        """Whether only more data can bring more out; until then `take` is to be called with none."""

    @property
    def rest(self) -> bytes:
        """What came behind the end."""

    def take(self, data: bytes) -> bytes:
        """Take `data` and return about PIECE_BYTES at most; raise one of Damaged."""


class _Zlib:
    """A stream that zlib reads, in the frame that `wbits` names."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)
        self.hungry = True

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data

    def take(self, data: bytes) -> bytes:
        piece = self._inner.decompress(self._inner.unconsumed_tail + data, PIECE_BYTES)
        self.hungry = len(piece) < PIECE_BYTES  # zlib keeps more back than its tail tells
        return piece


class _Deflate:
    """A deflate stream, with zlib's frame or without: its first two bytes decide."""

    def __init__(self) -> None:
        self._head = b""
        self._inner: _Zlib | None = None

    @property
    def ended(self) -> bool:
        return self._inner is not None and self._inner.ended

    @property
    def hungry(self) -> bool:
        return self._inner is None or self._inner.hungry

    @property
    def rest(self) -> bytes:
        return b"" if self._inner is None else self._inner.rest

    def take(self, data: bytes) -> bytes:
        if self._inner is None:
            self._head += data
            if len(self._head) < 2:
                return b""
            data = self._head
            self._inner = _Zlib(zlib.MAX_WBITS if _has_zlib_frame(data) else -zlib.MAX_WBITS)
        return self._inner.take(data)


class _Brotli:
    """A brotli stream, which refuses by itself what comes behind its end."""

    rest = b""

    def __init__(self) -> None:
        self._inner = brotli.Decompressor()
        self.hungry = True

    @property
    def ended(self) -> bool:
        return bool(self._inner.is_finished())

    def take(self, data: bytes) -> bytes:
        piece: bytes = self._inner.process(data, output_buffer_limit=PIECE_BYTES)
        # It would accept more as soon as it has read all it got, though not all of that has come out.
        self.hungry = len(piece) < PIECE_BYTES and self._inner.can_accept_more_data()
        return piece


class _Zstd:
    """One frame of zstd."""

    def __init__(self) -> None:
        self._inner = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def hungry(self) -> bool:
        return self._inner.needs_input

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data

    def take(self, data: bytes) -> bytes:
        return self._inner.decompress(data, PIECE_BYTES)


_MEMBERS: Final[Mapping[ContentCoding, Callable[[], Decompressor]]] = {
    ContentCoding.GZIP: lambda: _Zlib(zlib.MAX_WBITS | 16),
    ContentCoding.DEFLATE: _Deflate,
    ContentCoding.BROTLI: _Brotli,
    ContentCoding.ZSTD: _Zstd,
}


def _has_zlib_frame(head: bytes) -> bool:
    """Tell by RFC 1950's header; a raw stream that looks so would begin with a stored block padded by chance."""
    return head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
