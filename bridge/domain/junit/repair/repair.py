"""x"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

from bridge.domain.junit.repair.control_chars import ControlCharFilter
from bridge.domain.junit.repair.encoding_detection import (
    EncodingSurvey,
    garbled_names,
    garbles_names,
    hidden_end,
    hides_an_end,
    is_utf_8,
)
from bridge.domain.junit.repair.rewrite import TruncationRepairer
from bridge.domain.junit.result import Invalid, Valid, ValidationResult
from bridge.domain.junit.validator import JUnitValidator, judge
from bridge.domain.junit.wellformed import Cut, Source, Text, look, text_of, without_declaration
from bridge.domain.junit.xml_errors import OF_AMPERSANDS, TRUNCATED

__all__ = ["PIECE_SIZE", "Filter", "Source", "regroup", "through"]

PIECE_SIZE: Final = 64 << 10  # bytes: as the gate gives them to lxml; also holds every honest XML declaration


class Filter(Protocol):
    """Takes a document in pieces and gives another; what it still holds comes at the close."""

    def feed(self, piece: bytes, /) -> bytes: ...

    def close(self) -> bytes: ...


def through(stage: Filter, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Let chunks run through a filter, to its close."""
    for chunk in chunks:
        if out := stage.feed(chunk):
            yield out
    if out := stage.close():
        yield out


def regroup(chunks: Iterable[bytes], size: int = PIECE_SIZE) -> Iterator[bytes]:
    """Give the same bytes in pieces of `size`, the last may be shorter."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        whole = len(held) - len(held) % size
        for start in range(0, whole, size):
            yield bytes(held[start : start + size])
        del held[:whole]
    if held:
        yield bytes(held)


REPAIRABLE_CODES: Final = frozenset({"encoding", "not_xml", TRUNCATED})
HOLE: Final = b"\0" * 64  # no test prints so many
CLOSED: Final = "The file ended too early and was closed: the report was cut off; cases may be missing."


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """A report that the gate accepts, and what was done so that it does."""

    accepted: Valid  # of the bytes in `chunks`
    done: tuple[str, ...]  # sentences for people; empty: nothing was done, the bytes are the source's
    chunks: Source  # reads the source again at every call


def repair(source: Source) -> Repaired | Invalid:
    """Repair a report of any size in constant memory but for the longest token; read it up to ten times.

    The result is UTF-8 whatever the report declares or turns out to be, without what XML forbids, with bare `&`
    escaped, and closed after its last finished case if it ends too early. No finished case is lost, and none changes
    its outcome. A sound UTF-8 report stays as it is. What takes a guess is rejected with its reason, by the gate's
    words if nothing could be repaired.
    """
    verdict, survey = _look(source)
    encoding = survey.choose()
    if isinstance(verdict, Valid):
        if encoding in survey.stated and not is_utf_8(encoding):
            mended = _mend(source, survey, encoding)
            if isinstance(mended, Repaired) and mended.accepted.counts == verdict.counts:
                return mended
        return Repaired(accepted=verdict, done=(), chunks=source)
    if verdict.reason not in REPAIRABLE_CODES or not survey.mendable or _has_hole(source):
        return verdict
    return survey.refusal() if encoding is None else _mend(source, survey, encoding)


def _mend(source: Source, survey: EncodingSurvey, encoding: str) -> Repaired | Invalid:
    if hides_an_end(source, encoding):
        return hidden_end(encoding)
    mended = _cleaned(source, survey, encoding, ampersands=False)
    if isinstance(mended, Invalid) and mended.remedy in OF_AMPERSANDS:
        mended = _cleaned(source, survey, encoding, ampersands=True)
    return mended


def _cleaned(source: Source, survey: EncodingSurvey, encoding: str, *, ampersands: bool) -> Repaired | Invalid:
    def cleaned() -> Iterator[bytes]:
        return through(ControlCharFilter(encoding, ampersands=ampersands), regroup(source()))

    def in_place() -> Iterator[str]:
        masked = ControlCharFilter(encoding, ampersands=ampersands, keeps_places=True)
        return without_declaration(piece.decode() for piece in through(masked, regroup(source())))

    verdict = judge(cleaned)
    if isinstance(verdict, Invalid) and verdict.reason != TRUNCATED:
        return _placed(verdict, cleaned, in_place)
    text = ControlCharFilter(encoding, ampersands=ampersands)
    if garbles_names(through(text, regroup(source()))):
        return garbled_names(encoding)
    done = (*_transcoding(survey, encoding, text), *_mending(text))
    if isinstance(verdict, Valid):
        return Repaired(accepted=verdict, done=done, chunks=cleaned)
    closed = _close(cleaned)
    return replace(closed, done=done + closed.done) if closed else _placed(verdict, cleaned, in_place)


def _placed(verdict: Invalid, cleaned: Source, text: Text) -> Invalid:
    """Give a refusal of what was cleaned the line and column in the file itself."""
    placed = judge(cleaned, text)
    if isinstance(placed, Invalid) and (placed.reason, placed.remedy) == (verdict.reason, verdict.remedy):
        return placed
    return verdict


def _close(source: Source) -> Repaired | None:
    cut = look(text_of(source))
    begun = cut.begun if isinstance(cut, Cut) else ""
    first = TruncationRepairer(begun=begun)
    for _ in through(first, source()):
        pass
    if first.holds_cases:
        return None
    stop_at = None if first.failed else first.unfinished

    def closed() -> Iterator[bytes]:
        return through(TruncationRepairer(stop_at, begun=begun), source())

    verdict = judge(closed)
    if isinstance(verdict, Invalid):
        return None
    finished = verdict.counts.tests - first.failed
    if finished < 1:
        return None
    unfinished = "kept as failed: 1" if first.failed else f"left out: {int(first.unfinished is not None)}"
    done = f"{CLOSED} Finished cases kept: {finished}, unfinished ones {unfinished}."
    return Repaired(accepted=verdict, done=(done,), chunks=closed)


def _transcoding(survey: EncodingSurvey, encoding: str, text: ControlCharFilter) -> Iterator[str]:
    if encoding not in survey.stated:
        yield f"Its bytes are {encoding}, not {survey.declared.name}: it was written as UTF-8."
    elif not is_utf_8(encoding):
        yield f"It was transcoded from {survey.declared.name} to UTF-8."
    elif text.declares:
        yield "Its declaration now says UTF-8."


def _mending(text: ControlCharFilter) -> Iterator[str]:
    if text.trimmed:
        yield "What stood before the document was cut off."
    if text.colours:
        yield f"Colour codes were cut: {text.colours}."
    if text.controls:
        yield f"Characters that XML forbids were dropped: {text.controls}."
    if text.ampersands:
        yield f'Bare "&" were written as "&amp;": {text.ampersands}.'
    if text.dangling:
        yield f"Bytes at the end that are no whole character were dropped: {text.dangling}."


def _has_hole(source: Source) -> bool:
    """Return whether zeros stand before other bytes, as a crash of a machine leaves them in place of lost data.

    Without them the beginning of one case would join the end of another.
    """
    zeros = b""
    for chunk in source():
        data = zeros + chunk
        rest = data.rstrip(b"\0")
        if HOLE in rest:
            return True
        zeros = data[len(rest) :][: len(HOLE)]
    return False


def _look(source: Source) -> tuple[ValidationResult, EncodingSurvey]:
    gate, survey = JUnitValidator(), EncodingSurvey()
    for piece in regroup(source()):
        gate.feed(piece)
        survey.feed(piece)
        if gate.refused is not None and gate.refused.reason not in REPAIRABLE_CODES:
            break
    return gate.close(source), survey
