"""Format times, spans of time, counts and foreign text for sentences."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from bridge.domain.instants import DAY, HOUR, MINUTE, SECOND

MAX_CLAUSE_CHARACTERS = 300
"""Of foreign text inside a sentence, such as the answer of an upstream: readable without scrolling."""

MAX_SHOWN_CHARACTERS = 120
"""Of one name or value in a message: enough to find it again, too little to flood a build log."""

_PLAIN_WORD = re.compile(r"[a-z]+(?:['’-][a-z]+)*,?(?=\s|$)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = (
    ("day", DAY),
    ("hour", HOUR),
    ("minute", MINUTE),
    ("second", SECOND),
)
_SENTENCE_BREAK = re.compile(r"[.!?]+\s+|[。！？]+\s*")
_LINK = re.compile(r"(https?://)(?:[^/?#\s]*@)?([!\"$->@-~]+)(?:[?#].*)?", re.IGNORECASE)
_SENTENCE_END = ".!?。！？;: "


def rfc3339(at: int) -> str:
    """Return microseconds since 1970 UTC as `2026-01-02T03:04:05.678901Z`."""
    text = (_EPOCH + timedelta(microseconds=at)).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00") + "Z"


def span(microseconds: int) -> str:
    """Return a duration in the largest unit that fits, `3 minutes`; less than a second is `a moment`."""
    for unit, size in _UNITS:
        if microseconds >= size:
            return counted(microseconds // size, unit)
    return "a moment"


def lasting(microseconds: int) -> str:
    """Return `for 3 minutes`."""
    return f"for {span(microseconds)}" if microseconds >= SECOND else "for less than a second"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, whose plural takes an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def page_url(text: str) -> str:
    """Return a URL that people open, without user, query and fragment, which may be secret; empty if it is no link."""
    found = _LINK.fullmatch(text)
    return f"{found[1]}{found[2]}" if found else ""


def is_web_address(text: str) -> bool:
    """Return whether `text` is an http or https address with a host and without a user."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:  # brackets that hold no IPv6 address
        return False


def clause(text: str) -> str:
    """Return foreign text of any number of sentences and lines as one clause."""
    joined = _SENTENCE_BREAK.sub("; ", " ".join(text.split())).rstrip(_SENTENCE_END)
    return joined if len(joined) <= MAX_CLAUSE_CHARACTERS else joined[:MAX_CLAUSE_CHARACTERS].rstrip() + "…"


def cause_and_action(text: str, otherwise: str) -> tuple[str, str]:
    """Return the first sentence of `text` as a clause, and the rest as another; `otherwise` if there is no rest."""
    first, *rest = _SENTENCE_BREAK.split(" ".join(text.split()), maxsplit=1)
    action = clause(rest[0]) if rest else ""
    return clause_or_unknown(first), action[:1].lower() + action[1:] if action else otherwise


def clause_or_unknown(text: str | None) -> str:
    """Return foreign text as a clause; without text, "nothing more is known"."""
    return clause(text or "") or "nothing more is known"


def printable(text: str) -> str:
    """Return text with every character escaped that is not printable, such as those that a terminal interprets."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def quote_for_display(text: str) -> str:
    """Return foreign text in quotation marks, shortened, on one line, without characters that a terminal interprets."""
    return f'"{escape_for_display(text)}"'


def escape_for_display(text: str) -> str:
    """Return foreign text shortened, with every character escaped that is not printable."""
    return printable(text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "…")


def are(count: int) -> str:
    """Return "is" or "are"."""
    return "is" if count == 1 else "are"


def were(count: int) -> str:
    """Return "was" or "were"."""
    return "was" if count == 1 else "were"


def have(count: int) -> str:
    """Return "has" or "have"."""
    return "has" if count == 1 else "have"


def capital(text: str) -> str:
    """Return `text` with its first letter capitalized, unless it begins with a name, such as that of a file."""
    return text[:1].upper() + text[1:] if _PLAIN_WORD.match(text) else text
