"""Repairs a broken report so that validation accepts it, if that takes no guess about the outcome of a test."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

from bridge.domain.junit.repair.control_chars import ControlCharFilter
from bridge.domain.junit.repair.encoding_detection import (
    EncodingSurvey,
    garbled_names,
    has_garbled_names,
    hidden_cdata_end,
    hides_cdata_end,
    is_utf_8,
)
from bridge.domain.junit.repair.rewrite import TruncationRepairer
from bridge.domain.junit.result import Invalid, Valid, ValidationResult
from bridge.domain.junit.validator import JUnitValidator, validate_source
from bridge.domain.junit.wellformed import Source, Text, Truncated, find_fault, text_of, without_declaration
from bridge.domain.junit.xml_errors import OF_AMPERSANDS, TRUNCATED

__all__ = ["PIECE_SIZE", "Filter", "Source", "apply_filter", "regroup"]

PIECE_SIZE: Final = 64 << 10  # bytes, as in validation; long enough for every XML declaration


class Filter(Protocol):
    """A filter of bytes; output that it buffers is returned by `close`."""

    def feed(self, piece: bytes, /) -> bytes: ...

    def close(self) -> bytes: ...


def apply_filter(filter_: Filter, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the output of a filter for the chunks, including that of its close."""
    for chunk in chunks:
        if out := filter_.feed(chunk):
            yield out
    if out := filter_.close():
        yield out


def regroup(chunks: Iterable[bytes], size: int = PIECE_SIZE) -> Iterator[bytes]:
    """Yield the same bytes in pieces of `size`; the last may be shorter."""
    buffered = bytearray()
    for chunk in chunks:
        buffered += chunk
        whole = len(buffered) - len(buffered) % size
        for start in range(0, whole, size):
            yield bytes(buffered[start : start + size])
        del buffered[:whole]
    if buffered:
        yield bytes(buffered)


REPAIRABLE_CODES: Final = frozenset({"encoding", "not_xml", TRUNCATED})
ZEROED_BLOCK: Final = b"\0" * 64  # more than a test prints
CLOSED: Final = "The file ended too early and was closed; cases may be missing."


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """A report that validation accepts, and the repairs that it took."""

    accepted: Valid  # for the bytes of `chunks`
    done: tuple[str, ...]  # sentences for people; empty if the bytes are unchanged
    chunks: Source  # reads the source at every call


def repair(source: Source) -> Repaired | Invalid:
    """Repair a report of any size, in constant memory except for the longest token; reads it up to ten times.

    The result is UTF-8, without what XML forbids, with bare `&` escaped, and closed after its last finished case if it
    ends too early. No finished case is lost or changes its outcome. A valid UTF-8 report is unchanged. If a repair
    would take a guess, return `Invalid` with the reason; validation's own if nothing could be repaired.
    """
    result, survey = _validate_and_survey(source)
    encoding = survey.choose()
    if isinstance(result, Valid):
        if encoding in survey.stated and not is_utf_8(encoding):
            repaired = _repair_text(source, survey, encoding)
            if isinstance(repaired, Repaired) and repaired.accepted.counts == result.counts:
                return repaired
        return Repaired(accepted=result, done=(), chunks=source)
    if result.reason not in REPAIRABLE_CODES or not survey.repairable or _has_zeroed_block(source):
        return result
    return survey.rejection() if encoding is None else _repair_text(source, survey, encoding)


def _repair_text(source: Source, survey: EncodingSurvey, encoding: str) -> Repaired | Invalid:
    if hides_cdata_end(source, encoding):
        return hidden_cdata_end(encoding)
    repaired = _clean(source, survey, encoding, ampersands=False)
    if isinstance(repaired, Invalid) and repaired.remedy in OF_AMPERSANDS:
        repaired = _clean(source, survey, encoding, ampersands=True)
    return repaired


