"""The small words of sentences for people: spans of time, counts, and foreign text as part of one sentence.

It knows nothing of builds.
"""

import re
from datetime import UTC, datetime, timedelta

from bridge.domain.build import SECOND

MAX_CLAUSE_CHARACTERS = 300
"""Of foreign text inside a sentence: an upstream's answer or a refusal, readable without scrolling."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = (
    ("day", 24 * 3600 * SECOND),
    ("hour", 3600 * SECOND),
    ("minute", 60 * SECOND),
    ("second", SECOND),
)
_SENTENCE_BREAK = re.compile(r"[.!?]+\s+|[。！？]+\s*")
_SENTENCE_END = ".!?。！？;: "


def rfc3339(at: int) -> str:
    """Return microseconds UTC like `2026-01-02T03:04:05.678901Z`."""
    text = (_EPOCH + timedelta(microseconds=at)).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00") + "Z"


def span(microseconds: int) -> str:
    """Say how long, in the largest unit that fits: `3 minutes`; less than a second is `a moment`."""
    for unit, size in _UNITS:
        if microseconds >= size:
            return counted(microseconds // size, unit)
    return "a moment"


def lasting(microseconds: int) -> str:
    """Say for how long something has been so: `for 3 minutes`."""
    return f"for {span(microseconds)}" if microseconds >= SECOND else "for less than a second"


def counted(count: int, noun: str) -> str:
    """Say how many of a noun whose plural takes an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def clause(text: str) -> str:
    """Return foreign text, of any number of sentences and lines, as it can stand inside one sentence."""
    joined = _SENTENCE_BREAK.sub("; ", " ".join(text.split())).rstrip(_SENTENCE_END)
    return joined if len(joined) <= MAX_CLAUSE_CHARACTERS else joined[:MAX_CLAUSE_CHARACTERS].rstrip() + "…"


def clause_or_unknown(text: str | None) -> str:
    """Return foreign text as a clause, or that there is none."""
    return clause(text or "") or "nothing more is known"


def are(count: int) -> str:
    """Return the verb that goes with a count."""
    return "is" if count == 1 else "are"


def were(count: int) -> str:
    """Return the verb that went with a count."""
    return "was" if count == 1 else "were"


def have(count: int) -> str:
    """Return the verb that goes with what a count has done so far."""
    return "has" if count == 1 else "have"


def capital(text: str) -> str:
    """Return `text` as a sentence begins; names inside it keep their letters."""
    return text[:1].upper() + text[1:]
