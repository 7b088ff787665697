"""Every setting in one flat table, for the start-up line: what the bridge runs with, and no secret.

It knows types, not names: a new setting appears by itself, and a new secret is masked by its type.
"""

import re
from datetime import timedelta

from pydantic import BaseModel, SecretStr

from bridge.settings.model import Settings
from bridge.settings.units import format_duration, format_size
from bridge.settings.values import READS_SIZE

_USER_INFO = re.compile(r"//[^/?#\s]*@")  # up to the last @: a password may hold others
_PASSWORD = re.compile(r"(?i)(password|passwd|token|secret)=[^&\s]+")


def summary(settings: Settings) -> dict[str, object]:
    """Return every setting by its key; secrets are "set" or "", durations and sizes as they are written."""
    flat: dict[str, object] = {}
    _flatten("", settings, flat)
    return flat


def _flatten(key: str, value: object, flat: dict[str, object]) -> None:
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            member = getattr(value, name)
            said = format_size(member) if READS_SIZE in field.metadata else member
            _flatten(f"{key}.{name}" if key else name, said, flat)
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for index, member in enumerate(value):
            _flatten(f"{key}[{index}]", member, flat)
    else:
        flat[key] = shown(value)


def shown(value: object) -> object:
    """Return what a log line says of one setting's value."""
    match value:
        case SecretStr():
            return "set" if value.get_secret_value() else ""
        case tuple():
            return [shown(member) for member in value]
        case timedelta():
            return format_duration(value)
        case str():
            return _PASSWORD.sub(r"\1=set", _USER_INFO.sub("//set@", value))
        case int() | float() | None:
            return value
    return str(value)
