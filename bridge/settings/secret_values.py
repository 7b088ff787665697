"""The secrets of the settings as plain text, for the one who must recognise them: the log's redaction.

It finds them by type, so that a new secret is among them by itself.
"""

from collections.abc import Iterator

from pydantic import BaseModel, SecretStr

from bridge.settings.model import Settings


def secret_values(settings: Settings) -> frozenset[str]:
    """Return every secret that is set. Never show the result; hand it to telemetry.logs.redact_values."""
    return frozenset(_secrets(settings))


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
