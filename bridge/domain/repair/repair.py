"""Makes of a broken report one that the gate accepts, where that takes no guess about what the tests said.

It knows what can be mended and in which order; it knows no file, and it writes nothing but what it is asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from bridge.domain.junit.gate import Gate
from bridge.domain.junit.verdict import Accepted, Refused, Verdict
from bridge.domain.repair.encoding import Survey, is_utf_8
from bridge.domain.repair.ending import Closer
from bridge.domain.repair.stream import Source, regroup, through
from bridge.domain.repair.text import TextMender

MENDABLE: Final = frozenset({"encoding", "not_xml", "truncated"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """A report that the gate accepts, and what was done so that it does."""

    accepted: Accepted  # of the bytes in `chunks`
    done: tuple[str, ...]  # sentences for people; empty: nothing was done, the bytes are the source's
    chunks: Source  # reads the source again at every call


def repair(source: Source) -> Repaired | Refused:
    """Mend a report of any size in constant memory but for lxml's longest token, reading it up to four times.

    Into UTF-8 from what it declares or turns out to be, without what XML forbids, closed after its last finished case
    where it ends too early. A sound UTF-8 report stays as it is. What takes a guess is refused with its reason, by
    the gate's word where nothing could be mended.
    """
    verdict, survey = _look(source)
    encoding = survey.choose()
    if isinstance(verdict, Accepted):
        if encoding in survey.stated and not is_utf_8(encoding):
            mended = _mend(source, survey, encoding)
            if isinstance(mended, Repaired):
                return mended
        return Repaired(accepted=verdict, done=(), chunks=source)
    if verdict.reason not in MENDABLE or not survey.mendable:
        return verdict
    return survey.refusal() if encoding is None else _mend(source, survey, encoding)


def _mend(source: Source, survey: Survey, encoding: str) -> Repaired | Refused:
    def mended() -> Iterator[bytes]:
        return through(TextMender(encoding), regroup(source()))

    text = TextMender(encoding)
    verdict = _judge(through(text, regroup(source())))
    done = (*_transcoding(survey, encoding, text), *_mending(text))
    if isinstance(verdict, Accepted):
        return Repaired(accepted=verdict, done=done, chunks=mended)
    closed = _close(mended) if verdict.reason == "truncated" else None
    return replace(closed, done=done + closed.done) if closed else verdict


def _close(source: Source) -> Repaired | None:
    first = Closer()
    for _ in through(first, source()):
        pass

    def closed() -> Iterator[bytes]:
        return through(Closer(first.unfinished), source())

    verdict = _judge(closed())
    if isinstance(verdict, Refused):
        return None
    cases = (
        f"finished cases kept: {verdict.counts.tests}, unfinished ones left out: {int(first.unfinished is not None)}"
    )
    done = f"The file ended too early and was closed; {cases}."
    return Repaired(accepted=verdict, done=(done,), chunks=closed)


def _transcoding(survey: Survey, encoding: str, text: TextMender) -> Iterator[str]:
    if encoding not in survey.stated:
        yield f"Its bytes are {encoding}, not {survey.declared.name}: it was written as UTF-8."
    elif not is_utf_8(encoding):
        yield f"It was transcoded from {survey.declared.name} to UTF-8."
    elif text.declares:
        yield "Its declaration now says UTF-8."


def _mending(text: TextMender) -> Iterator[str]:
    if text.trimmed:
        yield "What stood before the document was cut off."
    if text.colours:
        yield f"Colour codes were cut: {text.colours}."
    if text.controls:
        yield f"Characters that XML forbids were dropped: {text.controls}."
    if text.dangling:
        yield f"Bytes at the end that are no whole character were dropped: {text.dangling}."


def _look(source: Source) -> tuple[Verdict, Survey]:
    gate, survey = Gate(), Survey()
    for piece in regroup(source()):
        gate.feed(piece)
        survey.feed(piece)
        if gate.refused is not None and gate.refused.reason not in MENDABLE:
            break
    return gate.close(), survey


def _judge(chunks: Iterator[bytes]) -> Verdict:
    gate = Gate()
    for chunk in chunks:
        gate.feed(chunk)
    return gate.close()
