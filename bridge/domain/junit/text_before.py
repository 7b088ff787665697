"""Finds where a report begins in a file that has other text first, such as what the tests printed."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from bridge.domain.junit.encoding import regroup
from bridge.domain.junit.wellformed import MAX_SHOWN_NAME, Source

BEGINNING: Final = re.compile(
    rb"(?:<\?xml\s[^<>]{0,1000}\?>(?:\s*<[!?][^<>]{0,1000}>){0,4}\s*)?"
    rb"<testsuites?[\s/>]"
)
OVERLAP: Final = 4 << 10  # bytes; longer than a match
NOT_TEXT: Final = re.compile(rb"</?(?:testsuites?|testcase|failure|error|skipped)[\s/>]|\xff\xfe|\xfe\xff")
"""Parts of another report, and the marks of UTF-16."""


class TextBefore(NamedTuple):
    """The text before a report."""

    size: int  # bytes
    lines: int  # line ends in it
    excerpt: str  # its first line, shortened
    ends_line: bool  # the report begins on a line of its own
    is_plain: bool  # nothing of another report is in it


def find_report(source: Source) -> TextBefore | None:
    """Return what precedes the first report in a file that does not begin as XML, None if it contains none."""
    window, at, lines, is_plain = b"", 0, 0, True
    first = b""
    for piece in regroup(source()):
        first = first or piece[:OVERLAP]
        window += piece
        found = BEGINNING.search(window)
        if found:
            before = window[: found.start()]
            return TextBefore(
                at + len(before),
                lines + before.count(b"\n"),
                _excerpt(first),
                ends_line=before.rstrip(b" \t").endswith((b"\n", b"\r")),
                is_plain=is_plain and not NOT_TEXT.search(before),
            )
        is_plain = is_plain and not NOT_TEXT.search(window)
        done = window[:-OVERLAP]
        at, lines, window = at + len(done), lines + done.count(b"\n"), window[len(done) :]
    return None


def without_first(source: Source, size: int) -> Iterator[bytes]:
    """Yield a file without its first `size` bytes."""
    left = size
    for chunk in source():
        if left < len(chunk):
            yield chunk[left:]
        left = max(0, left - len(chunk))


def _excerpt(start: bytes) -> str:
    lines = start.decode(errors="replace").strip("\ufeff\r\n\t ").splitlines() or [""]
    shown = "".join(character if character.isprintable() else "\ufffd" for character in lines[0])
    return shown if len(shown) <= MAX_SHOWN_NAME else f"{shown[:MAX_SHOWN_NAME]}…"