def _clean(source: Source, survey: EncodingSurvey, encoding: str, *, ampersands: bool) -> Repaired | Invalid:
    def cleaned() -> Iterator[bytes]:
        return apply_filter(ControlCharFilter(encoding, ampersands=ampersands), regroup(source()))

    def with_positions() -> Iterator[str]:
        masked = ControlCharFilter(encoding, ampersands=ampersands, keeps_positions=True)
        return without_declaration(piece.decode() for piece in apply_filter(masked, regroup(source())))

    result = validate_source(cleaned)
    if isinstance(result, Invalid) and result.reason != TRUNCATED:
        return _with_position(result, cleaned, with_positions)
    text = ControlCharFilter(encoding, ampersands=ampersands)
    if has_garbled_names(apply_filter(text, regroup(source()))):
        return garbled_names(encoding)
    done = (*_describe_encoding(survey, encoding, text), *_describe_changes(text))
    if isinstance(result, Valid):
        return Repaired(accepted=result, done=done, chunks=cleaned)
    closed = _close_truncated(cleaned)
    return replace(closed, done=done + closed.done) if closed else _with_position(result, cleaned, with_positions)


def _with_position(result: Invalid, cleaned: Source, text: Text) -> Invalid:
    """Return the result with the line and column of the original file, if validation finds the same fault there."""
    placed = validate_source(cleaned, text)
    if isinstance(placed, Invalid) and (placed.reason, placed.remedy) == (result.reason, result.remedy):
        return placed
    return result


def _close_truncated(source: Source) -> Repaired | None:
    cut = find_fault(text_of(source))
    cut_tag = cut.cut_tag if isinstance(cut, Truncated) else ""
    first = TruncationRepairer(cut_tag=cut_tag)
    for _ in apply_filter(first, source()):
        pass
    if first.contains_finished_cases:
        return None
    stop_at = None if first.failed else first.unfinished

    def closed() -> Iterator[bytes]:
        return apply_filter(TruncationRepairer(stop_at, cut_tag=cut_tag), source())

    result = validate_source(closed)
    if isinstance(result, Invalid):
        return None
    finished = result.counts.tests - first.failed
    if finished < 1:
        return None
    unfinished = "kept as failed: 1" if first.failed else f"left out: {int(first.unfinished is not None)}"
    done = f"{CLOSED} Finished cases kept: {finished}, unfinished ones {unfinished}."
    return Repaired(accepted=result, done=(done,), chunks=closed)


def _describe_encoding(survey: EncodingSurvey, encoding: str, text: ControlCharFilter) -> Iterator[str]:
    if encoding not in survey.stated:
        yield f"Its bytes are {encoding}, not {survey.declared.name}; it was converted to UTF-8."
    elif not is_utf_8(encoding):
        yield f"It was converted from {survey.declared.name} to UTF-8."
    elif text.declares:
        yield "Its declaration now names UTF-8."


def _describe_changes(text: ControlCharFilter) -> Iterator[str]:
    if text.trimmed:
        yield "Blanks before the document were removed."
    if text.color_codes:
        yield f"Color codes removed: {text.color_codes}."
    if text.controls:
        yield f"Characters that XML forbids removed: {text.controls}."
    if text.ampersands:
        yield f'Bare "&" escaped as "&amp;": {text.ampersands}.'
    if text.dangling:
        yield f"Bytes of an incomplete character at the end removed: {text.dangling}."


def _has_zeroed_block(source: Source) -> bool:
    """Return whether zeros precede other bytes, as a machine crash leaves them in place of lost data.

    If they were removed, the beginning of one case would join the end of another.
    """
    zeros = b""
    for chunk in source():
        data = zeros + chunk
        rest = data.rstrip(b"\0")
        if ZEROED_BLOCK in rest:
            return True
        zeros = data[len(rest) :][: len(ZEROED_BLOCK)]
    return False


def _validate_and_survey(source: Source) -> tuple[ValidationResult, EncodingSurvey]:
    validator, survey = JUnitValidator(), EncodingSurvey()
    for piece in regroup(source()):
        validator.feed(piece)
        survey.feed(piece)
        if validator.invalid is not None and validator.invalid.reason not in REPAIRABLE_CODES:
            break
    return validator.close(source), survey
