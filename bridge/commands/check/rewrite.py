"""`bridge check --rewrite`: what the rules of a route would change in the names of cases."""
# ruff: noqa: PLC0415 -- most checks need no settings (70 ms) and, with --json, no rich (20 ms)

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bridge.domain.junit.repair.repair import Source, apply_filter
from bridge.domain.junit.repair.rewrite import CaseRenamer
from bridge.domain.junit.rewrite_rules import NameRewriter, RewriteRule, RuleFault, compile_rule
from bridge.domain.text_format import counted, printable
from bridge.errors import BridgeError

if TYPE_CHECKING:
    from rich.text import Text

MAX_SHOWN: Final = 20
"""Names before and after, of all files together."""

HOW: Final = "Name a TOML file with [[routes.rewrite]] tables, such as bridge.toml, after --rewrite."


def read_rules(path: Path, route: str) -> list[RewriteRule]:
    """Return the rules in a file: of `route`, or if it is empty, of the only route that has any; raise BridgeError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = tomllib.loads(text).get("routes", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BridgeError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}. {HOW}") from None
    routes = [found] if isinstance(found, dict) else found  # rules alone are read too, as the console offers them
    with_rules = [(index, each) for index, each in enumerate(routes) if isinstance(each, dict) and each.get("rewrite")]
    if route:
        with_rules = [(index, each) for index, each in with_rules if each.get("name") == route]
    if not with_rules:
        raise BridgeError(f"{path} has no rules{f' of the route {route}' if route else ''}. {HOW}")
    if len(with_rules) > 1:
        names = ", ".join(str(each.get("name", "")) for _, each in with_rules)
        raise BridgeError(f"{path} has rules of several routes: {names}. Choose one with --route.")
    index, chosen = with_rules[0]
    key = "routes" if isinstance(found, dict) else f"routes[{index}]"
    return [_rule(values, text, f"{key}.rewrite[{number}]") for number, values in enumerate(chosen["rewrite"])]


def _rule(values: Mapping[str, Any], text: str, key: str) -> RewriteRule:
    from bridge.settings.model import RewriteSettings
    from bridge.settings.toml_errors import line_of

    try:
        found = RewriteSettings.model_validate(values)
        rule = RewriteRule(attribute=found.attribute, pattern=found.pattern, replacement=found.replacement)
        compile_rule(rule)
    except RuleFault as fault:
        at = f"{key}.{fault.setting}"
        raise BridgeError(f"{at} (line {line_of(text, at)}): {fault.fault} {fault.remedy}") from None
    except ValueError:
        raise BridgeError(
            f"{key} (line {line_of(text, f'{key}.attribute')}): is not a rule. "
            "Use attribute (classname or name), pattern and replacement."
        ) from None
    return rule


class RewriteTrial:
    """Applies rules to one report after the other, as the gateway would, and remembers what changed."""

    def __init__(self, rules: Sequence[RewriteRule]) -> None:
        self._rules = rules
        self._names_changed = [0] * len(rules)
        self._shown: dict[tuple[str, str, str], None] = {}
        self._more = 0
        self._equal: list[tuple[str, str]] = []  # file, and name

    def chunks(self, name: str, source: Source) -> Iterator[bytes]:
        """Yield a report with its names rewritten."""
        names = _Recorder(self._rules)
        yield from apply_filter(CaseRenamer(names), source())
        for number, count in enumerate(names.names_changed):
            self._names_changed[number] += count
        for change in names.changes_of_names:
            if len(self._shown) < MAX_SHOWN or change in self._shown:
                self._shown[change] = None
            else:
                self._more += 1
        self._equal += [(name, equal) for equal in names.equal]

    def as_json(self) -> dict[str, object]:
        """Return what `--json` prints."""
        rules = zip(self._rules, self._names_changed, strict=True)
        return {
            "rules": [{"attribute": rule.attribute, "pattern": rule.pattern, "names": n} for rule, n in rules],
            "names": [{"attribute": what, "before": old, "after": new} for what, old, new in self._shown],
            "equal": [{"path": path, "name": name} for path, name in self._equal],
        }

    def lines(self) -> "Iterator[Text]":
        """Yield what was changed, for people: the rules with numbers of names, names before and after, collisions."""
        from rich.text import Text

        for number, (rule, count) in enumerate(zip(self._rules, self._names_changed, strict=True), 1):
            style = "" if count else "yellow"
            yield Text(f"Rule {number} ({rule.attribute}, {printable(rule.pattern)}): {counted(count, 'name')}.", style)
        for what, old, new in self._shown:
            yield Text.assemble(("  " + what, "dim"), f" {printable(old)} → ", (printable(new), "bold"))
        if self._more:
            yield Text(f"  and {self._more} more", "dim")
        for path, name in self._equal:
            equal = "several tests have this name now, which TestNod counts as one"
            yield Text(f"{printable(path)}: {printable(name)}: {equal}. Make the pattern narrower.", "red")


class _Recorder(NameRewriter):
    """Remembers distinct names before and after."""

    def __init__(self, rules: Sequence[RewriteRule]) -> None:
        super().__init__(rules)
        self.changes_of_names: dict[tuple[str, str, str], None] = {}

    def rewrite(self, attributes: Mapping[str, str]) -> Mapping[str, str]:
        found = super().rewrite(attributes)
        for name in ("classname", "name"):
            if found.get(name) != attributes.get(name) and len(self.changes_of_names) < 10 * MAX_SHOWN:
                self.changes_of_names[name, attributes[name], found[name]] = None
        return found
