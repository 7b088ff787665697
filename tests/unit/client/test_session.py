import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from bridge.client.session import describe_failure
from bridge.client.ssrf_guard import AddressBlocked

KEY = ConnectionKey(
    host="b.example",
    port=443,
    is_ssl=True,
    ssl=True,
    proxy=None,
    proxy_auth=None,
    proxy_headers_hash=None,
    server_hostname=None,
)
URL_WITH_QUERY = "https://b.example/k?canary"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "no")), "the name b.example does not resolve"),
        (
            aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError("no")),
            "the certificate of b.example is not trusted",
        ),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError("no")), "TLS with b.example failed"),
        (
            aiohttp.ClientConnectorError(KEY, OSError(111, "Connection refused")),
            "cannot connect to b.example: Connection refused",
        ),
        (aiohttp.ClientConnectorError(KEY, OSError("several")), "cannot connect to b.example: several"),
        (aiohttp.ClientConnectorError(KEY, AddressBlocked("not public")), "not public"),
        (aiohttp.InvalidUrlClientError(URL_WITH_QUERY), "the URL cannot be called"),
        (aiohttp.ConnectionTimeoutError(f"Connection timeout to host {URL_WITH_QUERY}"), "no connection in time"),
        (aiohttp.SocketTimeoutError(), "no complete response in time"),
        (TimeoutError(), "no complete response in time"),
        (aiohttp.ServerDisconnectedError(), "the connection was closed"),
        (aiohttp.ClientOSError(32, f"Can not write request body for {URL_WITH_QUERY}"), "the connection was closed"),
        (aiohttp.ClientPayloadError("cut"), "the connection was closed"),
        (
            aiohttp.ClientResponseError(aiohttp.RequestInfo(URL(URL_WITH_QUERY), "GET", {}, URL()), ()),
            "the response is not HTTP",
        ),
        (ValueError(URL_WITH_QUERY), "the call failed (ValueError)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_failure_is_said_in_our_own_words(error, words):
    assert describe_failure(error) == words
