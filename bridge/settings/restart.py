"""Settings that need a restart: what is bound, opened or connected at the start and not again.

It compares two settings; who reads them again, and when, it does not know.
"""

from typing import Any

from pydantic import BaseModel

from bridge.errors import SettingsError
from bridge.settings.changes import changes
from bridge.settings.model import Settings
from bridge.settings.rules import broken_rules

NEEDS_RESTART = (
    "server.host",
    "server.port",
    "server.tls_cert_file",  # what lies there is looked at again and again
    "server.tls_key_file",
    "admin.host",
    "admin.port",
    "store",
    "s3",
    "client",
    "testnod.allow_private_storage",
)
"""A setting, or a whole table."""


def until_restart(running: Settings, wanted: Settings) -> tuple[Settings, dict[str, str]]:
    """Return `wanted` with all that needs a restart as it is `running`, and what that leaves out, by key.

    Raise SettingsError where the two do not go together.
    """
    put_off = {key: change for key, change in changes(running, wanted).items() if _needs_restart(key)}
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
