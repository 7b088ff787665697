"""Parts of test names that may differ from build to build: times, versions, ids, counters. `tokens_of` finds them.

Real runners put all of these into names; each kind says how people call it, and how a rule matches it.
"""

import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import Final, NamedTuple

MAX_SCANNED: Final = 300
"""Characters of a name that are searched."""


class TokenKind(NamedTuple):
    """A kind of token. `rule` is RE2's pattern for any form of it, if the values found have several forms."""

    name: str  # stable
    noun: str  # for people
    find: str
    rule: str
    placeholder: str  # in place of it
    needs_context: bool  # a rule without the text around it would match other parts of names


_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_CLOCK = r"[0-2]?[0-9]:[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]+)?)?(?: ?[AaPp][Mm](?![a-z]))?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|CST|[+-][0-9]{2}:?[0-9]{2})(?![0-9A-Za-z]))?"
_APART, _FREE = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"
_UUID = r"[0-9A-Fa-f]{8}[-_][0-9A-Fa-f]{4}[-_][0-9A-Fa-f]{4}[-_][0-9A-Fa-f]{4}[-_][0-9A-Fa-f]{12}"
_CHINESE_DATE = r"[0-9]{4}年[0-9]{1,2}月[0-9]{1,2}日"
_CHINESE_CLOCK = r"[0-9]{1,2}[时時点][0-9]{1,2}分(?:[0-9]{1,2}秒)?"
_IP = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
_PORTS = "|".join(rf"(?<={host}:)" for host in (r"localhost", r"127\.0\.0\.1", r"0\.0\.0\.0", r"\[::1\]"))

