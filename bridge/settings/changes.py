"""What differs between two settings, for the log: by key, named tables by their name, secrets never shown.

It knows types, not names: a new setting is compared by itself.
"""

from collections.abc import Iterator

from pydantic import BaseModel

from bridge.settings.fields import is_table_list, table_of
from bridge.settings.model import Settings
from bridge.settings.summary import shown
from bridge.settings.units import format_size
from bridge.settings.values import READS_SIZE

MAX_SHOWN_CHARACTERS = 200  # of one change: a list of patterns may be long


def changes(before: Settings, after: Settings) -> dict[str, str]:
    """Return what became of each setting that differs: `old → new`, or `changed` where it is a secret.

    Tables that came, went or moved are seen in the names of their list, `routes[]` or `callers.tokens[]`.
    """
    old, new = dict(_leaves("", before)), dict(_leaves("", after))
    return {key: _change(old[key][1], new[key][1]) for key in old if key in new and old[key][0] != new[key][0]}


def _change(old: object, new: object) -> str:
    return "changed" if old == new else f"{old} → {new}"[:MAX_SHOWN_CHARACTERS]


def _leaves(prefix: str, table: BaseModel) -> Iterator[tuple[str, tuple[object, object]]]:
    """Yield the key of each single setting with its value, and with what may be shown of it."""
    for name, field in type(table).model_fields.items():
        key, value = f"{prefix}{name}", getattr(table, name)
        if is_table_list(field):
            names = [getattr(member, "name", "") or f"[{index}]" for index, member in enumerate(value)]
            yield f"{key}[]", (names, names)
            for member_name, member in zip(names, value, strict=True):
                yield from _leaves(f"{key}.{member_name}.", member)
        elif table_of(field) is not None:
            there = "a table" if value is not None else "none"
            yield key, (there, there)
            if value is not None:
                yield from _leaves(f"{key}.", value)
        else:
            yield key, (value, format_size(value) if READS_SIZE in field.metadata else shown(value))
