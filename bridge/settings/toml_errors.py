"""Syntax errors of the settings file as people read them: the line, the setting, what is wrong, what to do.

Values are never repeated, because a line may hold a secret. A key is repeated only if it is the name of a setting.
"""

import re
import tomllib

from bridge.settings.model import names_of
from bridge.settings.problems import headings
from bridge.values import dataclass

MAX_TRIES = 200  # lines before the error at which the invalid statement may begin: each costs one parse

_POSITION = re.compile(r"(?P<cause>.*) \((?:at line (?P<line>\d+), column \d+|at end of document)\)", re.DOTALL)
_HEADING = re.compile(r"\s*(?P<brackets>\[{1,2})\s*(?P<name>[^\[\]]*?)\s*\]")
_KEY = re.compile(r"\s*(?P<key>[A-Za-z0-9_.-]+)\s*=\s*(?P<value>.*)")
_FORM = 'Write it as name = "value", or put # before the line.'
_LIST = 'Write it as ["a", "b"].'
_UNQUOTED = "Put text and durations in quotes."


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the parser stopped."""

    lines: list[str]
    number: int  # of the line, from 1
    start: int  # the line with which the invalid statement begins

    @property
    def line(self) -> str:
        return self.lines[self.number - 1] if self.lines else ""

    @property
    def setting(self) -> str:
        """The setting of the statement, if its name may be repeated."""
        match = _KEY.match(self.lines[self.start - 1]) if self.lines else None
        known = match is not None and set(match["key"].split(".")) <= _names()
        return match["key"] if match and known else "this setting"

    @property
    def value(self) -> str:
        match = _KEY.match(self.lines[self.start - 1]) if self.lines else None
        return match["value"].partition("#")[0].strip() if match else ""


def syntax_problem(text: str, error: tomllib.TOMLDecodeError) -> str:
    """Return `line N: what is wrong. What to do.` for the error that the parser raised for `text`."""
    match = _POSITION.fullmatch(str(error))
    cause = match["cause"] if match else str(error)
    lines = text.splitlines()
    if match and match["line"]:
        number = min(int(match["line"]), len(lines))
    else:
        number = max((index for index, line in enumerate(lines, start=1) if line.strip()), default=1)
    start = _start(lines, number)
    is_open = cause.startswith(("Unterminated", 'Expected "\'"', "Unclosed"))
    place = _Place(lines, start if is_open else number, start)
    return f"line {place.number}: {_explain(cause, place)}"


def _explain(cause: str, place: _Place) -> str:
    heading = _HEADING.match(place.line)
    if heading and cause.startswith("Cannot "):
        return _repeated_heading(heading, place)
    for rule in _RULES:
        if re.match(rule.cause, cause) and re.match(rule.value, place.value) and re.match(rule.line, place.line):
            return rule.sentence.format(setting=place.setting)
    return f"the line is not valid TOML. {_FORM}"


@dataclass(frozen=True, slots=True)
class _Rule:
    """The sentence for an error of the parser. The three patterns match from the beginning."""

    cause: str  # the parser's message
    sentence: str  # with {setting}
    value: str = ""
    line: str = ""


_OPEN = "the text of {setting} is not closed. Put a %s at its end."
_MORE = "Put # before a comment, \\ before a quotation mark in the text, and [ ] around several values."
_RULES = (
    _Rule("Cannot|Duplicate", "{setting} is set twice in this table. Remove one of the two."),
    _Rule("Unterminated", "the text of {setting} is not closed. Put a quotation mark at its end."),
    _Rule(r"Illegal character '\\[nr]'|Expected \"'\"", _OPEN % "'", value="'"),
    _Rule(r"Illegal character '\\[nr]'", _OPEN % '"'),
    _Rule("Illegal|Found", "the line contains a control character. Remove it."),
    _Rule("Expected newline", "something follows the value of {setting}. " + _MORE, value=r"[\"'\[{]"),
    _Rule(
        "Expected newline",
        "something follows the heading. Begin a new line, or put # before a comment.",
        line=_HEADING.pattern,
    ),
    _Rule("Expected newline", "{setting} is not in quotes. " + _UNQUOTED),
    _Rule("Invalid value", "{setting} has no value. Write one, or put # before the line.", value="$"),
    _Rule("Invalid value", '{setting} is in curly quotation marks. Use ".', value="[“”„‘’‚«»]"),
    _Rule(
        "Invalid value",
        "{setting} is not a value of TOML. Use true or false, in small letters.",
        value=r"(?i:true|false|yes|no|on|off)$",
    ),
    _Rule(
        "Invalid value",
        "{setting} is not a value of TOML. Put # before the line to use the default.",
        value=r"(?i:none|null|nil)$",
    ),
    _Rule("Invalid value", "{setting} contains a member without quotes, or is not closed. " + _LIST, value=r"[\[{]"),
    _Rule("Invalid value", "{setting} is not in quotes. " + _UNQUOTED),
    _Rule("Invalid date", "{setting} is not a time. Use a time such as 2030-12-31T00:00:00Z."),
    _Rule("Unclosed array", "the list of {setting} is not closed, or a comma is missing in it. " + _LIST),
    _Rule("Unclosed inline", "the braces of {setting} are not closed in this line. Put a }} at its end."),
    _Rule(
        "Unescaped|Invalid hex|Escaped",
        "{setting} contains a single \\. Write \\\\, or put the text in ' instead of \".",
    ),
    _Rule(
        r"Expected '\]",
        "the heading is not closed. Write it as [table], or as [[table]] for a list of tables.",
    ),
    _Rule("Expected", "the line has a colon instead of =. " + _FORM, line=r"\s*[\w.-]+\s*:"),
    _Rule("Invalid statement", "this is JSON, not TOML. Start with config.example.toml.", line=r"\s*\{"),
    _Rule("Expected|Invalid", "the line is neither a setting nor a heading. " + _FORM),
)


def _repeated_heading(heading: re.Match[str], place: _Place) -> str:
    name = heading["name"]
    shown = name if set(name.split(".")) <= _names() else "this table"
    if name in _lists():
        return f"{shown} may occur several times, so it needs two pairs of brackets. Write each heading as [[{name}]]."
    earlier = (
        number
        for number, line in enumerate(place.lines[: place.number - 1], start=1)
        if (match := _HEADING.match(line)) and match["name"] == name
    )
    where = next((f"in line {number}" for number in earlier), "above")
    if heading["brackets"] == "[[":
        return f"{shown} occurs once only, and is already {where}. Write its heading as [{name}]."
    return f"the table {shown} is already {where}. Move these settings there, and remove this heading."


def _start(lines: list[str], number: int) -> int:
    """Return the line with which the statement in line `number` begins: values may span lines."""
    for before in range(number - 1, max(number - 1 - MAX_TRIES, -1), -1):
        try:
            tomllib.loads("\n".join(lines[:before]))
        except tomllib.TOMLDecodeError:
            continue
        return before + 1
    return number


def _names() -> frozenset[str]:
    return frozenset(name for _, table in headings() for name in names_of(table))


def _lists() -> frozenset[str]:
    return frozenset(heading.strip("[]") for heading, _ in headings() if heading.startswith("[["))


def line_of(text: str, key: str) -> int | None:
    """Return the line (from 1) of a setting such as `routes[1].rewrite[0].pattern`, or else of the heading above it."""
    table, _, name = key.rpartition(".")
    counts: dict[str, int] = {}  # tables of a list so far, by the key of the list
    here, heading = "", None
    for number, line in enumerate(text.splitlines(), 1):
        if found := _HEADING.match(line):
            here = ""
            parts = found["name"].split(".")
            for part in parts[:-1]:
                here += f".{part}" if here else part
                here += f"[{counts[here] - 1}]" if here in counts else ""
            here += f".{parts[-1]}" if here else parts[-1]
            if found["brackets"] == "[[":
                counts[here] = counts.get(here, 0) + 1
                here += f"[{counts[here] - 1}]"
            heading = number if here == table else heading
        elif here == table and (assigned := _KEY.match(line)) and assigned["key"] == name:
            return number
    return heading
