"""What is wrong with a setting, said so that a person can mend it: the key, the fault, the remedy.

It knows pydantic's errors and turns them into such sentences; no value is ever repeated but from a closed list.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

from bridge.settings.introspection import FILE_SUFFIX, names_of, table_of
from bridge.settings.model import Settings, SettingsTable

SHOWN_CHARACTERS = 40  # of a wrong value: enough to find it in the file

Location = Sequence[str | int]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: `fault` and `remedy` are sentences."""

    key: str
    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.fault} {self.remedy}"

    def about(self, other: str) -> bool:
        """Tell whether this is about the setting `other`, a part of it, or what it is a part of."""
        mine = self.key.removesuffix(FILE_SUFFIX)
        return mine == other or _within(mine, other) or _within(other, mine)


_TYPES = {
    "int": ("is not a whole number.", "Write it without quotes, like 8080."),
    "float": ("is not a number.", "Write it without quotes, like 10."),
    "bool": ("is neither true nor false.", "Write true or false, without quotes."),
    "string": ("is not text.", "Write it in quotes."),
    "tuple": ("is not a list.", 'Write it in brackets, like ["a", "b"].'),
    "model": ("is not a table.", "Write its settings under a [table] heading."),
    "finite": ("is not a finite number.", "Write a number like 10."),
    "datetime": ("is not a time.", "Write it like 2030-12-31T00:00:00Z."),
    "timezone": ("has no time zone.", "Write it like 2030-12-31T00:00:00Z."),
}


def problem_of(error: ErrorDetails) -> Problem:
    """Turn one error of pydantic into a complaint."""
    key, kind, context = key_of(error["loc"]), error["type"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return Problem(key, "is not a setting.", nearest(str(error["loc"][-1]), _siblings(error["loc"])))
        case "value_error":
            fault, _, remedy = str(context["error"]).partition(". ")
            return Problem(key, f"{fault}.", remedy)
        case "literal_error" | "enum":
            shown = str(error["input"])[:SHOWN_CHARACTERS]
            return Problem(key, f'cannot be "{shown}".', f"Write {context['expected']}.")
        case "greater_than" | "greater_than_equal":
            return Problem(key, "is too small.", f"Write {_bound(context)}.")
        case "less_than_equal":
            return Problem(key, "is too large.", f"Write {context['le']} or less.")
    fault, remedy = _TYPES.get(kind.partition("_")[0], (f"is not right: {error['msg']}.", "Correct it."))
    return Problem(key, fault, remedy)


def key_of(location: Location) -> str:
    """Write a place in the file as people say it: `routes[0].tags`."""
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def missing(key: str, variable: str) -> Problem:
    """Complain of a secret that is not set, naming the three places where it may be."""
    name = key.rpartition(".")[2]
    return Problem(key, "is missing.", f"Set it here, in {name}{FILE_SUFFIX}, or in {variable}.")


def nearest(name: str, names: Iterable[str], otherwise: str = "Remove it; config.example.toml names them all.") -> str:
    """Return the remedy for a name that does not exist: the nearest that does, or what to do where none is near."""
    matches = get_close_matches(name, names, n=1)
    return f"Did you mean {matches[0]}?" if matches else otherwise


def _bound(context: dict[str, Any]) -> str:
    return f"{context['ge']} or more" if "ge" in context else f"a number above {context['gt']}"


def _siblings(location: Location) -> list[str]:
    table: type[SettingsTable] = Settings
    for part in location[:-1]:
        field = table.model_fields.get(part) if isinstance(part, str) else None
        table = (table_of(field) if field else None) or table
    return names_of(table)


def _within(part: str, whole: str) -> bool:
    return part.startswith((f"{whole}.", f"{whole}["))


# Names of tables in a list: `[[routes]]`, `[[callers.tokens]]`. They must differ.
#
# It knows nothing of what the tables hold.


MAX_NAME = 64  # names stand in the ledger, metrics, pages and log lines


def unfit(key: str, name: str) -> Iterator[Problem]:
    """Complain of a name that the ledger cannot keep, or nobody can read."""
    if len(name) > MAX_NAME or not name.isprintable():
        yield Problem(f"{key}.name", "is too long or not printable.", f"Write at most {MAX_NAME} characters.")


def repeated(key: str, names: list[str]) -> Iterator[Problem]:
    """Complain of each name that an earlier table of the list has; empty ones are another rule's."""
    for index, name in enumerate(names):
        if name and name in names[:index]:
            fault = f"is the name of {key}[{names.index(name)}] too."
            yield Problem(f"{key}[{index}].name", fault, "Give each a name of its own.")
