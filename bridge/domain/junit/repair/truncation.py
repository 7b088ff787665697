"""Closes a report that ends too early: its finished cases stay.

The unfinished case stays as failed if its failure or error has begun, else it goes: whether it passed is unknown.
"""

from collections.abc import Mapping

from lxml import etree

from bridge.domain.junit.counter import CASE, ERROR, FAILURE, KINDS, local
from bridge.domain.junit.repair.xml_writer import XmlWriter, parser_into


class TruncationRepairer:
    """Writes a truncated UTF-8 document anew up to its last sound place, and ends there what is open.

    Memory is constant, so it takes two runs: the first finds `unfinished`, the second stops there, or keeps the case
    if it has `failed`. `begun` is the name in a start tag that the end of the file cuts off: a failure or an error
    that begins so is written without attributes. The document's opening must be free of entities, as the gate has it.
    """

    def __init__(self, stop_at: int | None = None, *, begun: str = "") -> None:
        self._target = _Cases(stop_at)
        self._parser = parser_into(self._target)
        self._begun = begun
        self._ended = False
        self.unfinished: int | None = None  # from the close on: the outermost open case, by its number among all tags
        self.failed = False  # from the close on: that case holds a failure or an error
        self.holds_cases = False  # from the close on: finished cases stand within that case

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
        if self._begun:
            self._target.begin(self._begun)
        self.unfinished = self._target.unfinished
        self.failed, self.holds_cases = self._target.failed, self._target.holds_cases
        self._target.close_open()
        return self._target.take() if self._target.tags else b""


class _StopHere(Exception):
    """The unfinished case begins."""


class _Cases(XmlWriter):
    """Follows which case is open, and stops before a given start tag."""

    def __init__(self, stop_at: int | None) -> None:
        super().__init__()
        self.tags = 0
        self.unfinished: int | None = None
        self.failed = False  # so is the open case
        self.holds_cases = False  # so does the open case
        self._stop_at = stop_at
        self._depth = 0
        self._case_depth = 0
        self._case_tag = ""

    def start(self, tag: str, attributes: Mapping[str, str], nsmap: Mapping[str, str]) -> None:
        if self.tags + 1 == self._stop_at:
            raise _StopHere
        self.tags += 1
        self._depth += 1
        kind = KINDS.get(local(tag))
        if self.unfinished is None and kind == CASE:
            self.unfinished, self._case_depth, self._case_tag = self.tags, self._depth, tag
        elif kind in (FAILURE, ERROR) and self._depth == self._case_depth + 1:
            self.failed = True
        super().start(tag, attributes, nsmap)

    def end(self, tag: str) -> None:
        if self._depth == self._case_depth:
            self.unfinished, self._case_depth = None, 0
            self.failed = self.holds_cases = False
        elif self._case_depth and KINDS.get(local(tag)) == CASE:
            self.holds_cases = True
        self._depth -= 1
        super().end(tag)

    def begin(self, name: str) -> None:
        """Begin a failure or an error of the open case, of whose tag only the name is known."""
        if self._case_depth and self._depth == self._case_depth and KINDS.get(name) in (FAILURE, ERROR):
            namespace = self._case_tag.removesuffix(local(self._case_tag))
            self.start(f"{namespace}{name}", {}, {})
