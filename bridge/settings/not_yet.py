"""Settings whose names are fixed already, but which this version cannot do: one row each, deleted when it can.

It knows no remedy but to take the setting out: a setting that is silently without effect would be worse.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from bridge.settings.complaints import Complaint
from bridge.settings.model import Settings


@dataclass(frozen=True, slots=True)
class NotYet:
    """A setting (`[]` for each member of a list), the values this version cannot do, and what that would be."""

    key: str
    asked: Callable[[Any], bool]
    what: str


NOT_YET = (NotYet("routes[].mirror", bool, "mirror reports to CodeArts"),)


def not_yet(settings: Settings) -> Iterator[Complaint]:
    """Complain of every setting that asks for what this version cannot do."""
    for row in NOT_YET:
        for key, value in _values(settings, row.key):
            if row.asked(value):
                yield Complaint(key, f"this version cannot {row.what} yet.", "Take the setting out.")


def _values(settings: Settings, key: str) -> Iterator[tuple[str, Any]]:
    table, name = key.split(".")
    if not table.endswith("[]"):
        yield key, getattr(getattr(settings, table), name)
        return
    members: tuple[BaseModel, ...] = getattr(settings, table.removesuffix("[]"))
    for index, member in enumerate(members):
        yield f"{table.removesuffix('[]')}[{index}].{name}", getattr(member, name)
