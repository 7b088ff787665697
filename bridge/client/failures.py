"""Why a call got no answer, said in our own words: aiohttp's hold the whole URL, presigned query and all.

It knows no upstream, and not whether the call may have had an effect.
"""

import aiohttp

from bridge.client.guard import AddressRefused
from bridge.protocols.answers import clean

WORDS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientHttpProxyError, "the proxy refused to connect (HTTP {status}); see client.proxy"),
    (aiohttp.ClientProxyConnectionError, "cannot connect to the proxy {host}: {reason}"),
    (aiohttp.ClientConnectorDNSError, "the name {host} does not resolve"),
    (aiohttp.ClientConnectorCertificateError, "the certificate of {host} is not trusted"),
    (aiohttp.ClientConnectorSSLError, "TLS with {host} failed"),
    (aiohttp.ClientConnectorError, "cannot connect to {host}: {reason}"),
    (aiohttp.InvalidURL, "the URL cannot be called"),
    (aiohttp.ConnectionTimeoutError, "no connection in time"),
    (TimeoutError, "no complete answer in time"),
    (aiohttp.ServerDisconnectedError, "the connection was cut"),
    (aiohttp.ClientPayloadError, "the connection was cut"),
    (aiohttp.ClientResponseError, "the answer is not HTTP"),
    (OSError, "the connection was cut"),
)
"""Sought from top to bottom: many of these are subclasses of others."""


def describe(error: Exception) -> str:
    """Return what failed as half a sentence without anything secret."""
    cause = getattr(error, "os_error", None)
    if isinstance(cause, AddressRefused):
        return str(cause)
    words = next((text for kind, text in WORDS if isinstance(error, kind)), "the call failed ({kind})")
    reason = cause.strerror or str(cause) if isinstance(cause, OSError) else ""
    host, status = clean(str(getattr(error, "host", ""))), getattr(error, "status", "")
    return words.format(host=host, reason=clean(reason), status=status, kind=type(error).__name__)
