"""Durations ("1h30m") and sizes ("50 MiB") as people write them in the settings file, both ways.

It knows no setting and no model: text in, values out, and a ValueError that says how to write it right.
"""

import re
from datetime import timedelta
from decimal import Decimal

MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
BYTES = {"B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
NAMES = {"TIB": "TiB", "GIB": "GiB", "MIB": "MiB", "KIB": "KiB", "B": "B"}

MAX_DURATION = timedelta(days=3_650)  # ten years: more is a slip, and times stay far below 2^53 microseconds
MAX_SIZE = 1 << 50  # a PiB: more is a slip, and every size stays below the ledger's 2^53

_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?")
_SIZE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)")

DURATION_REMEDY = 'Write a number and a unit in quotes, like "5s", "15m", "30d" or "1h30m".'
SIZE_REMEDY = 'Write a number and a unit (B, KiB, MiB, GiB or TiB) in quotes, like "50 MiB".'


def parse_duration(text: str) -> timedelta:
    """Read days, hours, minutes, seconds and milliseconds in falling order, like "1h30m"; raise ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f'"{text}" is not a duration. {DURATION_REMEDY}')
    numbers = (int(number or 0) for number in match.groups())
    milliseconds = sum(number * unit for number, unit in zip(numbers, MILLISECONDS.values(), strict=True))
    if milliseconds > MAX_DURATION / timedelta(milliseconds=1):
        raise ValueError(f'"{text}" is longer than ten years. Write a shorter one.')
    return timedelta(milliseconds=milliseconds)


def format_duration(duration: timedelta) -> str:
    """Write whole milliseconds as `parse_duration` reads them, without units that are zero: "1h30m", "0s"."""
    rest = duration // timedelta(milliseconds=1)
    parts = []
    for unit, milliseconds in MILLISECONDS.items():
        number, rest = divmod(rest, milliseconds)
        if number:
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
