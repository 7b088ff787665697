"""The difference between two settings, and which of it needs a restart. Secrets are never shown."""

from pydantic import BaseModel

from bridge.errors import SettingsError
from bridge.settings.model import Settings
from bridge.settings.rules import broken_rules
from bridge.settings.summary import settings_values

MAX_SHOWN_CHARACTERS = 200  # of one change: a list of patterns may be long

NEEDS_RESTART = (
    "server.host",
    "server.port",
    "server.tls_cert_file",  # the content of these files is reloaded, not their paths
    "server.tls_key_file",
    "admin.host",
    "admin.port",
    "store",
    "s3",
    "outbound",
    "testnod.allow_private_storage",
)
"""Settings and whole tables that are bound, opened or connected only at the start."""


def diff(before: Settings, after: Settings) -> dict[str, str]:
    """Return each setting that differs as `old → new`, or `changed` if it is a secret.

    Keys have the names of tables: `routes.shop.tags`. `routes[]` stands for added, removed and reordered tables.
    """
    old = {one.named_key: one for one in settings_values(before)}
    return {
        one.named_key: _change(old[one.named_key].shown, one.shown)
        for one in settings_values(after)
        if one.named_key in old and old[one.named_key].value != one.value
    }


def _change(old: object, new: object) -> str:
    return "changed" if old == new else f"{old} → {new}"[:MAX_SHOWN_CHARACTERS]


def apply_without_restart(running: Settings, wanted: Settings) -> tuple[Settings, dict[str, str]]:
    """Return `wanted` with the `running` values of all settings that need a restart, and the changes that wait for it.

    Raise SettingsError if the mixture breaks a rule.
    """
    waiting = {key: change for key, change in diff(running, wanted).items() if _needs_restart(key)}
    if not waiting:
        return wanted, {}
    mixed = _mix(wanted, running)
    problems = [str(problem) for problem in broken_rules(mixed)]
    if problems:
        keys = ", ".join(waiting)
        raise SettingsError([*problems, f"{keys}: the running value conflicts with the new settings. Restart."])
    return mixed, waiting


def _needs_restart(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in NEEDS_RESTART)


def _mix(wanted: Settings, running: Settings) -> Settings:
    updates: dict[str, BaseModel] = {}
    for one in NEEDS_RESTART:
        table, _, name = one.partition(".")
        current: BaseModel = updates.get(table, getattr(wanted, table))
        kept = {name: getattr(getattr(running, table), name)} if name else dict(getattr(running, table))
        updates[table] = current.model_copy(update=kept)
    return wanted.model_copy(update=updates)
