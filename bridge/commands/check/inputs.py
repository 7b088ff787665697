"""The files that the arguments of `bridge check` stand for: files, patterns that no shell expanded, folders."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".xml"
"""Of the files to check in a folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file to check; its path is relative to the working directory if the argument was."""

    path: Path
    named: bool  # by its name, not by a folder or a pattern: then a file that is not a report is rejected


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingInput:
    """An argument that matches no file."""

    argument: str
    reason: str


def find_inputs(arguments: Sequence[str]) -> list[SourceFile | MissingInput]:
    """Return every file once, in the order of the arguments, and by name for each argument."""
    found: dict[str, SourceFile | MissingInput] = {}
    for argument in arguments:
        for source in _find(argument):
            # Not Path.resolve(), which fails on circular links.
            key = source.argument if isinstance(source, MissingInput) else os.path.realpath(source.path)
            found.setdefault(key, source)
    return list(found.values())


def _find(argument: str) -> Iterator[SourceFile | MissingInput]:
    path = Path(argument)
    if path.is_dir():
        yield from _in_folder(path)
    elif path.exists() or not glob.has_magic(argument):  # a file name may contain brackets
        yield SourceFile(path=path, named=True)
    else:
        yield from _matching(argument)


def _in_folder(folder: Path) -> Iterator[SourceFile | MissingInput]:
    paths = sorted(
        Path(parent, name) for parent, _, names in os.walk(folder) for name in names if name.lower().endswith(SUFFIX)
    )
    yield from (SourceFile(path=path, named=False) for path in paths)
    if not paths:
        reason = f"this folder contains no *{SUFFIX} file. Check that the tests ran, and where they write to."
        yield MissingInput(argument=str(folder), reason=reason)


def _matching(pattern: str) -> Iterator[SourceFile | MissingInput]:
    paths = sorted(Path(match) for match in glob.iglob(pattern, recursive=True))  # noqa: PTH207 -- also absolute paths
    for path in paths:
        if path.is_dir():
            yield from (source for source in _in_folder(path) if isinstance(source, SourceFile))
        else:
            yield SourceFile(path=path, named=False)
    if not paths:
        reason = "no file matches this pattern. Check that the tests ran, and where they write to."
        yield MissingInput(argument=pattern, reason=reason)
