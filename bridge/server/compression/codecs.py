"""Content codings of uploads (RFC 9110, section 8.4): parse Content-Encoding, detect codings, decompress one stream.

Limits and streams in a row are handled by `decompress`.
"""

import sys
import zlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, Protocol

import brotli  # type: ignore[import-untyped]  # the package brings no type marker

from bridge.domain.text_format import quote_for_display
from bridge.errors import UnknownEncoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES: Final = 64 * 1024  # returned at once, about: takes some tenths of a millisecond
MAX_STACKED: Final = 2  # a file that is stored compressed and sent compressed; more is an attack
ZSTD_WINDOW_LOG: Final = 23  # 8 MiB, the limit of RFC 9659; the format itself allows gigabytes
BROTLI_WINDOW_LOG: Final = 22  # 4 MiB, the default of libraries; the format itself allows 24
MAGIC_BYTES: Final = 4  # read by `content_coding_of`

DECOMPRESS_ERRORS: Final = (zlib.error, brotli.error, zstd.ZstdError)


class WindowTooLarge(Exception):
    """A brotli stream needs a larger window than BROTLI_WINDOW_LOG."""


class ContentCoding(StrEnum):
    """A compression, named as in Content-Encoding."""

    GZIP = "gzip"
    DEFLATE = "deflate"  # RFC 9110 means zlib; some senders omit the zlib header
    BROTLI = "br"
    ZSTD = "zstd"


_WINDOW_LOGS: Final = {ContentCoding.BROTLI: BROTLI_WINDOW_LOG, ContentCoding.ZSTD: ZSTD_WINDOW_LOG}
_BY_NAME: Final = {coding.value: coding for coding in ContentCoding} | {"x-gzip": ContentCoding.GZIP}


def content_codings(content_encoding: str | None) -> tuple[ContentCoding, ...]:
    """Return the codings that a Content-Encoding header names, in the order in which they were applied.

    Raise UnknownEncoding if one is not supported, or if there are more than MAX_STACKED, or br twice.
    """
    if not content_encoding:
        return ()
    names = [name.strip().lower() for name in content_encoding.split(",")]
    names = [name for name in names if name not in {"", "identity"}]
    for name in names:
        if name not in _BY_NAME:
            raise UnknownEncoding(
                f"The Content-Encoding {quote_for_display(name)} is not supported. "
                f"Use {', '.join(ContentCoding)}, or send it uncompressed."
            )
    if len(names) > MAX_STACKED:
        raise UnknownEncoding(
            f"The Content-Encoding names {len(names)} compressions, more than {MAX_STACKED}. Compress the upload once."
        )
    if names.count(ContentCoding.BROTLI) > 1:
        raise UnknownEncoding("The Content-Encoding names br twice. Compress the upload once.")
    return tuple(_BY_NAME[name] for name in names)


def content_coding_of(head: bytes) -> ContentCoding | None:
    """Return the coding of a file by its first MAGIC_BYTES, None if it has none; br and raw deflate have no magic."""
    if head.startswith(b"\x1f\x8b\x08"):
        return ContentCoding.GZIP
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return ContentCoding.ZSTD
    if head[:1] == b"\x78" and _has_zlib_header(head):  # a window of 32 KiB, as every compressor writes it
        return ContentCoding.DEFLATE
    return None


def window_size(coding: ContentCoding) -> int:
    """Return how many bytes of its output a decompressor keeps at most."""
    return 1 << _WINDOW_LOGS.get(coding, zlib.MAX_WBITS)


def new_decompressor(coding: ContentCoding) -> "Decompressor":
    """Return a decompressor for one stream of this coding."""
    return _DECOMPRESSORS[coding]()


class Decompressor(Protocol):
    """Decompresses one stream; some codings allow several in a row."""

    @property
    def ended(self) -> bool:
        """Whether the end of the stream was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether more output needs more data; if not, call `decompress` with no data."""

    @property
    def unused_data(self) -> bytes:
        """Data after the end of the stream."""

    def decompress(self, data: bytes) -> bytes:
        """Return about PIECE_BYTES of output at most; raise one of DECOMPRESS_ERRORS."""


class _Zlib:
    """A stream for zlib, with the header that `wbits` selects."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)
        self.needs_input = True

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes) -> bytes:
        piece = self._inner.decompress(self._inner.unconsumed_tail + data, PIECE_BYTES)
        self.needs_input = len(piece) < PIECE_BYTES  # zlib holds back more than unconsumed_tail
        return piece


class _Deflate:
    """A deflate stream with or without a zlib header, decided by the first two bytes."""

    def __init__(self) -> None:
        self._head = b""
        self._inner: _Zlib | None = None

    @property
    def ended(self) -> bool:
        return self._inner is not None and self._inner.ended

    @property
    def needs_input(self) -> bool:
        return self._inner is None or self._inner.needs_input

    @property
    def unused_data(self) -> bytes:
        return b"" if self._inner is None else self._inner.unused_data

    def decompress(self, data: bytes) -> bytes:
        if self._inner is None:
            self._head += data
            if len(self._head) < 2:
                return b""
            data = self._head
            self._inner = _Zlib(zlib.MAX_WBITS if _has_zlib_header(data) else -zlib.MAX_WBITS)
        return self._inner.decompress(data)


class _Brotli:
    """A brotli stream; the library itself rejects data after the end."""

    unused_data = b""

    def __init__(self) -> None:
        self._inner = brotli.Decompressor()
        self._began = False
        self.needs_input = True

    @property
    def ended(self) -> bool:
        return bool(self._inner.is_finished())

    def decompress(self, data: bytes) -> bytes:
        if data and not self._began:
            self._began = True
            _require_brotli_window(data[0])
        piece: bytes = self._inner.process(data, output_buffer_limit=PIECE_BYTES)
        # can_accept_more_data turns true when all input is read, even if output is still pending.
        self.needs_input = len(piece) < PIECE_BYTES and self._inner.can_accept_more_data()
        return piece


class _Zstd:
    """One zstd frame."""

    def __init__(self) -> None:
        self._inner = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return self._inner.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes) -> bytes:
        return self._inner.decompress(data, PIECE_BYTES)


_DECOMPRESSORS: Final[Mapping[ContentCoding, Callable[[], Decompressor]]] = {
    ContentCoding.GZIP: lambda: _Zlib(zlib.MAX_WBITS | 16),
    ContentCoding.DEFLATE: _Deflate,
    ContentCoding.BROTLI: _Brotli,
    ContentCoding.ZSTD: _Zstd,
}


def _require_brotli_window(first: int) -> None:
    """Raise WindowTooLarge by the first byte of a brotli stream (RFC 7932, section 9.1: WBITS)."""
    larger_than_17 = first >> 1 & 0b111 if first & 1 else 0
    if 17 + larger_than_17 > BROTLI_WINDOW_LOG:
        raise WindowTooLarge


def _has_zlib_header(head: bytes) -> bool:
    """Return whether `head` is a zlib header (RFC 1950, section 2.2); raw streams match only by chance."""
    return head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
