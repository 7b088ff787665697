"""Decode the Content-Transfer-Encoding of a form part as it arrives (RFC 2045, section 6).

RFC 7578 deprecates it for forms, but Ansible and other clients that build forms with a mail library send it.
"""

import re
from binascii import Error, a2b_base64, a2b_qp
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from bridge.domain.text_format import quote_for_display
from bridge.errors import BadReport, UnknownEncoding

MAX_ESCAPE_BYTES: Final = 80  # of a soft line break: "=", blanks that were added to a line of 76, and the line end

_BLANKS: Final = b" \t\r\n"
_BROKEN_ESCAPE: Final = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r?\n)")
_PADDED_BREAK: Final = re.compile(rb"=[ \t]+(?=\r?\n)")
_INCOMPLETE_ESCAPE: Final = re.compile(rb"=(?:[0-9A-Fa-f]?|[ \t]*\r?)\Z")


class TransferDecoder(Protocol):
    """Decodes one part. Both methods raise BadReport if it is not encoded as it claims to be."""

    def feed(self, data: bytes) -> bytes:
        """Return what can be decoded now; never more bytes than were fed."""

    def close(self) -> bytes:
        """Return the rest."""


def transfer_decoder(transfer_encoding: str | None, *, what: str) -> TransferDecoder | None:
    """Return the decoder for a Content-Transfer-Encoding header, None if the bytes are sent as they are.

    Raise UnknownEncoding if the encoding is not supported. `what` is the part, for errors of the decoder.
    """
    name = (transfer_encoding or "").strip().lower()
    if name in {"", "7bit", "8bit", "binary"}:
        return None
    if name not in _DECODERS:
        raise UnknownEncoding(
            f"The Content-Transfer-Encoding {quote_for_display(name)} is not supported. "
            "Use base64 or quoted-printable, or send the part as it is without that header."
        )
    return _DECODERS[name](what)


class _Base64:
    """Skips line ends and blanks; the padding at the end may be missing."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._rest = b""  # less than one group of four characters
        self._padded = False

    def feed(self, data: bytes) -> bytes:
        encoded = self._rest + data.translate(None, _BLANKS)
        whole = len(encoded) - len(encoded) % 4
        self._rest = encoded[whole:]
        return self._decode(encoded[:whole])

    def close(self) -> bytes:
        if len(self._rest) == 1:
            raise _broken(self._what, "base64")
        return self._decode(self._rest + b"=" * (-len(self._rest) % 4))

    def _decode(self, groups: bytes) -> bytes:
        if groups and self._padded:
            raise _broken(self._what, "base64")
        self._padded = self._padded or groups.endswith(b"=")
        try:
            return a2b_base64(groups, strict_mode=True)
        except Error as error:
            raise _broken(self._what, "base64") from error


class _QuotedPrintable:
    """Rejects a "=" that starts no escape, because a client that does not encode would send a report that changes."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._rest = b""  # an escape that is not complete yet

    def feed(self, data: bytes) -> bytes:
        encoded = self._rest + data
        incomplete = _INCOMPLETE_ESCAPE.search(encoded, max(0, len(encoded) - MAX_ESCAPE_BYTES))
        end = incomplete.start() if incomplete else len(encoded)
        self._rest = encoded[end:]
        return self._decode(encoded[:end])

    def close(self) -> bytes:
        return self._decode(self._rest + b"\n" if self._rest else b"")

    def _decode(self, encoded: bytes) -> bytes:
        encoded = _PADDED_BREAK.sub(b"=", encoded)
        if _BROKEN_ESCAPE.search(encoded):
            raise _broken(self._what, "quoted-printable")
        return a2b_qp(encoded)


_DECODERS: Final[Mapping[str, Callable[[str], TransferDecoder]]] = {
    "base64": _Base64,
    "quoted-printable": _QuotedPrintable,
}


def _broken(what: str, encoding: str) -> BadReport:
    return BadReport(
        f"{what} is not valid {encoding}, which the Content-Transfer-Encoding of its form part names. "
        "Encode all of it, or send it as it is without that header."
    )
