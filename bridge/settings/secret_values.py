"""The secrets of the settings as plain text, for the one who must recognise them: the log's redaction.

It finds them by type, so that a new secret is among them by itself.
"""

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

from bridge.settings.model import Settings

PASSWORDS_IN_QUERY = ("password", "sslpassword")  # as libpq's URLs may have them


def secret_values(settings: Settings) -> frozenset[str]:
    """Return every secret that is set. Never show the result; hand it to telemetry.logs.redact_values."""
    urls = (settings.client.proxy.get_secret_value(), settings.store.url)
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
