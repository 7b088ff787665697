"""Rules that replace parts of the names of test cases, so that a test has the same name in every build.

`[[routes.rewrite]]` has the rules of a route. Patterns are run by RE2, whose time is linear in the length of a name
whatever the pattern (docs/decisions/0036-rewrite-rules.md).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bridge.domain.text_format import counted
from bridge.values import dataclass

MAX_RULES: Final = 20
"""Of one route: each costs about a microsecond for each name."""

MAX_PATTERN: Final = 500
MAX_REPLACEMENT: Final = 200
MAX_REWRITTEN: Final = 4_000
"""Characters of a name that rules apply to: a longer one is left as it is."""

MAX_TRACKED: Final = 50_000
"""Cases of which it is noticed that their names have become equal."""

MAX_NAMED: Final = 2  # of those, in a sentence
MAX_SHOWN: Final = 120  # characters of a name in a sentence

_MEMORY_BYTES: Final = 2 << 20  # that RE2 may use for one pattern
_ESCAPE: Final = re.compile(r"\\(?:([0-9])|g<([A-Za-z_0-9]+)>|(\\)|(.?))", re.DOTALL)
SYNTAX: Final = "Use the syntax of RE2, which has no lookaround and no references: github.com/google/re2/wiki/Syntax."


@dataclass(frozen=True, kw_only=True, slots=True)
class RewriteRule:
    r"""Replaces every match of `pattern` in one attribute of the test cases; `replacement` may have groups: `\1`."""

    attribute: str  # classname or name
    pattern: str
    replacement: str = ""


class RuleFault(Exception):
    """A rule cannot be used. `setting` is pattern or replacement; `fault` and `remedy` are sentences."""

    def __init__(self, setting: str, fault: str, remedy: str) -> None:
        super().__init__(f"{setting} {fault} {remedy}")
        self.setting, self.fault, self.remedy = setting, fault, remedy


class _Compiled(NamedTuple):
    attribute: str
    pattern: Any  # re2's, which has no types
    template: Sequence[str | int]  # text, and the numbers of groups


def compile_rule(rule: RewriteRule) -> _Compiled:
    """Return a rule that can be applied; raise RuleFault."""
    import re2  # noqa: PLC0415 -- few routes have rules

    if not rule.pattern:
        raise RuleFault(
            "pattern", "is missing.", "Set it to a regular expression for what differs from build to build."
        )
    for setting, text, limit in (
        ("pattern", rule.pattern, MAX_PATTERN),
        ("replacement", rule.replacement, MAX_REPLACEMENT),
    ):
        if len(text) > limit:
            raise RuleFault(setting, f"is longer than {limit} characters.", "Use several shorter rules.")
        if not text.isprintable():
            raise RuleFault(setting, "has a character that is not printable.", r"Remove it; a pattern may have \t.")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY_BYTES
    try:
        pattern = re2.compile(rule.pattern, options)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if error.args else "it cannot be compiled"
        raise RuleFault("pattern", f"is not a regular expression: {reason}.", SYNTAX) from None
    return _Compiled(rule.attribute, pattern, _template(rule.replacement, pattern))


def _template(text: str, pattern: Any) -> list[str | int]:
    """Return the pieces of a replacement. RE2's own templates garble text that is not Latin-1."""
    pieces: list[str | int] = []
    at = 0
    for found in _ESCAPE.finditer(text):
        pieces.append(text[at : found.start()])
        at = found.end()
        number, name, backslash, _ = found.groups()
        if backslash:
            pieces.append("\\")
            continue
        group = name if number is None else number
        index = int(group) if group and group.isdigit() else pattern.groupindex.get(group)
        if group is None or index is None or index > pattern.groups:
            what = "a backslash before another character" if group is None else f"the group {group}"
            have = f"The pattern has {counted(pattern.groups, 'group')}."
            raise RuleFault(
                "replacement", f"has {what}, which means nothing.", rf"{have} Write \\ for a backslash, \1 for a group."
            )
        pieces.append(index)
    pieces.append(text[at:])
    return [piece for piece in pieces if piece != ""]


