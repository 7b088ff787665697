"""Syntax errors of the settings file as people read them: the line, the setting, what is wrong, what to do.

Values are never repeated, because a line may hold a secret. A key is repeated only if it is the name of a setting.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

from bridge.settings.model import Settings, SettingsTable, is_list, names_of, table_of

MAX_TRIES = 200  # lines before the error at which the invalid statement may begin: each costs one parse

_POSITION = re.compile(r"(?P<cause>.*) \((?:at line (?P<line>\d+), column \d+|at end of document)\)", re.DOTALL)
_HEADING = re.compile(r"\s*(?P<brackets>\[{1,2})\s*(?P<name>[^\[\]]*?)\s*\]")
_KEY = re.compile(r"\s*(?P<key>[A-Za-z0-9_.-]+)\s*=\s*(?P<value>.*)")
_COLON = re.compile(r"\s*[A-Za-z0-9_.-]+\s*:")
_CURLY = tuple("“”„‘’‚«»")
_FORM = 'Write it as name = "value", or put # before the line.'
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
    setting, value = place.setting, place.value
    heading = _HEADING.match(place.line)
    match cause.partition(" '")[0].partition(" (")[0]:
        case "Cannot declare" | "Cannot overwrite a value" | "Cannot mutate immutable namespace" | "Cannot redefine namespace" if heading:
            return _repeated_heading(heading, place)
        case "Cannot overwrite a value" | "Duplicate inline table key":
            return f"{setting} is set twice in this table. Remove one of the two."
        case "Unterminated string":
            return f"the text of {setting} is not closed. Put a quotation mark at its end."
        case "Illegal character" | 'Expected "\'"' if "'\\n'" in cause or "'\\r'" in cause or '"\'"' in cause:
            mark = "'" if value.startswith("'") else '"'
            return f"the text of {setting} is not closed. Put a {mark} at its end."
        case "Illegal character" | "Found invalid character":
            return "the line contains a control character. Remove it."
        case "Expected newline or end of document after a statement" if value.startswith(('"', "'", "[", "{")):
            remedy = "Put # before a comment, \\ before a quotation mark in the text, and [ ] around several values."
            return f"something follows the value of {setting}. {remedy}"
        case "Expected newline or end of document after a statement" if heading:
            return "something follows the heading. Begin a new line, or put # before a comment."
        case "Expected newline or end of document after a statement":
            return f"{setting} is not in quotes. {_UNQUOTED}"
        case "Invalid value":
            return _invalid_value(place)
        case "Unclosed array":
            return f"the list of {setting} is not closed, or a comma is missing in it. Write it as [\"a\", \"b\"]."
        case "Unclosed inline table":
            return f"the braces of {setting} are not closed in this line. Put a }} at its end."
        case "Unescaped" | "Invalid hex value" | "Escaped character is not a Unicode scalar value":
            return f"{setting} contains a single \\. Write \\\\, or put the text in ' instead of \"."
        case "Expected" if "declaration" in cause:
            return "the heading is not closed. Write it as [table], or as [[table]] for a list of tables."
        case "Expected" if _COLON.match(place.line):
            return f"the line has a colon instead of =. {_FORM}"
        case "Invalid statement" if place.line.lstrip().startswith("{"):
            return "this is JSON, not TOML. Start with config.example.toml."
        case "Expected" | "Invalid statement" | "Invalid initial character for a key part":
            return f"the line is neither a setting nor a heading. {_FORM}"
        case "Invalid date or datetime":
            return f"{setting} is not a time. Use a time such as 2030-12-31T00:00:00Z."
    return f"the line is not valid TOML. {_FORM}"


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


def _invalid_value(place: _Place) -> str:
    setting, value = place.setting, place.value
    if not value:
        return f"{setting} has no value. Write one, or put # before the line."
    if value.startswith(_CURLY):
        return f'{setting} is in curly quotation marks. Use ".'
    if value.lower() in ("true", "false", "yes", "no", "on", "off"):
        return f"{setting} is not a value of TOML. Use true or false, in small letters."
    if value.lower() in ("none", "null", "nil"):
        return f"{setting} is not a value of TOML. Put # before the line to use the default."
    if value.startswith(("[", "{")):
        return f"{setting} contains a member without quotes, or is not closed. Write it as [\"a\", \"b\"]."
    return f"{setting} is not in quotes. {_UNQUOTED}"


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
    return frozenset(name for _, table, _ in _tables(Settings) for name in names_of(table))


def _lists() -> frozenset[str]:
    return frozenset(key for key, _, listed in _tables(Settings) if listed)


def _tables(model: type[SettingsTable], key: str = "") -> Iterator[tuple[str, type[SettingsTable], bool]]:
    yield key, model, False
    for name, field in model.model_fields.items():
        if (inner := table_of(field)) is not None:
            path = f"{key}.{name}" if key else name
            for found, table, listed in _tables(inner, path):
                yield found, table, listed or (found == path and is_list(field))
