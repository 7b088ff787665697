"""The files that the arguments of `bridge upload` stand for: files, folders, patterns with `**`, exclusions with `!`.

In a pattern, `*` and `?` match within one name and `**` any number of folders. A name that begins with a dot is matched
only by a pattern that begins with one, as in shells. On Windows case does not count, and a backslash separates folders.
"""

import fnmatch
import ntpath
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final

from bridge.values import dataclass

WINDOWS: Final = os.name == "nt"
SUFFIX: Final = ".xml"  # of the files to send from a folder
MAGIC: Final = re.compile(r"[*?\[]")

_ANY: Final = "**"

States = frozenset[int]
"""How many parts of a pattern the names so far may have matched: `**` leaves several possibilities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundFile:
    """A file to send."""

    path: str  # to open it
    name: str  # for people and the gateway: relative to the working directory, with slashes
    named: bool = False  # by its own name: then a file that is not a report is an error


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundFiles:
    """All files in the order of the arguments, and by name for each argument."""

    files: list[FoundFile]
    missing: list[str] = field(default_factory=list)  # arguments that no file matches
    excluded: int = 0


class Glob:
    """A pattern of names separated by slashes, matched name by name, so that a walk enters no folder in vain."""

    def __init__(self, parts: Sequence[str], *, hidden: bool = False, ignore_case: bool = WINDOWS) -> None:
        flags = re.IGNORECASE if ignore_case else 0
        self._parts = [None if part == _ANY else re.compile(fnmatch.translate(part), flags) for part in parts]
        self._dotted = [hidden or part.startswith(".") for part in parts]
        self._hidden = hidden
        self.start = self._closure({0})

    def step(self, states: States, name: str) -> States:
        """Return the states after one more name; none if nothing below it can match."""
        dotted = name.startswith(".")
        after: set[int] = set()
        for state in states:
            if state == len(self._parts):
                continue
            part = self._parts[state]
            if part is None:
                after |= {state} if self._hidden or not dotted else set()
            elif part.match(name) and (not dotted or self._dotted[state]):
                after.add(state + 1)
        return self._closure(after)

    def accepts(self, states: States) -> bool:
        """Return whether the names so far match the whole pattern."""
        return len(self._parts) in states

    def matches(self, names: Sequence[str]) -> bool:
        """Return whether a path matches."""
        states = self.start
        for name in names:
            states = self.step(states, name)
        return self.accepts(states)

    def _closure(self, states: set[int]) -> States:
        for state in sorted(states):
            at = state
            while at < len(self._parts) and self._parts[at] is None:
                at += 1
                states.add(at)
        return frozenset(states)


IN_FOLDER: Final = Glob([_ANY, f"*{SUFFIX}"], hidden=True, ignore_case=True)
"""The files to send from a folder."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern: the folder at which it begins, and the names below."""

    base: str
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, *, windows: bool = WINDOWS) -> "Pattern":
        """Return the pattern in `text`, whose folders without wildcards are its base."""
        drive, rest = ntpath.splitdrive(text) if windows else ("", text)
        if windows:
            drive, rest = drive.replace("\\", "/"), rest.replace("\\", "/")
        root = f"{drive}/" if rest.startswith("/") else drive
        names = [name for name in rest.split("/") if name not in ("", ".")]
        plain = next((at for at, name in enumerate(names) if MAGIC.search(name)), len(names))
        return cls(root + "/".join(names[:plain]), tuple(names[plain:]))

    @property
    def whole_folders(self) -> bool:
        """Return whether it ends with `**`, so that it names folders and not files."""
        return self.parts[-1:] == (_ANY,)


class Exclusions:
    """The patterns after `!`. One without a slash excludes files and folders of that name anywhere."""

    def __init__(self, texts: Sequence[str], *, windows: bool = WINDOWS) -> None:
        self._names: list[Glob] = []
        self._paths: list[Glob] = []
        for text in texts:
            pattern = text.replace("\\", "/") if windows else text
            parts = [part for part in pattern.split("/") if part not in ("", ".")]
            anywhere = "/" not in pattern.rstrip("/")
            (self._names if anywhere else self._paths).append(Glob(parts, hidden=True, ignore_case=windows))

    def match(self, names: Sequence[str], absolute: Sequence[str] = ()) -> bool:
        """Return whether a path, or a folder above it, is excluded; `absolute` is the path from its root."""
        if any(glob.matches([name]) for name in names for glob in self._names):
            return True
        return any(_matches_start(glob, path) for glob in self._paths for path in (names, absolute))