class NameRewriter:
    """Applies rules in order to the attributes of one case after the other, and counts what it did."""

    def __init__(self, rules: Sequence[RewriteRule]) -> None:
        self._rules = [compile_rule(rule) for rule in rules]
        self.names_changed = [0] * len(rules)  # by each rule
        self.left_empty = 0  # names of which a rule would have left nothing
        self.equal: list[str] = []  # the first names that several cases have only now
        self.equal_count = 0
        self._before: dict[int, int] = {}  # the identity of a case after the rules, and before them
        self._seen_equal: set[int] = set()
        self._cache: dict[tuple[str, str], tuple[str, list[int]]] = {}

    @property
    def changed(self) -> bool:
        """Return whether any name was changed."""
        return any(self.names_changed)

    def rewrite(self, attributes: Mapping[str, str]) -> Mapping[str, str]:
        """Return the attributes of a case with its names rewritten."""
        changed: dict[str, str] = {}
        for attribute in ("classname", "name"):
            value = attributes.get(attribute)
            if value and (found := self._applied(attribute, value)) != value:
                changed[attribute] = found
        rewritten = {**attributes, **changed} if changed else attributes
        self._track(attributes, rewritten)
        return rewritten

    def _applied(self, attribute: str, value: str) -> str:
        """Return a value after all rules for its attribute; the last ones are remembered, as classnames repeat."""
        known = self._cache.get((attribute, value))
        if known is None:
            known = self._run(attribute, value)
            if len(self._cache) >= 2:
                self._cache.clear()
            self._cache[attribute, value] = known
        for number in known[1]:
            self.names_changed[number] += 1
        return known[0]

    def _run(self, attribute: str, value: str) -> tuple[str, list[int]]:
        by: list[int] = []
        if len(value) > MAX_REWRITTEN:
            return value, by
        for number, rule in enumerate(self._rules):
            if rule.attribute != attribute or len(value) > MAX_REWRITTEN:
                continue
            found = rule.pattern.sub(lambda match, rule=rule: _expanded(match, rule.template), value)
            if found != value and not found.strip():
                self.left_empty += 1
            elif found != value:
                by.append(number)
                value = found
        return value, by

    def _track(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        identity = hash((after.get("classname"), after.get("name")))
        was = hash((before.get("classname"), before.get("name")))
        known = self._before.get(identity)
        if known is None:
            if len(self._before) < MAX_TRACKED:
                self._before[identity] = was
        elif known != was and identity not in self._seen_equal:
            self._seen_equal.add(identity)
            self.equal_count += 1
            if len(self.equal) < MAX_NAMED:
                self.equal.append(f"{after.get('classname', '')} {after.get('name', '')}".strip())

    def changes(self) -> tuple[str, ...]:
        """Return what was done, as sentences for people; empty if nothing was."""
        by_rule = [(number, count) for number, count in enumerate(self.names_changed, 1) if count]
        sentences = []
        if by_rule:
            sentences.append(f"Names rewritten: {', '.join(f'{count} by rule {number}' for number, count in by_rule)}.")
        if self.equal_count:
            named = ", ".join(f'"{name[:MAX_SHOWN]}"' for name in self.equal)
            what = "name" if self.equal_count == 1 else "names"
            sentences.append(
                f"Rewriting gave several tests the same {what}, which TestNod counts as one test each: "
                f"{named}{', …' if self.equal_count > len(self.equal) else ''}."
            )
        if self.left_empty:
            left = counted(self.left_empty, "name")
            sentences.append(f"Left as they are, because a rule leaves nothing of them: {left}.")
        return tuple(sentences)


def _expanded(match: Any, template: Sequence[str | int]) -> str:
    return "".join(piece if isinstance(piece, str) else match[piece] or "" for piece in template)
