"""Problems of settings as people read them: the key, what is wrong, what to do.

Values are never repeated in a message, except for settings with a fixed list of values.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

from bridge.settings.model import FILE_SUFFIX, Settings, SettingsTable, is_list, names_of, table_of
from bridge.values import dataclass

SHOWN_CHARACTERS = 40  # of an invalid value: enough to find it in the file
SHOWN_TABLES = 3  # that have a setting of some name
MAX_NAME = 64  # characters: names are in the ledger, metrics, pages and log lines

NO_SETTING = "Remove it. config.example.toml lists all settings."

Location = Sequence[str | int]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of one setting: `fault` and `remedy` are sentences, `fault` without its subject."""

    key: str
    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.fault} {self.remedy}"

    def from_source(self, sources: Mapping[str, str]) -> "Problem":
        """Return the problem under the name of the variable that set the value, if one did (`sources`: by key)."""
        key, bracket, index = self.key, "", ""
        if key not in sources:
            key, bracket, index = self.key.rpartition("[")
        if key not in sources:
            return self
        remedy = self.remedy.replace(", without quotes", "").replace(" without quotes", "")
        return Problem(f"{sources[key]}{bracket}{index}", self.fault, remedy)

    def concerns(self, key: str) -> bool:
        """Return whether this is a problem of the setting `key`, of a part of it, or of the table around it."""
        own = self.key.removesuffix(FILE_SUFFIX)
        return own == key or _within(own, key) or _within(key, own)


_TYPES = {
    "int_from_float": ("must be a whole number.", "Remove the decimal places."),
    "int": ("is not a whole number.", "Use a number without quotes, such as 8080."),
    "float": ("is not a number.", "Use a number without quotes, such as 10."),
    "bool": ("is neither true nor false.", "Use true or false, without quotes."),
    "string": ("is not text.", "Put it in quotes."),
    "tuple": ("is not a list.", 'Put the values in brackets, such as ["a", "b"].'),
    "model": ("is not a table.", "Put its settings under a [table] heading."),
    "finite": ("is not a finite number.", "Use a number such as 10."),
    "datetime": ("is not a time.", "Use a time such as 2030-12-31T00:00:00Z."),
    "timezone": ("has no time zone.", "Use a time such as 2030-12-31T00:00:00Z."),
}


def problem_of(error: ErrorDetails) -> Problem:
    """Return the problem that an error of pydantic reports."""
    key, kind, context = key_of(error["loc"]), error["type"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return _unknown_name(key, error["loc"])
        case "value_error":
            fault, _, remedy = str(context["error"]).partition(". ")
            return Problem(key, f"{fault}.", remedy)
        case "literal_error" | "enum":
            shown = str(error["input"])[:SHOWN_CHARACTERS]
            return Problem(key, f'cannot be "{shown}".', f"Use {context['expected']}.")
        case "greater_than" | "greater_than_equal" | "less_than_equal":
            return Problem(key, f"must be {_bound(context)}.", "Change it, or remove it to use the default.")
        case "tuple_type" if isinstance(error["input"], dict):
            return Problem(key, "is one table, although it may occur several times.", f"Write [[{key}]] for [{key}].")
        case "model_type" if isinstance(error["input"], list):
            return Problem(key, "is a list of tables, although it occurs once only.", f"Write [{key}] for [[{key}]].")
    general = (f"is invalid: {error['msg']}.", "Correct it.")
    fault, remedy = _TYPES.get(kind, _TYPES.get(kind.partition("_")[0], general))
    return Problem(key, fault, remedy)


def _unknown_name(key: str, location: Location) -> Problem:
    """Return the problem of a name that its table does not have, with the tables that have it."""
    name = str(location[-1])
    homes = [heading for heading, table in headings() if heading and name in names_of(table)]
    siblings = _siblings(location)
    if not homes or get_close_matches(name, siblings, n=1):
        return Problem(key, "is not a setting.", nearest(name, siblings))
    where = "of this table" if len(location) > 1 else "outside of a table"
    shown = " or ".join(homes[:SHOWN_TABLES])
    return Problem(key, f"is not a setting {where}.", f"Put it under {shown}, before the next heading.")


def headings(model: type[SettingsTable] = Settings, key: str = "") -> Iterator[tuple[str, type[SettingsTable]]]:
    """Yield the heading of every table as in the file, such as "[[routes]]" ("" for the whole file), and its model."""
    if not key:
        yield "", model
    for name, field in model.model_fields.items():
        if (table := table_of(field)) is not None:
            path = f"{key}.{name}" if key else name
            yield f"[[{path}]]" if is_list(field) else f"[{path}]", table
            yield from headings(table, path)


def key_of(location: Location) -> str:
    """Return the key for a location in the file, such as `routes[0].tags`."""
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def missing(key: str, variable: str) -> Problem:
    """Return the problem of a secret that is not set, with the three ways to set it."""
    name = key.rpartition(".")[2]
    return Problem(key, "is missing.", f"Set it here, in {name}{FILE_SUFFIX}, or in {variable}.")


def nearest(name: str, names: Iterable[str], otherwise: str = NO_SETTING) -> str:
    """Return the remedy for an unknown name: the most similar of `names`, or `otherwise` if none is similar."""
    matches = get_close_matches(name, names, n=1)
    return f"Did you mean {matches[0]}?" if matches else otherwise


def invalid_name(key: str, name: str) -> Iterator[Problem]:
    """Yield a problem if the name of a table is too long or not printable."""
    if len(name) > MAX_NAME or not name.isprintable():
        yield Problem(f"{key}.name", "is too long or not printable.", f"Use at most {MAX_NAME} printable characters.")


def repeated(key: str, names: list[str]) -> Iterator[Problem]:
    """Yield a problem for each name that an earlier table of the list has; empty names are ignored."""
    for index, name in enumerate(names):
        if name and name in names[:index]:
            fault = f"is also the name of {key}[{names.index(name)}]."
            yield Problem(f"{key}[{index}].name", fault, "Use unique names.")


def _bound(context: dict[str, Any]) -> str:
    if "gt" in context:
        return f"greater than {context['gt']:g}"
    return f"{context['ge']} or more" if "ge" in context else f"{context['le']} or less"


def _siblings(location: Location) -> list[str]:
    table: type[SettingsTable] = Settings
    for part in location[:-1]:
        field = table.model_fields.get(part) if isinstance(part, str) else None
        table = (table_of(field) if field else None) or table
    return names_of(table)


def _within(part: str, whole: str) -> bool:
    return part.startswith((f"{whole}.", f"{whole}["))
