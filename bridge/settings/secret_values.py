"""The secrets of the settings as plain text, for the one who must recognise them: the log's redaction.

It finds them by type, so that a new secret is among them by itself.
"""

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

from bridge.settings.model import Settings


def secret_values(settings: Settings) -> frozenset[str]:
    """Return every secret that is set. Never show the result; hand it to telemetry.logs.redact_values."""
    return frozenset((*_secrets(settings), *_proxy_password(settings.client.proxy.get_secret_value())))


def _proxy_password(url: str) -> Iterator[str]:
    """Yield the password inside the proxy's URL, as it stands there and as it is meant."""
    try:
        password = urlsplit(url).password
    except ValueError:  # a rule says so
        return
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
