"""Every setting in one flat table, for the start-up line: what the bridge runs with, and no secret.

It knows types, not names: a new setting appears by itself, and a new secret is masked by its type.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

from bridge.settings.model import Settings
from bridge.settings.types import READS_SIZE, format_duration, format_size

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


# The secrets of the settings as plain text, for the one who must recognise them: the log's redaction.
#
# It finds them by type, so that a new secret is among them by itself.


PASSWORDS_IN_QUERY = ("password", "sslpassword")  # as libpq's URLs may have them


def secret_values(settings: Settings) -> frozenset[str]:
    """Return every secret that is set. Never show the result; hand it to telemetry.logs.redact_values."""
    urls = (settings.outbound.http_proxy.get_secret_value(), settings.store.url)
    return frozenset((*_secrets(settings), *(password for url in urls for password in _passwords_in(url))))


def _passwords_in(url: str) -> Iterator[str]:
    """Yield the passwords inside a URL, before its host or in its query, as they stand there and as they are meant."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a rule says so
        return
    queried = (item.partition("=") for item in parts.query.split("&"))
    passwords = [parts.password, *(value for name, _, value in queried if name in PASSWORDS_IN_QUERY)]
    for password in passwords:
        if password:
            yield from (password, unquote(password))


def _secrets(value: object) -> Iterator[str]:
    match value:
        case SecretStr():
            if value.get_secret_value():
                yield value.get_secret_value()
        case BaseModel():
            for name in type(value).model_fields:
                yield from _secrets(getattr(value, name))
        case tuple():
            for member in value:
                yield from _secrets(member)
