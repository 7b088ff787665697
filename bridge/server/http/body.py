"""The body of a request as it comes in: counted, and never waited for without end.

It knows nothing of what the bytes mean, nor whether they are compressed: it counts what comes over the wire.
"""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import StreamReader
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from bridge.errors import BadParameter, TooLarge, Unavailable

STALL_SECONDS = 30.0
"""The longest wait for the next bytes: a pause of a CI network, not a client that holds its connection for ever."""

SLOWEST_BYTES_PER_SECOND = 1024
"""A body that comes more slowly than this, after the first STALL_SECONDS, is cut: it would block a place for hours."""

LONGEST_SECONDS = 12 * 3600.0
"""However large it is, a whole body takes no longer: after a day the janitor takes a file without a row for one that
was left behind, and the first file of a form lies in the spool until the last has come."""


async def read_body(
    content: StreamReader,
    *,
    max_bytes: int,
    stall_seconds: float = STALL_SECONDS,
    longest_seconds: float = LONGEST_SECONDS,
) -> AsyncIterator[bytes]:
    """Yield the body in the pieces in which it arrives, at most `max_bytes` in all.

    Raise TooLarge beyond that, BadParameter where its framing is broken, Unavailable where it stalls;
    ConnectionError when the client goes away comes through as it is.
    """
    now = asyncio.get_running_loop().time
    received, waited = 0, 0.0
    ends_at = now() + longest_seconds
    while True:
        try:
            piece = content.read_nowait()
            if not piece and not content.at_eof():
                patience = min(stall_seconds, stall_seconds + received / SLOWEST_BYTES_PER_SECOND - waited)
                began = now()
                async with asyncio.timeout(min(patience, ends_at - began)):
                    piece = await content.readany()
                waited += now() - began
        except TimeoutError as error:
            raise Unavailable("The upload came in too slowly, so nothing of it was kept. Send it again.") from error
        except (HttpProcessingError, RequestPayloadError) as error:
            raise BadParameter("The body's framing is broken, so nothing of it was kept. Send it again.") from error
        if not piece:
            return
        received += len(piece)
        if received > max_bytes:
            raise too_large(max_bytes)
        yield piece


async def read_note(content: StreamReader, *, max_bytes: int, remedy: str) -> bytes:
    """Return a body that says a few words, whole; raise TooLarge with `remedy` beyond `max_bytes`, else as above."""
    try:
        return b"".join([piece async for piece in read_body(content, max_bytes=max_bytes)])
    except TooLarge as error:
        raise TooLarge(f"The body is larger than {max_bytes} bytes. {remedy}") from error


def too_large(max_bytes: int) -> TooLarge:
    """Say that a whole request is over the limit."""
    return TooLarge(
        f"The upload is larger than {max_bytes} bytes, so nothing of it was kept. Send the reports in several uploads."
    )
