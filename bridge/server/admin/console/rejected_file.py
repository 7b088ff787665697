"""What the page of a rejected file shows: the text around its fault, and what a repair would change."""

import difflib
import itertools
import re
from typing import Final

from bridge.domain.junit.repair.repair import Repaired, repair
from bridge.values import dataclass

MAX_SHOWN_BYTES: Final = 1024 * 1024
"""Larger files are downloaded and looked at elsewhere: a repair reads a file up to ten times."""

LINES_AROUND: Final = 6
MAX_LINE: Final = 400
MAX_DIFF_LINES: Final = 200
MAX_COMPARED_LINES: Final = 2_000

_LINE = re.compile(r"\bline ([0-9]{1,9})(?:,? column ([0-9]{1,9}))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """Lines around a fault: number, text, and whether it is the faulty one; `column` counts from 1."""

    lines: tuple[tuple[int, str, bool], ...]
    column: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairPreview:
    """What a repair would do: sentences and a unified difference, or why it is not possible."""

    possible: bool
    sentences: tuple[str, ...]
    difference: tuple[tuple[str, str], ...]  # kind (add, del, "") and line


def excerpt(data: bytes, reason: str) -> Excerpt:
    """Return the lines around the place that `reason` names; the first lines if it names none."""
    lines = data.decode("utf-8", "backslashreplace").splitlines() or [""]
    match = _LINE.search(reason)
    number = min(int(match[1]), len(lines)) if match else 0
    first = max(1, number - LINES_AROUND)
    chosen = range(first, min(len(lines), max(number, 1) + LINES_AROUND) + 1)
    column = int(match[2]) if match and match[2] else None
    shown = []
    for index in chosen:
        faulty = index == number
        shown.append((index, _cut(lines[index - 1], column if faulty else None), faulty))
    return Excerpt(lines=tuple(shown), column=column)


def preview_repair(data: bytes) -> RepairPreview:
    """Return what `repair` would change in a file of at most MAX_SHOWN_BYTES."""
    found = repair(lambda: iter((data,)))
    if not isinstance(found, Repaired):
        return RepairPreview(possible=False, sentences=(f"{found.found} {found.remedy}",), difference=())
    before = data.decode("utf-8", "backslashreplace").splitlines()
    after = b"".join(found.chunks()).decode("utf-8", "backslashreplace").splitlines()
    return RepairPreview(possible=True, sentences=found.done, difference=_difference(before, after))


def _difference(before: list[str], after: list[str]) -> tuple[tuple[str, str], ...]:
    """Return the lines that differ with one line around them; nothing if they are too many to compare.

    Comparing takes the square of their number, so equal lines at both ends are left out first.
    """
    shorter = min(len(before), len(after))
    head = next((index for index in range(shorter) if before[index] != after[index]), shorter)
    most = shorter - head
    tail = next((index for index in range(most) if before[-1 - index] != after[-1 - index]), most)
    start = max(0, head - 1)
    old = before[start : len(before) - max(0, tail - 1)]
    new = after[start : len(after) - max(0, tail - 1)]
    if max(len(old), len(new)) > MAX_COMPARED_LINES:
        return ()
    kinds = {"+": "add", "-": "del"}
    lines = difflib.unified_diff(old, new, "received", "repaired", lineterm="", n=1)
    shown = itertools.islice((line for line in lines if not line.startswith("@@")), MAX_DIFF_LINES)
    return tuple((kinds.get(line[:1], ""), line[:MAX_LINE]) for line in shown)


def _cut(line: str, column: int | None) -> str:
    """Return at most MAX_LINE characters of a line, around `column` if it is beyond them."""
    start = max(0, column - MAX_LINE // 2) if column is not None and column > MAX_LINE else 0
    shown = line[start : start + MAX_LINE]
    return f"{'…' if start else ''}{shown}{'…' if start + MAX_LINE < len(line) else ''}"