KINDS: Final = (
    TokenKind("uuid", "a UUID", _UUID, _UUID, "UUID", needs_context=False),
    TokenKind(
        "timestamp",
        "a date with a time",
        rf"[0-9]{{4}}[-/.][0-9]{{1,2}}[-/.][0-9]{{1,2}}[T _-]+{_CLOCK}{_ZONE}"
        rf"|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[T _-][0-9]{{2}}[-_.h][0-9]{{2}}(?:[-_.m][0-9]{{2}}(?:[.,][0-9]+)?)?{_ZONE}"
        rf"|(?<![0-9])(?:19|20)[0-9]{{6}}[T_.-]?[0-2][0-9][0-5][0-9][0-5][0-9](?:[.,]?[0-9]{{3,6}})?(?![0-9])Z?"
        rf"|(?:{_DAY},? )?(?:{_MONTH} [0-9]{{1,2}}|[0-9]{{1,2}}[ -]{_MONTH}),?(?:[ -][0-9]{{4}})?,? {_CLOCK}{_ZONE}"
        r"(?: [0-9]{4})?"
        rf"|[0-9]{{1,2}}[./-][0-9]{{1,2}}[./-][0-9]{{4}},? {_CLOCK}{_ZONE}"
        rf"|{_CHINESE_DATE} ?(?:{_CLOCK}|{_CHINESE_CLOCK})",
        r"[0-9A-Za-z][0-9A-Za-z:.,/+ _-]*[0-9]Z?",
        "TIME",
        needs_context=False,
    ),
    TokenKind(
        "epoch",
        "a time as seconds since 1970",
        r"(?<![0-9])1[5-9][0-9]{8}(?:[0-9]{3}|[0-9]{6}|[0-9]{9})?(?:\.[0-9]+)?(?![0-9])",
        r"[0-9]{10,}(?:\.[0-9]+)?",
        "TIME",
        needs_context=False,
    ),
    TokenKind(
        "date",
        "a date",
        rf"(?<![0-9.])[0-9]{{4}}[-/.][0-9]{{1,2}}[-/.][0-9]{{1,2}}(?![0-9.])"
        rf"|(?<![0-9.])[0-9]{{1,2}}[./-][0-9]{{1,2}}[./-][0-9]{{4}}(?![0-9.])"
        rf"|(?<![0-9])20[0-9]{{2}}[01][0-9][0-3][0-9](?![0-9])"
        rf"|(?:{_DAY},? )?(?:{_MONTH} [0-9]{{1,2}},? [0-9]{{4}}|[0-9]{{1,2}}[ -]{_MONTH}[ -][0-9]{{4}})"
        rf"|{_CHINESE_DATE}",
        r"[0-9A-Za-z]+(?:[-/. ,]+[0-9A-Za-z]+)*",
        "DATE",
        needs_context=False,
    ),
    TokenKind("time", "a time of day", rf"(?<![0-9:]){_CLOCK}{_ZONE}|{_CHINESE_CLOCK}",
              r"[0-9]+(?::[0-9]+)+(?:[.,][0-9]+)?", "TIME", needs_context=False),
    TokenKind("address", "an address in memory", r"0[xX][0-9A-Fa-f]{4,16}", r"0[xX][0-9A-Fa-f]+", "ADDRESS",
              needs_context=False),
    TokenKind("port", "a port", rf"(?:{_PORTS})[0-9]{{2,5}}(?![0-9])", r"[0-9]+", "PORT", needs_context=True),
    TokenKind(
        "duration",
        "a duration",
        rf"(?<![0-9A-Za-z.])[0-9]+(?:[.,][0-9]+)? ?"
        rf"(?:ns|µs|μs|us|ms|s|secs?|seconds?|m|mins?|minutes?|h|hours?|毫秒|秒|分钟|小时){_FREE}"
        rf"|{_APART}(?:[0-9]+h ?)?[0-9]+m ?[0-9]+(?:\.[0-9]+)?s{_FREE}",
        r"[0-9]+(?:[.,][0-9]+)? ?[a-zµμ毫秒分钟小时]+(?: ?[0-9.]+[ms])*",
        "DURATION",
        needs_context=True,
    ),
    TokenKind("ip", "an IP address", rf"(?:(?<=//)|(?<=@)){_IP}|(?<![0-9A-Za-z.]){_IP}(?=[:/][^ ])", _IP, "IP",
              needs_context=False),
    TokenKind("decimal", "a number", r"(?<![0-9A-Za-z.])[0-9]+\.[0-9]{3,}(?:[eE][+-]?[0-9]+)?(?![0-9A-Za-z.])",
              r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", "N", needs_context=True),
    TokenKind(
        "version",
        "a version",
        r"(?<![0-9A-Za-z.])v?[0-9]+(?:\.[0-9]+)+"
        r"(?:[-+.]?(?:alpha|beta|rc|dev|post|SNAPSHOT|[ab])(?![A-Za-z])[.-]?[0-9]*)?(?![0-9])"
        r"|(?<![0-9A-Za-z])[0-9]+(?:_[0-9]+){2,}(?![0-9A-Za-z])",  # karma and wdio replace the dots
        r"v?[0-9]+(?:[._][0-9A-Za-z+-]+)*",
        "VERSION",
        needs_context=True,
    ),
    TokenKind("temporary_name", "a temporary name", r"(?<![0-9A-Za-z])tmp[.]?[0-9A-Za-z_]{6,12}" + _FREE,
              r"tmp[.]?[0-9A-Za-z_]+", "TMP", needs_context=False),
    TokenKind("hex", "a hexadecimal id",
              rf"{_APART}(?=[a-fA-F]*[0-9])(?=[0-9]*[a-fA-F])[0-9A-Fa-f]{{6,64}}{_FREE}",
              r"[0-9A-Fa-f]+", "ID", needs_context=True),
    TokenKind("id", "a random id", rf"{_APART}(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[0-9A-Za-z]{{6,64}}{_FREE}",
              r"[0-9A-Za-z]+", "ID", needs_context=True),
    TokenKind("number", "a number", r"[0-9]+", r"[0-9]+", "N", needs_context=True),
)  # fmt: skip
"""In the order in which they are looked for."""

WORD: Final = TokenKind("word", "a random id", "", r"[0-9A-Za-z]+", "ID", needs_context=True)
"""A word that is another one in every build."""

BY_NAME: Final = {kind.name: kind for kind in (*KINDS, WORD)}
_GENERAL: Final = ("number", "decimal", "version", "hex", "id", "word")
"""Kinds of which values look like those of one before: 12345678 may be the hexadecimal id of another build."""

_RUNS: Final = re.compile(r"([0-9]+)|([A-Za-z]+)|([^0-9A-Za-z]+)")
_SHAPED: Final = frozenset(("timestamp", "epoch", "date", "time", "duration", "version"))
_FIXED: Final = frozenset(("UTC", "GMT", "CST", "ns", "us", "ms", "sec", "min"))
_SPECIAL: Final = re.compile(r"[\\.^$*+?{}\[\]|()]")


class NameToken(NamedTuple):
    """A token of a name, and where it is."""

    kind: str
    start: int
    end: int
    value: str


@cache
def _any_token() -> re.Pattern[str]:  # not at import: compiling it takes as long as importing several modules
    return re.compile("|".join(f"(?P<{kind.name}>{kind.find})" for kind in KINDS))


def tokens_of(name: str) -> Iterator[NameToken]:
    """Yield what may differ from build to build, in order."""
    for found in _any_token().finditer(name[:MAX_SCANNED]):
        yield NameToken(found.lastgroup or "", found.start(), found.end(), found[0])


def common_kind(kinds: Collection[str]) -> str:
    """Return the kind of values of which each looks like one of `kinds`."""
    if len(kinds) == 1:
        return next(iter(kinds))
    if all(kind in _GENERAL for kind in kinds):
        return max(kinds, key=_GENERAL.index)
    return "id" if all(kind in (*_GENERAL, "epoch", "date", "temporary_name") for kind in kinds) else "word"


def pattern_of(kind: str, values: Collection[str]) -> str:
    """Return RE2's pattern for the values of one kind: of their form, if all have the same one."""
    if kind == WORD.name and not all(map(str.isalnum, values)):
        return r"[0-9A-Za-z_+/=-]+"
    shapes = {_shape(value) for value in values} if kind in _SHAPED else set()
    return shapes.pop() if len(shapes) == 1 else BY_NAME[kind].rule


def _shape(value: str) -> str:
    parts = []
    for digits, letters, other in _RUNS.findall(value):
        if digits:  # hours and days may have one digit or two
            parts.append(f"[0-9]{{{len(digits)}}}" if len(digits) >= 4 and digits == value[: len(digits)] else "[0-9]+")
        elif letters:
            parts.append(letters if len(letters) == 1 or letters in _FIXED else "[A-Za-z]+")
        else:
            parts.append(escaped(other))
    return "".join(parts)


def escaped(text: str) -> str:
    """Return a pattern that matches `text`, with a backslash only before characters that need one."""
    return _SPECIAL.sub(r"\\\g<0>", text)
