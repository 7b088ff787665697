"""Repair a report, or strip elements from it, before it is sent, as its route asks for."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from bridge.domain.junit.encoding import PIECE_SIZE, WRITE_ENCODING
from bridge.domain.junit.encoding_guess import WRITE_VALID_UTF_8
from bridge.domain.junit.repair.encoding_detection import is_utf_8
from bridge.domain.junit.repair.repair import REPAIRABLE_CODES, Repaired, Source, apply_filter, prepare, repair
from bridge.domain.junit.repair.rewrite import ElementStripper
from bridge.domain.junit.result import Invalid, InvalidReport, Valid, ValidationResult
from bridge.domain.junit.validator import validate_source
from bridge.domain.junit.xml_errors import (
    CUT_BEFORE,
    JOIN_HALVES,
    KEEP_CONTROLS_OUT,
    OF_AMPERSANDS,
    WRITE_WHOLE,
    WRITE_XML_1_0,
)

if TYPE_CHECKING:  # validation processes do not need it
    from bridge.domain.routing import Route

REPAIRABLE = {
    WRITE_ENCODING,
    WRITE_VALID_UTF_8,
    KEEP_CONTROLS_OUT,
    WRITE_WHOLE,
    WRITE_XML_1_0,
    CUT_BEFORE,
} | OF_AMPERSANDS
"""Remedies that a route can do instead of the test runner."""

TOO_LARGE = "too_large"
"""Reason of a rejected file that exceeds the size limit after the transformation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformOptions:
    """The transformations that a route asks for, beside those that every report gets (`prepare`)."""

    max_size: int  # bytes of the result: another encoding may make a report three times as large
    repair: bool = False
    strip: tuple[str, ...] = ()  # names of elements

    def apply_to(self, result: ValidationResult) -> bool:
        """Return whether a file with this result may be changed."""
        if isinstance(result, Invalid):
            return result.remedy == JOIN_HALVES or (self.repair and result.reason in REPAIRABLE_CODES)
        return bool(self.strip or result.codec) or (self.repair and not is_utf_8(result.encoding))


class FileDigest(NamedTuple):
    """Identifies the bytes of a file."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformResult:
    """A valid report, and what was changed."""

    accepted: Valid  # for the bytes to send
    changes: tuple[str, ...] = ()  # sentences for people
    written: FileDigest | None = None  # of the bytes to send; None: send the original


def transform(
    result: ValidationResult, options: TransformOptions, source: Source, out: BinaryIO
) -> TransformResult | Invalid:
    """Apply `options` to the report that `source` opens and whose validation returned `result`.

    The bytes to send are written to `out`; if nothing was changed, the content of `out` is undefined. Memory use is
    constant except for the longest token in lxml. `out` never exceeds `options.max_size`.
    """
    if not options.apply_to(result):
        return result if isinstance(result, Invalid) else TransformResult(accepted=result)
    repaired = _repaired(result, options, source)
    if isinstance(repaired, Invalid):
        return repaired
    try:
        return _stripped(repaired, options, out)
    except InvalidReport as error:
        return error.invalid


def remedy(invalid: Invalid, route: "Route") -> str:
    """Return the remedy for a rejected file; mention the `repair` setting of the route if it may help."""
    if invalid.remedy not in REPAIRABLE or route.repair:
        return invalid.remedy
    return f"{invalid.remedy.removesuffix('.')}, or set repair = true on route {route.name}."


def _repaired(result: ValidationResult, options: TransformOptions, source: Source) -> Repaired | Invalid:
    if options.repair and replace(options, strip=()).apply_to(result):
        return repair(source)
    return prepare(result, source)


def _stripped(repaired: Repaired, options: TransformOptions, out: BinaryIO) -> TransformResult:
    if options.strip:
        stripper = ElementStripper(frozenset(options.strip))
        written = _write(lambda: apply_filter(stripper, repaired.chunks()), out, options.max_size)
        if stripper.removed:
            accepted = validate_source(lambda: _chunks(out))
            if isinstance(accepted, Invalid):
                raise InvalidReport(accepted)
            changes = (*repaired.done, _removed_text(stripper.removed))
            return TransformResult(accepted=accepted, changes=changes, written=written)
    if not repaired.done:
        return TransformResult(accepted=repaired.accepted)
    written = _write(repaired.chunks, out, options.max_size)
    return TransformResult(accepted=repaired.accepted, changes=repaired.done, written=written)


def _write(source: Source, out: BinaryIO, max_size: int) -> FileDigest:
    out.seek(0)
    out.truncate()
    size, digest = 0, hashlib.sha256()
    for chunk in source():
        size += len(chunk)
        if size > max_size:
            raise InvalidReport(_too_large(max_size))
        out.write(chunk)
        digest.update(chunk)
    return FileDigest(size, digest.hexdigest())


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(PIECE_SIZE):
        yield chunk


def _too_large(max_size: int) -> Invalid:
    return Invalid(
        reason=TOO_LARGE,
        found=f"as UTF-8 it is larger than {max_size} bytes.",
        remedy="Split the report, or raise server.max_report_size.",
    )


def _removed_text(removed: Mapping[str, int]) -> str:
    return f"Left out: {', '.join(f'{count} {name}' for name, count in sorted(removed.items()))}."