def _matches_start(glob: Glob, names: Sequence[str]) -> bool:
    states = glob.start
    for name in names:
        states = glob.step(states, name)
        if glob.accepts(states):
            return True
    return False


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the patterns, and the exclusions without their `!`."""
    excluded = [text[1:] for text in arguments if text.startswith("!") and len(text) > 1]
    return [text for text in arguments if not text.startswith("!")], excluded


def find_files(patterns: Sequence[str], exclusions: Exclusions) -> FoundFiles:
    """Return each file once, even if links lead to it in several ways."""
    seen: dict[str, FoundFile] = {}
    missing: list[str] = []
    excluded = 0
    for text in patterns:
        found = sorted(_find(text, exclusions), key=lambda file: file.name)
        kept = [file for file in found if not exclusions.match(*_names_of(file))]
        excluded += len(found) - len(kept)
        if not found:
            missing.append(text)
        for file in kept:
            seen.setdefault(os.path.normcase(os.path.realpath(file.path)), file)
    return FoundFiles(files=list(seen.values()), missing=missing, excluded=excluded)


def _find(text: str, exclusions: Exclusions) -> Iterator[FoundFile]:
    path = Path(text)
    if path.is_dir():
        yield from walk(str(path), IN_FOLDER, exclusions)
    elif path.exists() or not MAGIC.search(text):  # a file name may contain brackets
        if os.path.lexists(text):
            yield FoundFile(path=text, name=_shown(text, str(path.parent)), named=True)
    else:
        pattern = Pattern.parse(text)
        parts = (*pattern.parts, f"*{SUFFIX}") if pattern.whole_folders else pattern.parts
        yield from walk(pattern.base or os.curdir, Glob(parts), exclusions)


def walk(base: str, glob: Glob, exclusions: Exclusions) -> Iterator[FoundFile]:
    """Yield the files below `base` that match.

    Links to folders are followed. A folder is read once for each state of the pattern, so circular links end.
    """
    seen: set[tuple[int, int, States]] = set()
    waiting = [(base, glob, glob.start)]
    while waiting:
        folder, matcher, states = waiting.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116 -- as many calls as files
            if (key := (status.st_dev, status.st_ino, states)) in seen and status.st_ino:
                continue
            seen.add(key)
            entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_symlink(), entry.name))
        except OSError:  # it was removed, or may not be read
            continue
        folders = []
        for entry in entries:
            path = entry.path if folder != os.curdir else entry.name
            after = matcher.step(states, entry.name)
            if not after:
                continue
            if _is_folder(entry):
                if not exclusions.match([entry.name], _segments(os.path.abspath(path))):  # noqa: PTH100 -- keeps links
                    folders.append((path, matcher, after))
                    if matcher.accepts(after) and matcher is not IN_FOLDER:
                        folders.append((path, IN_FOLDER, IN_FOLDER.start))
            elif matcher.accepts(after) and _is_file(entry):
                yield FoundFile(path=path, name=_shown(path, base))
        waiting += reversed(folders)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()  # not a pipe, which would never end
    except OSError:
        return False


def _shown(path: str, base: str) -> str:
    """Return the path relative to the working directory; if it is not below that, relative to `base`."""
    whole = os.path.abspath(path)  # noqa: PTH100 -- keeps links
    here = os.getcwd()  # noqa: PTH109
    for start in (here, os.path.abspath(base)):  # noqa: PTH100
        if whole.startswith(start.rstrip(os.sep) + os.sep):
            return os.path.relpath(whole, start).replace(os.sep, "/")
    return posixpath.basename(whole.replace(os.sep, "/"))


def _names_of(file: FoundFile) -> tuple[list[str], list[str]]:
    return file.name.split("/"), _segments(os.path.abspath(file.path))  # noqa: PTH100 -- keeps links


def _segments(path: str) -> list[str]:
    return [name for name in path.replace(os.sep, "/").split("/") if name]
