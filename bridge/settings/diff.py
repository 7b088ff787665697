"""What differs between two settings, for the log: by key, named tables by their name, secrets never shown.

It knows types, not names: a new setting is compared by itself.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from bridge.errors import SettingsError
from bridge.settings.introspection import is_table_list, table_of
from bridge.settings.model import Settings
from bridge.settings.rules import broken_rules
from bridge.settings.summary import shown
from bridge.settings.types import READS_SIZE, format_size

MAX_SHOWN_CHARACTERS = 200  # of one change: a list of patterns may be long


def diff(before: Settings, after: Settings) -> dict[str, str]:
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


# Settings that need a restart: what is bound, opened or connected at the start and not again.
#
# It compares two settings; who reads them again, and when, it does not know.


NEEDS_RESTART = (
    "server.host",
    "server.port",
    "server.tls_cert_file",  # what lies there is looked at again and again
    "server.tls_key_file",
    "admin.host",
    "admin.port",
    "store",
    "s3",
    "outbound",
    "testnod.allow_private_storage",
)
"""A setting, or a whole table."""


def apply_without_restart(running: Settings, wanted: Settings) -> tuple[Settings, dict[str, str]]:
    """Return `wanted` with all that needs a restart as it is `running`, and what that leaves out, by key.

    Raise SettingsError where the two do not go together.
    """
    put_off = {key: change for key, change in diff(running, wanted).items() if _needs_restart(key)}
    if not put_off:
        return wanted, {}
    mixed = _with(wanted, running)
    complaints = [str(broken) for broken in broken_rules(mixed)]
    if complaints:
        keys = ", ".join(put_off)
        raise SettingsError([*complaints, f"{keys}: as it is now does not go with this. Restart to have all of it."])
    return mixed, put_off


def _needs_restart(key: str) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in NEEDS_RESTART)


def _with(wanted: Settings, running: Settings) -> Settings:
    updates: dict[str, Any] = {}
    for each in NEEDS_RESTART:
        table, _, name = each.partition(".")
        if not name:
            updates[table] = getattr(running, table)
            continue
        current: BaseModel = updates.get(table, getattr(wanted, table))
        updates[table] = current.model_copy(update={name: getattr(getattr(running, table), name)})
    return wanted.model_copy(update=updates)
