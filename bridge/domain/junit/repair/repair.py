"""Repairs a broken report so that validation accepts it, if that takes no guess about the outcome of a test."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final, Protocol

from bridge.domain.junit.encoding import UTF_8, Utf8Converter, is_utf_8, regroup
from bridge.domain.junit.encoding_guess import Utf8Survey
from bridge.domain.junit.repair.control_chars import ControlCharFilter
from bridge.domain.junit.repair.encoding_detection import (
    EncodingSurvey,
    garbled_names,
    has_garbled_names,
    hidden_cdata_end,
    hides_cdata_end,
)
from bridge.domain.junit.repair.rewrite import TruncationRepairer
from bridge.domain.junit.result import Invalid, Valid, ValidationResult
from bridge.domain.junit.text_before import find_report, without_first
from bridge.domain.junit.validator import JUnitValidator, validate_source
from bridge.domain.junit.wellformed import Source, Text, Truncated, find_fault, text_of, without_declaration
from bridge.domain.junit.xml_errors import CUT_BEFORE, JOIN_HALVES, OF_AMPERSANDS, REPAIRABLE_CODES, TRUNCATED
from bridge.domain.text_format import counted
from bridge.values import dataclass

__all__ = ["Filter", "Source", "apply_filter"]


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


ZEROED_BLOCK: Final = b"\0" * 64  # more than a test prints
RENAMED: Final = "Its declaration now names UTF-8."
CLOSED: Final = "The file ended too early and was closed; cases may be missing."


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """A report that validation accepts, and the repairs that it took."""

    accepted: Valid  # for the bytes of `chunks`
    done: tuple[str, ...]  # sentences for people; empty if the bytes are unchanged
    chunks: Source  # reads the source at every call
    lossless: bool = True  # the content is unchanged, only its encoding or spelling differs


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
            return convert(replace(result, codec=result.codec or encoding), source)
        return convert(result, source)
    if result.remedy == CUT_BEFORE:
        return _without_text_before(result, source)
    if result.reason not in REPAIRABLE_CODES or not survey.repairable or _has_zeroed_block(source):
        return result
    if encoding is not None:
        return _repair_text(source, survey, encoding, strays=0)
    if survey.names_unknown_encoding:
        return result
    found = Utf8Survey(regroup(source()))
    if survey.contains_stray_bytes(found):
        return _repair_text(source, survey, UTF_8, strays=found.bad_bytes)
    return survey.rejection()


def _without_text_before(result: Invalid, source: Source) -> Repaired | Invalid:
    before = find_report(source)
    if before is None:
        return result
    repaired = repair(lambda: without_first(source, before.size))
    if isinstance(repaired, Invalid):
        return result  # lines and columns of `repaired` are not those of the file
    done = f"Text before the report removed: {counted(before.lines, 'line')}."
    return replace(repaired, done=(done, *repaired.done), lossless=False)


def prepare(result: ValidationResult, source: Source) -> Repaired | Invalid:
    """Return a report as it is sent without any repair: unchanged, or with the same content in other bytes.

    `result` is that of validation. A report in an encoding that libxml2 lacks is converted to UTF-8, and two references
    to the halves of a character become the character. All else that is invalid stays so.
    """
    if isinstance(result, Valid):
        return convert(result, source)
    if result.remedy != JOIN_HALVES:
        return result
    repaired = repair(source)
    return repaired if isinstance(repaired, Repaired) and repaired.lossless else result


def convert(valid: Valid, source: Source) -> Repaired:
    """Return a valid report, converted to UTF-8 if it has a `codec`."""
    if not valid.codec:
        return Repaired(accepted=valid, done=(), chunks=source)
    if is_utf_8(valid.codec) or valid.codec == "utf-8-sig":
        done = RENAMED
    else:
        done = f"It was converted from {valid.encoding} to UTF-8."
    return Repaired(
        accepted=replace(valid, encoding=UTF_8, codec=""),
        done=(done,),
        chunks=lambda: apply_filter(Utf8Converter(valid.codec), source()),
    )


def _repair_text(source: Source, survey: EncodingSurvey, encoding: str, *, strays: int) -> Repaired | Invalid:
    if not strays and hides_cdata_end(source, encoding):
        return hidden_cdata_end(encoding)
    repaired = _clean(source, survey, encoding, strays=strays, ampersands=False)
    if isinstance(repaired, Invalid) and repaired.remedy in OF_AMPERSANDS:
        repaired = _clean(source, survey, encoding, strays=strays, ampersands=True)
    return repaired


def _clean(
    source: Source, survey: EncodingSurvey, encoding: str, *, strays: int, ampersands: bool
) -> Repaired | Invalid:
    def new_filter(*, keeps_positions: bool = False) -> ControlCharFilter:
        return ControlCharFilter(encoding, ampersands=ampersands, strays=strays > 0, keeps_positions=keeps_positions)

    def cleaned() -> Iterator[bytes]:
        return apply_filter(new_filter(), regroup(source()))

    def with_positions() -> Iterator[str]:
        masked = new_filter(keeps_positions=True)
        return without_declaration(piece.decode() for piece in apply_filter(masked, regroup(source())))

    result = validate_source(cleaned)
    if isinstance(result, Invalid) and result.reason != TRUNCATED:
        return _with_position(result, cleaned, with_positions)
    text = new_filter()
    if has_garbled_names(apply_filter(text, regroup(source()))):
        return garbled_names(encoding)
    done = (*_describe_encoding(survey, encoding, text), *_describe_changes(text, strays))
    if isinstance(result, Valid):
        lossless = encoding in survey.stated and not strays and text.is_lossless
        return Repaired(accepted=result, done=done, chunks=cleaned, lossless=lossless)
    closed = _close_truncated(cleaned)
    return (
        replace(closed, done=done + closed.done, lossless=False)
        if closed
        else _with_position(result, cleaned, with_positions)
    )


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
        yield RENAMED
    if text.was_xml_1_1:
        yield "Its declaration now names XML 1.0."


def _describe_changes(text: ControlCharFilter, strays: int) -> Iterator[str]:
    if strays:
        yield f"Bytes that are not UTF-8 replaced by U+FFFD: {strays}."
    if text.trimmed:
        yield "Blanks before the document were removed."
    if text.color_codes:
        yield f"Color codes removed: {text.color_codes}."
    if text.controls:
        yield f"Characters that XML forbids removed: {text.controls}."
    if text.joined:
        yield f"References to the two halves of a character joined: {text.joined}."
    if text.halves:
        yield f"References to half a character replaced by U+FFFD: {text.halves}."
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
