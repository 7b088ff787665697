"""What a single setting may be: durations, sizes, counts, globs, and secrets that cannot print themselves.

It knows no setting by name. A ValueError here is shown to a person: fault, then remedy.
"""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from bridge.settings.units import DURATION_REMEDY, NO_DURATION, SIZE_REMEDY, parse_duration, parse_size


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, timedelta):
        return value
    raise ValueError(f"{NO_DURATION} {DURATION_REMEDY}")


def _size(value: Any) -> Any:
    if isinstance(value, str):
        return parse_size(value)
    raise ValueError(f"is no size: a number alone has no unit. {SIZE_REMEDY}")


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):  # which Python counts as 0 or 1
        raise ValueError("is not a whole number. Write it without quotes, like 8080.")  # noqa: TRY004 -- shown to a person
    return value


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _comma_separated(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _printable(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text.isprintable() or text != text.strip():
        raise ValueError("holds a line break, a control character or a blank at an end. Copy it again, alone.")
    return secret


def _set(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    return tuple(secret for secret in secrets if secret.get_secret_value())


READS_SIZE = BeforeValidator(_size)
ONE_OR_MORE = BeforeValidator(_listed)

Duration = Annotated[timedelta, BeforeValidator(_duration)]
Size = Annotated[int, READS_SIZE]
WHOLE_NUMBER = BeforeValidator(_no_truth)
Count = Annotated[int, Field(ge=1), WHOLE_NUMBER]
Limit = Annotated[int, Field(ge=0), WHOLE_NUMBER]
Port = Annotated[int, Field(ge=0, le=65_535), WHOLE_NUMBER]  # 0: any free one
Secret = Annotated[SecretStr, AfterValidator(_printable)]
Secrets = Annotated[tuple[Secret, ...], ONE_OR_MORE, AfterValidator(_set)]  # none where it is left empty
Names = Annotated[tuple[str, ...], BeforeValidator(_comma_separated)]
Globs = Annotated[tuple[str, ...], ONE_OR_MORE]
NO_SECRET = SecretStr("")
