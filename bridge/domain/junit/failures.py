"""Describes a failed case in one line: test, file and line, message."""

import re
from collections.abc import Collection, Iterator
from typing import Final, Protocol

from bridge.domain.junit.result import Failure, full_name

MAX_NAME: Final = 120  # characters of a name or a path
MAX_MESSAGE: Final = 160
HEAD_SIZE: Final = 4_000  # characters of the text of a failure that are searched for its location
TAIL_SIZE: Final = 2_000  # pytest writes the location last
MAX_CHUNKS: Final = 200_000  # of one text that are looked at: a text of references comes character by character
MAX_PATH: Final = 300  # characters before an extension

_SOURCES: Final = frozenset(
    [
        "bats",
        "c",
        "cc",
        "clj",
        "cljs",
        "cpp",
        "cs",
        "cxx",
        "dart",
        "erl",
        "ex",
        "exs",
        "feature",
        "fs",
        "go",
        "groovy",
        "h",
        "hpp",
        "hs",
        "java",
        "jl",
        "js",
        "jsx",
        "cjs",
        "mjs",
        "kt",
        "kts",
        "lua",
        "m",
        "ml",
        "mm",
        "nim",
        "pas",
        "php",
        "pl",
        "pm",
        "py",
        "R",
        "r",
        "rb",
        "robot",
        "rs",
        "scala",
        "sh",
        "swift",
        "t",
        "ts",
        "tsx",
        "mts",
        "cts",
        "vb",
        "vue",
    ]
)
_LINE_OF_PATH: Final = re.compile(r"\.([A-Za-z]{1,7})(?::line |:|\()(\d{1,7})\b")
_LINE_OF_FILE: Final = re.compile(r'[Ff]ile ("?)([^",\n]{1,300})\1, line (\d{1,7})')
_WORDS: Final = re.compile(r"\w+")
_LOCATION_LINE: Final = re.compile(r"\S+\.\w+(?::\d+)+:?\s*\Z")
_LIBRARIES: Final = re.compile(
    r"node_modules|site-packages|dist-packages|node:|internal/|/lib/python|unittest/|/usr/|/rustc/|\A<"
    r"|\.(?:java|kt|groovy|scala)\Z"  # stack traces name no folders, so only the test's own file is recognized
)


class Attributes(Protocol):
    """The attributes of an element."""

    def get(self, key: str, /) -> str | None: ...


class FailureText:
    """The first and the last characters of the text of a failure, however it is cut into chunks."""

    __slots__ = ("_chunks_left", "_head", "_tail", "_tail_size", "attributes")

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self._head = ""
        self._tail: list[str] = []
        self._tail_size = 0
        self._chunks_left = MAX_CHUNKS

    def feed(self, text: str) -> bool:
        """Append a chunk of the text; return whether more may be fed."""
        room = HEAD_SIZE - len(self._head)
        if room:
            self._head += text[:room]
        if len(text) > room:
            self._tail.append(text[max(room, len(text) - TAIL_SIZE) :])
            self._tail_size += len(self._tail[-1])
            if self._tail_size > 10 * TAIL_SIZE:  # seldom, because a chunk may be a single character
                self._tail = [self._end()]
                self._tail_size = len(self._tail[0])
        self._chunks_left -= 1
        return self._chunks_left > 0

    @property
    def text(self) -> str:
        return self._head + self._end()

    def _end(self) -> str:
        return "".join(self._tail)[-TAIL_SIZE:]


def describe_failure(case: Attributes, outcome: FailureText) -> Failure:
    """Return a failed case as people read it first.

    File and line are those of the case's or the outcome's attributes, else those that the message or the text of the
    outcome names: of the test's own file if there is such a line, else the first one that is not a library's.
    """
    name, classname = one_line(case.get("name"), MAX_NAME), one_line(case.get("classname"), MAX_NAME)
    message, text = (outcome.attributes.get("message") or "")[:HEAD_SIZE], outcome.text
    file, line = _stated_location(outcome.attributes)
    if not file:
        file, line = _stated_location(case)
    if line is None:
        found = _find_location(f"{message}\n{text}", _WORDS.findall(f"{classname} {file}"))
        if found and (not file or _base(found[0]) == _base(file)):
            file, line = found
    summary = _summary(message, name) or _summary(text, name).partition("\n")[0]
    return Failure(
        name=name,
        classname=classname,
        message=one_line(summary or outcome.attributes.get("type"), MAX_MESSAGE),
        file=one_line(file, MAX_NAME),
        line=line,
    )


def describe_suite_error(suite: str, outcome: FailureText) -> Failure:
    """Return an error outside any test."""
    described = describe_failure({}, outcome)
    return Failure(name="", classname=suite, message=described.message, file=described.file, line=described.line)


def test_name(case: Attributes) -> str:
    """Return classname and name of a case, shortened."""
    return full_name(one_line(case.get("classname"), MAX_NAME), one_line(case.get("name"), MAX_NAME))


def one_line(text: str | None, limit: int) -> str:
    """Return text on one line, cut to `limit` characters."""
    line = " ".join((text or "")[: 4 * limit].split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def _stated_location(attributes: Attributes) -> tuple[str, int | None]:
    file = attributes.get("file") or attributes.get("filepath") or ""
    number = attributes.get("line") or attributes.get("lineno") or ""
    return file, int(number) if file and number.isascii() and number.isdigit() and len(number) < 8 else None


def _find_location(text: str, names: Collection[str]) -> tuple[str, int] | None:
    first = None
    seen: set[str] = set()  # a stack trace names a file again and again
    for file, number in _locations(text):
        if file in seen:
            continue
        seen.add(file)
        if _base(file).partition(".")[0] in names:
            return file, number
        if first is None and not _LIBRARIES.search(file):
            first = file, number
    return first


def _locations(text: str) -> Iterator[tuple[str, int]]:
    """Yield `path:12`, `path(12)` and `path:line 12`, then `file "path", line 12`."""
    for match in _LINE_OF_PATH.finditer(text):
        if match[1] in _SOURCES:
            yield f"{_stem_before(text, match.start())}.{match[1]}", int(match[2])
    if ", line " in text:
        for match in _LINE_OF_FILE.finditer(text):
            yield match[2], int(match[3])


def _stem_before(text: str, end: int) -> str:
    """Return the path before its extension: what follows the last blank, bracket or quote."""
    before = text[max(text.rfind("\n", 0, end), end - MAX_PATH, 0) : end]
    stem = before.rpartition("(")[2].rpartition(" ")[2].rpartition("\t")[2].lstrip("\n\"'`[<{")
    return stem.rpartition("://")[2]


def _base(file: str) -> str:
    return file.replace("\\", "/").rpartition("/")[2]


def _summary(text: str, name: str) -> str:
    """Return the lines that remain without leading ones that repeat the name of the test or hold only a location."""
    lines = [line.strip() for line in text.splitlines()]
    while lines and (not lines[0] or (name and lines[0].endswith(name)) or _LOCATION_LINE.match(lines[0], 0, MAX_PATH)):
        del lines[0]
    return "\n".join(lines)
