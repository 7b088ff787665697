"""Choose the headers of a proxied call and of its response. Headers are bytes in the order of the connection."""

import re
import secrets
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from bridge.errors import BadGateway, BadParameter

RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te"}
    | {b"trailer", b"transfer-encoding", b"upgrade"}
)
"""Headers for one connection (RFC 9110, section 7.6.1); those that Connection names come in addition."""

_SET_BY_BRIDGE: Final = frozenset({b"host", b"expect"})  # the bridge sends 100 (Continue) itself

_OVERRIDES: Final = frozenset(
    {b"forwarded", b"x-forwarded-host", b"x-forwarded-prefix", b"x-http-method", b"x-http-method-override"}
    | {b"x-method-override", b"x-original-url", b"x-rewrite-url"}
)
"""Headers that make some servers read another method, host or path than the one that was authorized."""

_HARMLESS: Final = frozenset(
    {b"accept", b"cache-control", b"date", b"pragma", b"range", b"traceparent", b"tracestate", b"user-agent", b"via"}
    | {b"x-language", b"x-request-id"}
)
"""Headers that claim no identity, project, host or path. No others are forwarded with the bridge's credentials: what
servers and gateways between read as an identity has no end."""

_HARMLESS_KINDS: Final = (b"accept-", b"if-")
_OF_BODY: Final = b"content-"
_CONTENT_TYPE: Final = b"content-type"  # CodeArts requires it of calls without a body too

_SESSION_HEADERS: Final = frozenset({b"set-cookie", b"set-cookie2", b"x-subject-token"})
"""Sessions of the bridge's own account. Not returned to callers."""

_SIGNATURE: Final = b"sdk-"  # SDK-HMAC-SHA256 and later ones
_BEARER: Final = b"bearer "
_HARMLESS_UPGRADES: Final = frozenset({b"h2c"})  # offered by clients that speak HTTP/1.1 as well
_PSEUDONYM: Final = re.compile(rb"[\w.-]+")


class Via:
    """The Via header of this process, which also detects loops (RFC 9110, section 7.6.3)."""

    def __init__(self) -> None:
        self.header: Final = (b"Via", b"1.1 codearts-testnod-bridge-" + secrets.token_hex(4).encode())
        self._pseudonym = self.header[1].split()[1]

    def require_no_loop(self, headers: RawHeaders) -> None:
        """Raise BadGateway if this process has forwarded the call before."""
        for name, value in headers:
            if name.lower() == b"via" and self._pseudonym in _PSEUDONYM.findall(value):
                raise BadGateway(
                    "This call has come back to the bridge that forwarded it. "
                    "Set the endpoints in [codearts] to CodeArts itself."
                )


def require_forwardable(method: str, headers: RawHeaders) -> None:
    """Raise BadParameter for TRACE, a change of protocol, or an unknown transfer coding.

    The response to TRACE would contain the request with the bridge's credentials.
    """
    if method == "TRACE":
        raise BadParameter("The bridge does not forward TRACE. Use another method.")
    for name, value in headers:
        lower = name.lower()
        if lower == b"upgrade" and not _HARMLESS_UPGRADES.issuperset(_tokens(value)):
            raise BadParameter("The bridge does not forward a change of protocol. Remove the header Upgrade.")
        if lower == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise BadParameter("The bridge forwards no transfer coding but chunked. Send the body unencoded.")


def caller_headers(headers: RawHeaders, is_bridge_token: Callable[[str], bool]) -> list[tuple[bytes, bytes]]:
    """Return the headers with the caller's own credentials, without tokens of the bridge.

    A signature is removed too, because it is valid for the bridge's host name only.
    """
    return [
        (name, value)
        for name, value in _end_to_end(headers)
        if not _is_reserved(name) and not _authenticates_to_bridge(name.lower(), value, is_bridge_token)
    ]


def headers_with_token(headers: RawHeaders, token: str) -> list[tuple[bytes, bytes]]:
    """Return the headers with `token`, an X-Auth-Token that IAM has confirmed, as the only credential."""
    return [
        (name, value)
        for name, value in _end_to_end(headers)
        if not _is_reserved(name)
        and name.lower() not in {b"authorization", b"x-security-token"}
        and (name.lower() != b"x-auth-token" or _text(value) == token)
    ]


def headers_for_bridge(headers: RawHeaders, *, with_body: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers for a call with the bridge's credentials: none that could name the caller or another call."""
    return [(name, value) for name, value in _end_to_end(headers) if _is_harmless(name.lower(), with_body=with_body)]


def _is_harmless(lower: bytes, *, with_body: bool) -> bool:
    if lower.startswith(_OF_BODY):
        return with_body or lower == _CONTENT_TYPE
    return lower in _HARMLESS or lower.startswith(_HARMLESS_KINDS)


def response_headers(headers: RawHeaders, *, to_bridge: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response for the caller; `to_bridge` if it answers the bridge's own credentials."""
    return [
        (name, value) for name, value in _end_to_end(headers) if not (to_bridge and name.lower() in _SESSION_HEADERS)
    ]


def _end_to_end(headers: RawHeaders) -> Iterable[tuple[bytes, bytes]]:
    all_headers = list(headers)
    named = {token for name, value in all_headers if name.lower() == b"connection" for token in _tokens(value)}
    # A client that could drop these could make one request look like two, or hide a loop.
    dropped = HOP_BY_HOP | (named - {b"content-length", b"host", b"via"})
    return ((name, value) for name, value in all_headers if name.lower() not in dropped)


def _is_reserved(name: bytes) -> bool:
    lower = name.lower()
    return lower in _SET_BY_BRIDGE or lower in _OVERRIDES or lower.startswith((b"x-bridge-", b"x-sdk-"))


def _authenticates_to_bridge(lower: bytes, value: bytes, is_bridge_token: Callable[[str], bool]) -> bool:
    if lower == b"x-auth-token":
        return is_bridge_token(_text(value))
    if lower != b"authorization":
        return False
    if value[: len(_SIGNATURE)].lower() == _SIGNATURE:
        return True
    return value[: len(_BEARER)].lower() == _BEARER and is_bridge_token(_text(value[len(_BEARER) :].strip()))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _tokens(value: bytes) -> set[bytes]:
    return {token.strip().lower() for token in value.split(b",")} - {b""}
