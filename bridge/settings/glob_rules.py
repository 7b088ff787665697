"""Globs that can match nothing, and globs that look like something else."""

import re
from collections.abc import Iterator

from bridge.settings.model import RouteSettings, Settings
from bridge.settings.problems import Problem
from bridge.values import dataclass

ROUTE_GLOBS = ("job_id", "job_name", "project_id", "repo", "branch")
JOB_ID_LENGTH = 32

_PART = re.compile(r"(?P<any>\*)|(?P<one>\?|\[!?\]?[^\]]*\])|(?P<literal>.)", re.DOTALL)
_BACKWARDS = re.compile(r"(.)-(.)", re.DOTALL)
_IN_JOB_ID = re.compile(r"[0-9A-Za-z]")
_IN_HOST = re.compile(r"[0-9A-Za-z._:-]")
_NEVER_IN_NAMES = re.compile(r"[\^\\~]")  # https://git-scm.com/docs/git-check-ref-format
_REGULAR_EXPRESSION = re.compile(r"\.[*+]|\$$|\||\(.*\)|\{.*\}|^!|,")

SYNTAX = "A glob has only *, ?, [abc] and [!abc]; it is not a regular expression."
JOB_ID = "A job_id is the 32 letters and digits at the end of the build task's page address."
HOST = 'Use a name without scheme, port and path, such as "*.amazonaws.com".'


@dataclass(frozen=True, kw_only=True, slots=True)
class _Glob:
    key: str
    name: str  # of the setting
    text: str

    def literals(self) -> str:
        return "".join(match["literal"] or "" for match in _PART.finditer(self.text))

    def is_fixed(self) -> bool:
        """Return whether all text that it matches has one length."""
        return not any(match["any"] for match in _PART.finditer(self.text))

    def length(self) -> int:
        """Return the smallest length of text that it matches."""
        return sum(not match["any"] for match in _PART.finditer(self.text))

    def is_backwards(self) -> bool:
        classes = (match["one"] or "" for match in _PART.finditer(self.text))
        return any(first > last for one in classes for first, last in _BACKWARDS.findall(one.strip("[]!")))


def glob_rules(settings: Settings) -> Iterator[Problem]:
    """Yield a problem for each glob that can match nothing."""
    for glob in _globs(settings):
        if fault := _impossible(glob):
            yield Problem(glob.key, *fault)
    for index, host in enumerate(settings.testnod.storage_hosts):
        glob = _Glob(key=f"testnod.storage_hosts[{index}]", name="host", text=host)
        wrong = _other_than(_IN_HOST, glob.literals())
        if wrong or not host or host.startswith(".") or host.count(":") == 1:
            yield Problem(glob.key, "is not a host name.", HOST)


def glob_warnings(settings: Settings) -> Iterator[str]:
    """Yield a warning for each glob that is valid but probably not intended."""
    for glob in _globs(settings):
        if glob.text != glob.text.strip():
            yield f"{glob.key}: begins or ends with a space, which names rarely do. Remove it."
        elif glob.name == "job_id" and re.search(r"[^0-9a-f]", glob.literals()):
            yield f"{glob.key}: has capitals, or letters after f, which no id of CodeArts has. {JOB_ID}"
        elif glob.name != "job_id" and (found := _REGULAR_EXPRESSION.search(glob.text)):
            remedy = "Write several globs as a list." if found[0] == "," else SYNTAX
            yield f'{glob.key}: matches only names with "{found[0]}" in them. {remedy}'


def _impossible(glob: _Glob) -> tuple[str, str] | None:
    if "[" in glob.literals():
        return "contains a [ that is not closed, so it matches nothing.", "Close it, as in [abc], or write [[] for a [."
    if glob.is_backwards():
        return "contains a range that ends before it begins, so it matches nothing.", "Write it as in [a-f]."
    if glob.name != "job_id":
        wrong = _NEVER_IN_NAMES.search(glob.literals())
        return (f'contains "{wrong[0]}", which no name has, so it matches nothing.', SYNTAX) if wrong else None
    if wrong_character := _other_than(_IN_JOB_ID, glob.literals()):
        fault = f'contains "{wrong_character}", which no job_id has, so it matches nothing.'
        return fault, f"{SYNTAX} {JOB_ID}"
    if glob.length() > JOB_ID_LENGTH or (glob.is_fixed() and glob.length() < JOB_ID_LENGTH):
        fault = f"matches only text of {glob.length()} characters" + ("" if glob.is_fixed() else " or more")
        return f"{fault}, and no job_id has this length.", JOB_ID
    return None


def _other_than(allowed: re.Pattern[str], text: str) -> str:
    return next((character for character in text if not allowed.fullmatch(character)), "")


def _globs(settings: Settings) -> Iterator[_Glob]:
    for index, route in enumerate(settings.routes):
        for name in ROUTE_GLOBS:
            yield from _globs_of(route, f"routes[{index}].{name}", name)
    for index, users in enumerate(settings.callers.users):
        if users.name:
            yield _Glob(key=f"callers.users[{index}].name", name="name", text=users.name)


def _globs_of(route: RouteSettings, key: str, name: str) -> Iterator[_Glob]:
    globs = getattr(route, name)
    for number, text in enumerate(globs):
        if text:  # an empty glob is another problem
            yield _Glob(key=f"{key}[{number}]" if len(globs) > 1 else key, name=name, text=text)
