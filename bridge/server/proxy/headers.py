"""The headers of a proxied call and of its answer: which go on, which stay, and what the bridge adds.

It knows bytes in their order as they stood on the wire, and neither sockets nor callers.
"""

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
"""For one connection only: RFC 9110, 7.6.1; those that Connection names come in addition."""

_OURS_TO_SAY: Final = frozenset({b"host", b"expect"})  # 100 (Continue) is said by the bridge itself

_DISGUISES: Final = frozenset(
    {b"forwarded", b"x-forwarded-host", b"x-forwarded-prefix", b"x-http-method", b"x-http-method-override"}
    | {b"x-method-override", b"x-original-url", b"x-rewrite-url"}
)
"""By these some servers take a call for another one than was allowed, or answer about another build than was heard."""

_PROOFS: Final = frozenset(
    {b"authorization", b"cookie", b"x-auth-token", b"x-domain-id", b"x-project-id", b"x-security-token"}
    | {b"x-subject-token"}
)
"""Who the caller is, and in which project: where the call goes on in the bridge's name, the bridge says that."""

_SECRET_ANSWERS: Final = frozenset({b"set-cookie", b"set-cookie2", b"x-subject-token"})
"""A session of the bridge's own account is nobody else's."""

_SIGNATURE: Final = b"sdk-"  # SDK-HMAC-SHA256, and whatever may follow it
_BEARER: Final = b"bearer "
_HARMLESS_UPGRADES: Final = frozenset({b"h2c"})  # offered unasked by clients that speak HTTP/1.1 as well
_PSEUDONYM: Final = re.compile(rb"[\w.-]+")


class Via:
    """How this process signs what it passes on, and knows a call that came back to it (RFC 9110, 7.6.3)."""

    def __init__(self) -> None:
        self.line: Final = (b"Via", b"1.1 codearts-testnod-bridge-" + secrets.token_hex(4).encode())
        self._name = self.line[1].split()[1]

    def refuse_loop(self, headers: RawHeaders) -> None:
        """Raise BadGateway for a call that this process has passed on before."""
        for name, value in headers:
            if name.lower() == b"via" and self._name in _PSEUDONYM.findall(value):
                raise BadGateway(
                    "This call has come back to the bridge that passed it on. "
                    "Have the endpoints in [codearts] name CodeArts itself."
                )


def refuse_unpassable(method: str, headers: RawHeaders) -> None:
    """Raise BadParameter for what cannot go on: a change of protocol, an unknown transfer coding, an echo.

    TRACE would be answered with the request as it arrived, the bridge's credentials among it.
    """
    if method == "TRACE":
        raise BadParameter("The bridge passes on no TRACE. Ask with another method.")
    for name, value in headers:
        lower = name.lower()
        if lower == b"upgrade" and not _HARMLESS_UPGRADES.issuperset(_words(value)):
            raise BadParameter("The bridge passes on no change of protocol. Send the call without the header Upgrade.")
        if lower == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise BadParameter("The bridge passes on no transfer coding but chunked. Send the body as it is.")


def as_it_came(headers: RawHeaders, is_bridge_token: Callable[[str], bool]) -> list[tuple[bytes, bytes]]:
    """Return a request's headers for an upstream that judges the caller itself; no secret of the bridge is among them.

    A signature is left out too: it was made for the bridge's host name, and holds nowhere else.
    """
    return [
        (name, value)
        for name, value in _end_to_end(headers)
        if not _is_ours(name) and not _proves_to_bridge(name.lower(), value, is_bridge_token)
    ]


def with_token(headers: RawHeaders, token: str) -> list[tuple[bytes, bytes]]:
    """Return a request's headers with `token`, the X-Auth-Token that IAM vouched for, as the only proof."""
    return [
        (name, value)
        for name, value in _end_to_end(headers)
        if not _is_ours(name)
        and name.lower() not in {b"authorization", b"x-security-token"}
        and (name.lower() != b"x-auth-token" or _text(value) == token)
    ]


def without_proofs(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Return a request's headers without whatever says who is calling."""
    return [(name, value) for name, value in _end_to_end(headers) if not _is_ours(name) and name.lower() not in _PROOFS]


def of_answer(headers: RawHeaders, *, to_our_account: bool) -> list[tuple[bytes, bytes]]:
    """Return an answer's headers for the caller; what was answered `to_our_account` keeps its session to itself."""
    return [
        (name, value)
        for name, value in _end_to_end(headers)
        if not (to_our_account and name.lower() in _SECRET_ANSWERS)
    ]


def first(headers: RawHeaders, name: bytes) -> bytes | None:
    """Return the value of the first header called `name` (lower case)."""
    return next((value for other, value in headers if other.lower() == name), None)


def _end_to_end(headers: RawHeaders) -> Iterable[tuple[bytes, bytes]]:
    kept = list(headers)
    named = {word for name, value in kept if name.lower() == b"connection" for word in _words(value)}
    # Whoever could have these dropped could make one request look like two, or hide who is asking.
    dropped = HOP_BY_HOP | (named - {b"content-length", b"host", b"via"})
    return ((name, value) for name, value in kept if name.lower() not in dropped)


def _is_ours(name: bytes) -> bool:
    lower = name.lower()
    return lower in _OURS_TO_SAY or lower in _DISGUISES or lower.startswith((b"x-bridge-", b"x-sdk-"))


def _proves_to_bridge(lower: bytes, value: bytes, is_bridge_token: Callable[[str], bool]) -> bool:
    if lower == b"x-auth-token":
        return is_bridge_token(_text(value))
    if lower != b"authorization":
        return False
    if value[: len(_SIGNATURE)].lower() == _SIGNATURE:
        return True
    return value[: len(_BEARER)].lower() == _BEARER and is_bridge_token(_text(value[len(_BEARER) :].strip()))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _words(value: bytes) -> set[bytes]:
    return {word.strip().lower() for word in value.split(b",")} - {b""}
