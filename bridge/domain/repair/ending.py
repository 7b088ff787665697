"""Closes a report that ends too early: its finished cases stay, the unfinished one goes.

It knows which elements are cases; whether a report ends too early is the gate's to say.
"""

from collections.abc import Mapping

from lxml import etree

from bridge.domain.junit.counts import CASE, KINDS, local
from bridge.domain.repair.writer import Writer, parser_into


class Closer:
    """Writes a truncated UTF-8 document anew up to its last sound place, and ends there what is open.

    Memory is constant, so it takes two runs: the first finds `unfinished`, the second stops there. The document's
    opening must be free of entities, as the gate has it.
    """

    def __init__(self, stop_at: int | None = None) -> None:
        self._target = _Cases(stop_at)
        self._parser = parser_into(self._target)
        self._ended = False
        self.unfinished: int | None = None  # from the close on: the outermost open case, by its number among all tags

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes, give those that are ready; what follows the end is ignored."""
        if not self._ended:
            try:
                self._parser.feed(piece)
            except (etree.XMLSyntaxError, _StopHere):
                self._ended = True
        return self._target.take() if self._target.tags else b""

    def close(self) -> bytes:
        """Give the ends of all that was open; nothing when not even the root had begun."""
        if not self._ended:
            try:
                self._parser.close()
            except (etree.XMLSyntaxError, _StopHere):
                self._ended = True
        self.unfinished = self._target.unfinished
        self._target.close_open()
        return self._target.take() if self._target.tags else b""


class _StopHere(Exception):
    """The unfinished case begins."""


class _Cases(Writer):
    """Follows which case is open, and stops before a given start tag."""

    def __init__(self, stop_at: int | None) -> None:
        super().__init__()
        self.tags = 0
        self.unfinished: int | None = None
        self._stop_at = stop_at
        self._depth = 0
        self._case_depth = 0

    def start(self, tag: str, attributes: Mapping[str, str], nsmap: Mapping[str, str]) -> None:
        if self.tags + 1 == self._stop_at:
            raise _StopHere
        self.tags += 1
        self._depth += 1
        if self.unfinished is None and KINDS.get(local(tag)) == CASE:
            self.unfinished, self._case_depth = self.tags, self._depth
        super().start(tag, attributes, nsmap)

    def end(self, tag: str) -> None:
        if self._depth == self._case_depth:
            self.unfinished, self._case_depth = None, 0
        self._depth -= 1
        super().end(tag)
