"""Which files the arguments of `bridge check` mean: files by name, patterns that no shell expanded, folders.

It must not open any of them.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".xml"
"""Of the files that a folder is searched for; every test runner writes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file to check, by the path that leads to it from here."""

    path: Path
    named: bool  # by its own name: it is meant to be a report, so being something else is a fault


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingInput:
    """An argument that leads to no file."""

    argument: str
    reason: str


def find(arguments: Sequence[str]) -> list[SourceFile | MissingInput]:
    """Return every file once, in the order of the arguments and by name within each."""
    found: dict[str, SourceFile | MissingInput] = {}
    for argument in arguments:
        for source in _meant(argument):
            # Not Path.resolve(), which fails where links lead in a circle.
            key = source.argument if isinstance(source, MissingInput) else os.path.realpath(source.path)
            found.setdefault(key, source)
    return list(found.values())


def _meant(argument: str) -> Iterator[SourceFile | MissingInput]:
    path = Path(argument)
    if path.is_dir():
        yield from _in_folder(path)
    elif path.exists() or not glob.has_magic(argument):  # a name may hold brackets
        yield SourceFile(path=path, named=True)
    else:
        yield from _matching(argument)


def _in_folder(folder: Path) -> Iterator[SourceFile | MissingInput]:
    paths = sorted(
        Path(parent, name) for parent, _, names in os.walk(folder) for name in names if name.lower().endswith(SUFFIX)
    )
    yield from (SourceFile(path=path, named=False) for path in paths)
    if not paths:
        yield MissingInput(
            argument=str(folder),
            reason=f"this folder holds no *{SUFFIX} file. Check that the tests ran, and where they write to.",
        )


def _matching(pattern: str) -> Iterator[SourceFile | MissingInput]:
    paths = sorted(Path(match) for match in glob.iglob(pattern, recursive=True))  # noqa: PTH207 -- any path, also an absolute one
    for path in paths:
        if path.is_dir():
            yield from (source for source in _in_folder(path) if isinstance(source, SourceFile))
        else:
            yield SourceFile(path=path, named=False)
    if not paths:
        yield MissingInput(
            argument=pattern,
            reason="no file matches this pattern. Check that the tests ran, and where they write to.",
        )
