"""What a single setting may be: durations, sizes, counts, globs, and secrets that cannot print themselves.

It knows no setting by name. A ValueError here is shown to a person: fault, then remedy.
"""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

# Durations ("1h30m") and sizes ("50 MiB") as people write them in the settings file, both ways.
#
# It knows no setting and no model: text in, values out, and a ValueError that says how to write it right.


MICROSECONDS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}
BYTES = {"B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
NAMES = {"TIB": "TiB", "GIB": "GiB", "MIB": "MiB", "KIB": "KiB", "B": "B"}

MAX_DURATION = timedelta(days=3_650)  # ten years: more is a slip, and times stay far below 2^53 microseconds
MAX_SIZE = 1 << 50  # a PiB: more is a slip, and every size stays below the ledger's 2^53

_DURATION = re.compile("".join(rf"(?:([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?){unit})?" for unit in MICROSECONDS))
_SIZE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)")

NO_DURATION = "is not a duration; use a number and a unit, like 5s."
DURATION_REMEDY = 'Write it in quotes, with the units d, h, m, s and ms in this order, like "1h30m" or "1.5s".'
SIZE_REMEDY = 'Write a number and a unit (B, KiB, MiB, GiB or TiB) in quotes, like "50 MiB".'


def parse_duration(text: str) -> timedelta:
    """Read days, hours, minutes, seconds and milliseconds in descending order, like "1h30m", "1.5s" or "500ms".

    Raises ValueError with the remedy, also for more than ten years and for parts of a microsecond.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f'"{text}" {NO_DURATION} {DURATION_REMEDY}')
    numbers = (Decimal(number or 0) for number in match.groups())
    microseconds = sum(number * unit for number, unit in zip(numbers, MICROSECONDS.values(), strict=True))
    if microseconds > MAX_DURATION // timedelta(microseconds=1):
        raise ValueError(f'"{text}" is longer than ten years. Write a shorter one.')
    if microseconds != int(microseconds):
        raise ValueError(f'"{text}" is not a whole number of microseconds. Write fewer decimal places.')
    return timedelta(microseconds=int(microseconds))


def format_duration(duration: timedelta) -> str:
    """Write a duration as `parse_duration` reads it, without units that are zero: "1h30m", "0.25ms", "0s"."""
    rest = duration // timedelta(microseconds=1)
    parts = []
    for unit, microseconds in MICROSECONDS.items():
        number, rest = divmod(rest, microseconds)
        if unit == "ms" and rest:
            parts.append(f"{number}.{rest:03}".rstrip("0") + unit)
        elif number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """Read a number of bytes with a binary unit, like "1.5 GiB"; raise ValueError with the remedy."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in BYTES:
        raise ValueError(f'"{text}" is not a size. {SIZE_REMEDY}')
    size = Decimal(match[1]) * BYTES[match[2].upper()]
    if size > MAX_SIZE:
        raise ValueError(f'"{text}" is more than 1024 TiB. Write a smaller one.')
    return int(size)


def format_size(size: int) -> str:
    """Write bytes in the largest unit that divides them, as `parse_size` reads them: "50 MiB", "0 B"."""
    for unit, name in NAMES.items():
        if size and size % BYTES[unit] == 0:
            return f"{size // BYTES[unit]} {name}"
    return "0 B"


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
