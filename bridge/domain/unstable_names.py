"""Finds names of tests that are new in every build, what differs in them, and the rule that makes them the same.

TestNod identifies a test by classname and name. If a time, a version or an id is part of one, each build brings new
tests, and none has a history.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import field, replace
from itertools import chain, islice, pairwise, takewhile
from typing import Final, NamedTuple

from bridge.domain.junit.case_digest import FIELD
from bridge.domain.junit.name_tokens import BY_NAME, WORD, common_kind, escaped, pattern_of, tokens_of
from bridge.domain.junit.rewrite_rules import MAX_PATTERN, NameRewriter, RewriteRule, RuleFault
from bridge.domain.text_format import are, counted
from bridge.values import dataclass

MAX_CHANGED: Final = 250
"""Names that vanished, and names that appeared, that are compared for two builds: each costs 30 microseconds."""

MAX_TRIED: Final = 2_000
"""Names of each of two builds to which a rule is applied."""

MIN_NAMES: Final = 3
MIN_SHARE: Final = 0.5
"""If names changed once only, so many must have changed, and such a share of all: a new browser, not a new test."""

MAX_FINDINGS: Final = 10
MAX_VALUES: Final = 20  # of a finding, from which the form is read
MAX_CONTEXT: Final = 24  # characters around a token in a pattern
MAX_WORDS: Final = 12  # of a name that are compared one by one
ATTRIBUTES: Final = ("classname", "name")
_WORD_BEFORE: Final = re.compile(r"\A[0-9A-Za-z]+")
_PART_OF_WORD: Final = re.compile(r"[0-9A-Za-z]+\Z")
_WORD: Final = re.compile(r"[0-9A-Za-z]{4,}")
_LONG_WORD: Final = re.compile(r"[0-9A-Za-z_+/=-]{10,}")
_IN_TEMPORARY: Final = re.compile(r"(?:/tmp/|/var/folders/|/dev/shm/|\\Temp\\)[^\s'\"]*\Z")
_MARK: Final = "\x00"


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleTrial:
    """A rule, and what it would do to the two builds in which most names changed, with the rules before it."""

    rule: RewriteRule
    changed: int  # names that changed between them
    cured: int  # of these, names that both builds have with the rule
    equal: int  # tests of the newer build that would share a name with another one

    @property
    def toml(self) -> str:
        """The rule as a table of the settings."""
        values = (("attribute", self.rule.attribute), ("pattern", self.rule.pattern))
        lines = [f"{name} = {_toml(value)}" for name, value in (*values, ("replacement", self.rule.replacement))]
        return "\n".join(("[[routes.rewrite]]", *lines))


@dataclass(frozen=True, kw_only=True, slots=True)
class UnstableNames:
    """Names that differ from build to build in parts of one kind."""

    attribute: str  # classname or name
    kind: str  # of name_tokens.py
    names: int  # that changed between the two builds in which most did
    changes: int  # pairs of consecutive builds between which they changed
    pairs: int
    before: str  # an example
    after: str
    is_path: bool  # it is in a folder of temporary files
    trial: RuleTrial | None  # None: no rule helps

    @property
    def sentence(self) -> str:
        """Return what was found, for people."""
        tests = counted(self.names, "test")
        noun = "a temporary path" if self.is_path else BY_NAME[self.kind].noun
        because = f"because the {self.attribute} contains {noun}: “{self.before}” became “{self.after}”."
        if self.changes == 1:
            return f"{tests} became new to TestNod once in {self.pairs + 1} builds, {because}"
        how_often = "with every build" if self.changes == self.pairs else f"with {self.changes} of {self.pairs} builds"
        return f"{tests} {are(self.names)} new to TestNod {how_often}, {because}"


@dataclass(kw_only=True, slots=True)
class _Found:
    """What was found of one kind in one attribute, with the same text around it."""

    values: dict[str, None] = field(default_factory=dict)
    lefts: dict[str, None] = field(default_factory=dict)  # texts before the token
    rights: dict[str, None] = field(default_factory=dict)
    names: Counter[int] = field(default_factory=Counter)  # by the number of the pair of builds
    example: tuple[str, str] = ("", "")


class _Pair(NamedTuple):
    """Two consecutive builds, and how many names each name that is compared stands for."""

    number: int
    weight: float


Key = tuple[str, str]
"""Attribute and kind."""


def find_unstable_names(builds: Sequence[Sequence[str]]) -> list[UnstableNames]:
    """Return what differs in the names of consecutive builds, most names first.

    `builds` has the identities of the cases of each build, the oldest build first.
    """
    known = [dict.fromkeys(identities) for identities in builds]
    found: dict[Key, _Found] = defaultdict(_Found)
    words: dict[tuple[str, str, str], _Found] = defaultdict(_Found)
    for pair, (older, newer) in enumerate(pairwise(known)):
        gone = [identity for identity in older if identity not in newer]
        come = [identity for identity in newer if identity not in older]
        if gone and come:
            number = _Pair(pair, max(1.0, len(gone) / MAX_CHANGED))
            rest = _compare_tokens(number, gone[:MAX_CHANGED], come[:MAX_CHANGED], found)
            _compare_words(number, *rest, words)
    _add_words(words, found)
    pairs = max(0, len(known) - 1)
    certain = [(key, each) for key, each in found.items() if _is_pattern(each, known)]
    certain = sorted(certain, key=lambda each: -max(each[1].names.values()))[:MAX_FINDINGS]
    return _with_rules(certain, known, pairs)


def _is_pattern(found: _Found, builds: Sequence[Collection[str]]) -> bool:
    if len(found.names) > 1:  # unless it has ended: no rule is proposed that was set some builds ago
        pairs = len(builds) - 1
        return pairs - 1 - max(found.names) <= 2 * pairs / len(found.names)
    [(pair, names)] = found.names.items()
    return names >= MIN_NAMES and names >= MIN_SHARE * len(builds[pair])


# -- what differs ------------------------------------------------------------------------------------------------


def _masked(identity: str) -> tuple[str, list[tuple[str, str, str, str, str]]]:
    """Return an identity with a mark for each token, and of each token attribute, kind, value, and the text around."""
    mask, tokens = [], []
    for attribute, text in zip(ATTRIBUTES, identity.split(FIELD, 1), strict=True):
        found = list(tokens_of(text))
        ends = [0, *(token.end for token in found)]
        starts = [*(token.start for token in found), len(text)]
        mask += [text[end:start] for end, start in zip(ends, starts, strict=True)]
        mask.append(FIELD)
        for at, token in enumerate(found):
            right = text[token.end : starts[at + 1]]
            right = right if starts[at + 1] == len(text) else _PART_OF_WORD.sub("", right)
            tokens.append((attribute, token.kind, token.value, text[ends[at] : token.start], right))
    return _MARK.join(mask), tokens


def _compare_tokens(
    pair: _Pair, gone: Sequence[str], come: Sequence[str], found: dict[Key, _Found]
) -> tuple[list[str], list[str]]:
    """Compare names that are equal but for their tokens; return those that have no counterpart."""
    sides: tuple[dict[str, list[str]], dict[str, list[str]]] = (defaultdict(list), defaultdict(list))
    tokens_by_name = {}
    for side, identities in zip(sides, (gone, come), strict=True):
        for identity in identities:
            mask, tokens_by_name[identity] = _masked(identity)
            side[mask].append(identity)
    before, after = sides
    for mask in before.keys() & after.keys():
        old, new = before[mask], after[mask]
        columns = zip(*(tokens_by_name[identity] for identity in (*old, *new)), strict=True)
        counted_kinds = set[Key]()  # a name may have several parts of a kind
        for column in columns:
            was, now = {token[2] for token in column[: len(old)]}, {token[2] for token in column[len(old) :]}
            if len(was & now) * 2 >= min(len(was), len(now)):
                continue  # parameters: both builds have the same
            attribute, _, _, left, right = column[0]
            kind = common_kind({token[1] for token in column})
            names = 0 if (attribute, kind) in counted_kinds else min(len(old), len(new))
            counted_kinds.add((attribute, kind))
            _note(found[attribute, kind], pair, (old[0], new[0]), attribute, left, right, names)
            for value in (*was, *now):
                if len(found[attribute, kind].values) < MAX_VALUES:
                    found[attribute, kind].values[value] = None
    without = [[one for mask, names in side.items() if mask not in other for one in names]
               for side, other in ((before, after), (after, before))]  # fmt: skip
    return without[0], without[1]


def _note(
    found: _Found, pair: _Pair, example: tuple[str, str], attribute: str, left: str, right: str, names: int
) -> None:
    found.names[pair.number] += round(names * pair.weight)
    found.lefts[left] = found.rights[right] = None
    at = ATTRIBUTES.index(attribute)
    found.example = (example[0].split(FIELD, 1)[at], example[1].split(FIELD, 1)[at])


def _compare_words(
    pair: _Pair, gone: Sequence[str], come: Sequence[str], words: dict[tuple[str, str, str], _Found]
) -> None:
    """Compare names that are equal but for one word: ids of letters alone look like words."""
    before = {key: (word, identity) for identity in gone for key, word in _without_each_word(identity)}
    for identity in come:
        for key, word in _without_each_word(identity):
            if key in before and before[key][0] != word:
                attribute, left, right = key
                each = words[key]
                each.names[pair.number] += round(pair.weight)
                each.lefts[left.rpartition(FIELD)[2]] = each.rights[right.partition(FIELD)[0]] = None
                at = ATTRIBUTES.index(attribute)
                each.example = (before[key][1].split(FIELD, 1)[at], identity.split(FIELD, 1)[at])
                each.values[before[key][0]] = each.values[word] = None


def _without_each_word(identity: str) -> Iterator[tuple[tuple[str, str, str], str]]:
    border = identity.index(FIELD)
    for word in islice(chain(_WORD.finditer(identity), _LONG_WORD.finditer(identity)), MAX_WORDS):
        attribute = ATTRIBUTES[word.start() > border]
        yield (attribute, identity[: word.start()], identity[word.end() :]), word[0]


def _add_words(words: dict[tuple[str, str, str], _Found], found: dict[Key, _Found]) -> None:
    """Add words that are others in every build; a test that was renamed once is none."""
    for (attribute, _, _), each in words.items():
        if len(each.names) < 2 or len(each.values) <= len(each.names):
            continue
        total = found[attribute, WORD.name]
        total.names += each.names
        total.example = each.example
        for name in ("lefts", "rights", "values"):
            getattr(total, name).update(getattr(each, name))


# -- rules -------------------------------------------------------------------------------------------------------


def _with_rules(
    found: Sequence[tuple[Key, _Found]], builds: Sequence[Collection[str]], pairs: int
) -> list[UnstableNames]:
    """Return the findings with rules. If a name has parts of several kinds, only all rules together help."""
    rules: list[RewriteRule] = []
    results = []
    for (attribute, kind), each in found:
        pair, names = each.names.most_common(1)[0]
        trial = _best_trial(_rules(attribute, kind, each), rules, builds[pair], builds[pair + 1])
        if trial is not None:
            rules.append(trial.rule)
        results.append(
            UnstableNames(
                attribute=attribute,
                kind=kind,
                names=names,
                changes=len(each.names),
                pairs=pairs,
                before=each.example[0],
                after=each.example[1],
                is_path=all(_IN_TEMPORARY.search(left) for left in each.lefts),
                trial=trial,
            )
        )
    together = max((each.trial.cured for each in results if each.trial is not None), default=0)
    return [each if each.trial is None or together else replace(each, trial=None) for each in results]


def _rules(attribute: str, kind: str, found: _Found) -> Iterator[RewriteRule]:
    """Yield rules that may help, the plainest first."""
    shared = _common_end(found.lefts), _common_start(found.rights)
    contexts = [shared] if any(shared) else []
    if not BY_NAME[kind].needs_context:
        contexts.insert(0, ("", ""))
    elif not any(shared):
        lefts = Counter(_last_word(left) for left in found.lefts if _last_word(left))
        contexts += [(left, "") for left, _ in lefts.most_common(3)]
    at_end = all(not right for right in found.rights)
    for left, right in contexts:
        before = left if len(left) <= MAX_CONTEXT else _WORD_BEFORE.sub("", left[-MAX_CONTEXT:])
        is_named = bool(before) and kind == "version"  # Chrome 120.0: what follows may change too
        after = "" if is_named else right[:MAX_CONTEXT]
        end = "$" if at_end and BY_NAME[kind].needs_context and not is_named else ""
        pattern = f"{escaped(before)}{pattern_of(kind, found.values)}{escaped(after)}{end}"
        replacement = f"{before}{_MARK}{after}".replace("\\", "\\\\").replace(_MARK, BY_NAME[kind].placeholder)
        yield RewriteRule(attribute=attribute, pattern=pattern, replacement=replacement)


def _common_start(texts: Collection[str]) -> str:
    same = takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return "".join(column[0] for column in same)


def _common_end(texts: Collection[str]) -> str:
    return _common_start([text[::-1] for text in texts])[::-1]


def _last_word(text: str) -> str:
    """Return the end of a text from the beginning of its last word on."""
    found = re.search(r"[^\W_]+[\W_]*\Z", text)
    return found[0] if found else ""


def _best_trial(
    candidates: Iterator[RewriteRule],
    earlier: Sequence[RewriteRule],
    older: Collection[str],
    newer: Collection[str],
) -> RuleTrial | None:
    """Return the trial of the candidate that makes the fewest tests equal, and then cures the most names."""
    best: RuleTrial | None = None
    for rule in candidates:
        trial = try_rule(rule, earlier, older, newer)
        if trial is None:
            continue
        if best is None or (trial.equal, -trial.cured) < (best.equal, -best.cured):
            best = trial
        if not best.equal and best.cured == best.changed:
            break
    return best


def try_rule(
    rule: RewriteRule, earlier: Sequence[RewriteRule], older: Collection[str], newer: Collection[str]
) -> RuleTrial | None:
    """Return what a rule does to two builds after `earlier` rules; None if it cannot be used, or changes nothing."""
    if len(rule.pattern) > MAX_PATTERN:
        return None
    try:
        names = NameRewriter([*earlier, rule])
    except RuleFault:
        return None
    sides = [list(islice(build, MAX_TRIED)) for build in (older, newer)]
    before, after = ([_rewritten(names, identity) for identity in side] for side in sides)
    if not names.names_changed[-1]:
        return None
    changed = {old for old in sides[0] if old not in newer}
    kept = set(after)
    cured = sum(1 for old, new in zip(sides[0], before, strict=True) if old in changed and new in kept)
    return RuleTrial(rule=rule, changed=len(changed), cured=cured, equal=len(after) - len(kept))


def _rewritten(names: NameRewriter, identity: str) -> str:
    classname, _, name = identity.partition(FIELD)
    found = names.rewrite({"classname": classname, "name": name})
    return f"{found['classname']}{FIELD}{found['name']}"


def _toml(text: str) -> str:
    """Return a string of TOML: a literal one for patterns with backslashes."""
    is_literal = "\\" in text and "'" not in text and text.isprintable()
    return f"'{text}'" if is_literal else json.dumps(text, ensure_ascii=not text.isprintable())
