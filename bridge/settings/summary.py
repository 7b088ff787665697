"""All settings as flat keys, for logs and for redaction. Secrets are found by their type, so new ones are included."""

import re
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

from bridge.domain.notices import secret_parts
from bridge.errors import SettingsError
from bridge.settings.model import READS_SIZE, Settings, SettingsTable, format_duration, format_size, table_of
from bridge.settings.rules import broken_rules
from bridge.values import dataclass

PASSWORDS_IN_QUERY = ("password", "sslpassword")  # of libpq's URLs

_USER_INFO = re.compile(r"//[^/?#\s]*@")  # up to the last @: a password may contain others
_WEBHOOK_URL = re.compile(r"notices\[\d+\]\.url")
_PASSWORD = re.compile(r"(?i)(password|passwd|token|secret)=[^&\s]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingValue:
    """One setting. `key` has the index of tables in lists, `named_key` their names."""

    key: str  # routes[0].tags
    named_key: str  # routes.shop.tags
    value: object
    shown: object  # as text, number or list, without secrets
    is_structure: bool = False  # not a setting: the names of the tables in a list, or whether an optional table exists


def settings_values(table: SettingsTable, key: str = "", named_key: str = "") -> Iterator[SettingValue]:
    """Yield every setting in `table`, and for each list of tables the names in it, so that two settings compare."""
    for name, field in type(table).model_fields.items():
        path, named_path, value = f"{key}{name}", f"{named_key}{name}", getattr(table, name)
        if table_of(field) is None:
            shown = format_size(value) if READS_SIZE in field.metadata else _shown(value)
            yield SettingValue(key=path, named_key=named_path, value=value, shown=shown)
        elif isinstance(value, tuple):
            names = [getattr(member, "name", "") or f"[{index}]" for index, member in enumerate(value)]
            yield SettingValue(key=path, named_key=f"{named_path}[]", value=names, shown=names, is_structure=True)
            for index, member in enumerate(value):
                yield from settings_values(member, f"{path}[{index}].", f"{named_path}.{names[index]}.")
        else:
            exists = "a table" if value else None
            yield SettingValue(key=path, named_key=named_path, value=exists, shown=exists, is_structure=True)
            if value:
                yield from settings_values(value, f"{path}.", f"{named_path}.")


def summary(settings: Settings) -> dict[str, object]:
    """Return every setting by its key: secrets as "set" or "", durations and sizes as in the file."""
    return {one.key: one.shown for one in settings_values(settings) if not (one.is_structure and one.value)}


def secret_values(settings: Settings) -> frozenset[str]:
    """Return every secret that is set, for telemetry.logs.redact_values. Never print the result."""
    urls = (settings.outbound.http_proxy.get_secret_value(), settings.store.url)
    found = {password for url in urls for password in passwords_in(url)}
    found |= {part for notice in settings.notices for part in _webhook_parts(notice.url.get_secret_value())}
    for one in settings_values(settings):
        if _WEBHOOK_URL.fullmatch(one.key):  # only its parts: other URLs begin as it does
            continue
        for member in one.value if isinstance(one.value, tuple) else (one.value,):
            if isinstance(member, SecretStr) and member.get_secret_value():
                found.add(member.get_secret_value())
    return frozenset(found)


def _webhook_parts(url: str) -> tuple[str, ...]:
    try:
        return secret_parts(url)
    except ValueError:  # reported by a rule
        return ()


def passwords_in(url: str) -> Iterator[str]:
    """Yield the passwords in a URL, before its host or in its query, both as written and unquoted."""
    try:
        parts = urlsplit(url)
    except ValueError:  # reported by a rule
        return
    query = (item.partition("=") for item in parts.query.split("&"))
    passwords = [parts.password, *(value for name, _, value in query if name in PASSWORDS_IN_QUERY)]
    for password in passwords:
        if password:
            yield from (password, unquote(password))


def _shown(value: object) -> object:
    match value:
        case SecretStr():
            return "set" if value.get_secret_value() else ""
        case tuple():
            return [_shown(member) for member in value]
        case timedelta():
            return format_duration(value)
        case str():
            return _PASSWORD.sub(r"\1=set", _USER_INFO.sub("//set@", value))
        case int() | float() | None:
            return value
    return str(value)


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

    Keys have the names of tables: `routes.shop.tags`. `routes[]` shows added, removed and reordered tables.
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
