"""Reads from a certificate when it ends; the standard library parses only certificates that it has verified.

DER is a tree of values, each with a tag and a length (X.690). A certificate (RFC 5280, section 4.1) begins with the
part that is signed: version, serial number, algorithm, issuer, validity.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

from bridge.domain.instants import SECOND, Instant

VERSION: Final = 0xA0  # optional, and explicitly tagged
UTC_TIME: Final = 0x17  # with two digits for the year
GENERALIZED_TIME: Final = 0x18
LONG_FORM: Final = 0x80
VALIDITY: Final = 3  # its place after the version


class _Value(NamedTuple):
    tag: int
    content: bytes
    rest: bytes  # what follows it


def certificate_end(der: bytes) -> Instant:
    """Return when a certificate ends (`notAfter`); raise ValueError if it cannot be read."""
    signed = _read(_read(der).content).content
    value = _read(signed)
    if value.tag == VERSION:
        value = _read(value.rest)
    for _ in range(VALIDITY):
        value = _read(value.rest)
    not_before = _read(value.content)
    not_after = _read(not_before.rest)
    form = {UTC_TIME: "%y%m%d%H%M%SZ", GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}.get(not_after.tag)
    if form is None:
        raise ValueError("the certificate has no end")
    ends_at = datetime.strptime(not_after.content.decode("ascii"), form).replace(tzinfo=UTC)
    return Instant(int(ends_at.timestamp()) * SECOND)


def _read(der: bytes) -> _Value:
    if len(der) < 2:
        raise ValueError("the certificate is cut off")
    tag, length, start = der[0], der[1], 2
    if length & LONG_FORM:
        start += length & ~LONG_FORM
        length = int.from_bytes(der[2:start], "big")
    if len(der) < start + length:
        raise ValueError("the certificate is cut off")
    return _Value(tag, der[start : start + length], der[start + length :])
