"""Read request bodies with limits on size and time. Bytes are counted as received, before any decompression."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import StreamReader
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from bridge.errors import BadParameter, TooLarge, Unavailable

STALL_SECONDS = 30.0
"""The longest wait for the next bytes: a pause of a CI network, not a client that keeps its connection open."""

MIN_BYTES_PER_SECOND = 1024
"""A body that is slower than this after the first STALL_SECONDS is rejected: it would hold a slot for hours."""

MAX_SECONDS = 12 * 3600.0
"""The longest time for a body of any size. The cleanup moves files without a row aside after a day, and the first file
of a form is in the spool without a row until the last one has arrived."""


async def read_body(
    content: StreamReader,
    *,
    max_bytes: int,
    stall_seconds: float = STALL_SECONDS,
    max_seconds: float = MAX_SECONDS,
) -> AsyncIterator[bytes]:
    """Yield the body in the pieces in which it arrives.

    Raise TooLarge after `max_bytes`, BadParameter if its framing is broken, Unavailable if it stalls, and
    ConnectionError if the client leaves.
    """
    now = asyncio.get_running_loop().time
    received, waited = 0, 0.0
    ends_at = now() + max_seconds
    while True:
        try:
            piece = content.read_nowait()
            if not piece and not content.at_eof():
                patience = min(stall_seconds, stall_seconds + received / MIN_BYTES_PER_SECOND - waited)
                began = now()
                async with asyncio.timeout(min(patience, ends_at - began)):
                    piece = await content.readany()
                waited += now() - began
        except TimeoutError as error:
            raise Unavailable("The upload arrived too slowly, so nothing of it was stored. Send it again.") from error
        except (HttpProcessingError, RequestPayloadError) as error:
            raise BadParameter("The body's framing is broken, so nothing of it was stored. Send it again.") from error
        if not piece:
            return
        received += len(piece)
        if received > max_bytes:
            raise too_large(max_bytes)
        yield piece


async def read_small_body(content: StreamReader, *, max_bytes: int, remedy: str) -> bytes:
    """Return a whole body; raise as `read_body`, with `remedy` in the message if it exceeds `max_bytes`."""
    try:
        return b"".join([piece async for piece in read_body(content, max_bytes=max_bytes)])
    except TooLarge as error:
        raise TooLarge(f"The body is larger than {max_bytes} bytes. {remedy}") from error


def too_large(max_bytes: int) -> TooLarge:
    """Return the error for a request that exceeds the limit."""
    return TooLarge(
        f"The upload is larger than {max_bytes} bytes, so nothing of it was stored. "
        "Send the reports in several uploads."
    )
