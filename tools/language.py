"""Measure the language and the structure of the code base: `python -m tools.language` prints a table.

tests/unit/test_language.py fails on what must not come back: banned words, duplicate class names, tiny modules.
"""

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, median

REPOSITORY = Path(__file__).parents[1]
PACKAGE = "bridge"
PAGES = ("README.md", "CONTRIBUTING.md", "config.example.toml", "docs/**/*.md")
PROSE_FOLDERS = ("tests", "tools", "bench", "docs")  # whose docstrings and comments are read, beside bridge/
TINY_LINES = 40

BANNED = {
    "anew": r"anew",
    "nought": r"nought",
    "mend": r"mend(?:s|ed|ing|er)?",
    "whoever": r"(?:who|whom|whose)ever",
    "nobody": r"nobody(?:'s)?",
    "somebody": r"somebody(?:'s)?",
    "likewise": r"likewise",
    "thrice": r"thrice",
    "for ever": r"for\s+ever",
    "knows neither": r"knows?\s+neither",
    "must not know": r"must\s+not\s+know",
    "post office": r"post[\s-]offices?|postm[ae]n|parcels?|mailbags?|letter-?box(?:es)?",
    "carrier": r"carriers?",
}
"""What is banned, by the name in reports: whole words in any case."""

RATES = {
    "if": r"if",
    "where": r"where",
    "nobody, somebody, whoever": r"nobody|somebody|(?:who|whom|whose)ever",
    "say, tell, hear": r"sa(?:y|ys|id|ying)|t(?:ell|ells|old|elling)|hear(?:s|d|ing)?",
    "knows neither, knows no": r"knows?\s+(?:neither|no|nothing)",
    "archaic": r"anew|likewise|mend(?:s|ed|ing)?|nought|thrice|w?hence|thus|thereof|for\s+ever|by\s+and\s+by|alike",
}
"""Words whose rate per 1,000 words of docstrings and comments is shown."""

WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])", re.IGNORECASE)


_BANNED = {name: _words(pattern) for name, pattern in BANNED.items()}
_ANY_BANNED = _words("|".join(BANNED.values()))
_BETWEEN_WORDS = re.compile(r"[\s#\"']+")
_RATES = {name: _words(pattern) for name, pattern in RATES.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A docstring, a run of comment lines, a string or a page's line, and the line at which it begins."""

    line: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A banned word and where it stands."""

    path: str
    line: int
    word: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word}"


@dataclass(frozen=True, kw_only=True)
class Module:
    """One module of the package, parsed once."""

    name: str  # dotted, without __init__
    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    def import_lines(self) -> int:
        """Return how many lines import statements take, also inside functions."""
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes)

    def public_classes(self) -> list[str]:
        """Return the names of the classes at the top level that do not begin with an underscore."""
        return [node.name for node in self.tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]

    def imported(self) -> set[str]:
        """Return the dotted names that the module imports: modules, and what is taken out of modules."""
        found = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        return found


# -- reading -----------------------------------------------------------------------------------------------------------


@cache
def modules(root: Path = REPOSITORY) -> tuple[Module, ...]:
    """Return every module of the package below `root`, by its path."""
    return tuple(_module(path, root) for path in sorted((root / PACKAGE).rglob("*.py")))


def _module(path: Path, root: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name=name, path=path, text=text, tree=ast.parse(text))


def docstrings(tree: ast.Module) -> Iterator[Passage]:
    """Yield every string that stands as a statement: docstrings, and those behind constants and fields."""
    for node in _statements(tree):
        yield Passage(line=node.lineno, text=str(node.value))


def _statements(tree: ast.Module) -> list[ast.Constant]:
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    return [node for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def messages(tree: ast.Module) -> Iterator[Passage]:
    """Yield every other string, also the fixed parts of f-strings."""
    prose = {id(node) for node in _statements(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield Passage(line=node.lineno, text=str(node.value))


def comments(text: str) -> Iterator[Passage]:
    """Yield comments, those in lines that follow each other as one, without what tools read (noqa, type: ignore)."""
    run: list[str] = []
    begun = last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1 and run:
            yield Passage(line=begun, text="\n".join(run))
            run = []
        begun, last = (begun if run else token.start[0]), token.start[0]
        run.append(re.sub(r"^#+!?\s?|\b(?:noqa|type: ignore|fmt: \w+)\b\S*", "", token.string))
    if run:
        yield Passage(line=begun, text="\n".join(run))


def prose(module: Module) -> list[Passage]:
    """Return the docstrings and comments of a module."""
    return [*docstrings(module.tree), *comments(module.text)]


# -- guards ------------------------------------------------------------------------------------------------------------


def banned_in(text: str, first_line: int = 1) -> Iterator[tuple[int, str]]:
    """Yield line and name of every banned word in a text that begins at `first_line`."""
    for name, pattern in _BANNED.items():
        for match in pattern.finditer(text):
            yield first_line + text.count("\n", 0, match.start()), name


def banned_words(root: Path = REPOSITORY) -> list[Finding]:
    """Return the banned words of the package, of pages, and of the docstrings and comments of the other code."""
    found: list[Finding] = []
    for module in modules(root):
        if _may_hold_banned(module.text):
            found += _findings(module.path, root, [*prose(module), *messages(module.tree)])
    for path in sorted(path for folder in PROSE_FOLDERS for path in (root / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not _may_hold_banned(text):
            continue
        found += _findings(path, root, [*docstrings(ast.parse(text)), *comments(text)])
    for path in sorted(path for pattern in PAGES for path in root.glob(pattern)):
        found += _findings(path, root, [Passage(line=1, text=path.read_text(encoding="utf-8"))])
    return found


def _may_hold_banned(text: str) -> bool:
    """Return whether to look closer at a file: quick, since most files hold none."""
    return _ANY_BANNED.search(_BETWEEN_WORDS.sub(" ", text)) is not None


def _findings(path: Path, root: Path, passages: Iterable[Passage]) -> list[Finding]:
    name = path.relative_to(root).as_posix()
    found = {(line, word) for each in passages for line, word in banned_in(each.text, each.line)}
    return [Finding(path=name, line=line, word=word) for line, word in sorted(found)]


def duplicate_classes(root: Path = REPOSITORY) -> dict[str, list[str]]:
    """Return the modules of each public class name that stands for more than one class."""
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for module in modules(root):
        for name in module.public_classes():
            owners[name].append(module.name)
    return {name: where for name, where in sorted(owners.items()) if len(where) > 1}


def tiny_modules(root: Path = REPOSITORY) -> dict[str, str]:
    """Return the modules of less than 40 lines that only one other module imports, with that module."""
    every = modules(root)
    importers: defaultdict[str, set[str]] = defaultdict(set)
    names = {module.name for module in every}
    for module in every:
        for name in module.imported() & names - {module.name}:
            importers[name].add(module.name)
    tiny = [module for module in every if module.lines < TINY_LINES and module.path.name != "__init__.py"]
    return {module.name: next(iter(importers[module.name])) for module in tiny if len(importers[module.name]) == 1}


# -- the table ---------------------------------------------------------------------------------------------------------


def rates(passages: Iterable[Passage]) -> dict[str, float]:
    """Return for each word of the table how often it comes in 1,000 words."""
    text = "\n".join(each.text for each in passages)
    count = len(WORD.findall(text)) or 1
    return {name: 1000 * len(pattern.findall(text)) / count for name, pattern in _RATES.items()}


def measures(root: Path = REPOSITORY) -> dict[str, str]:
    """Return the rows of the table."""
    every = modules(root)
    sizes = [module.lines for module in every if module.path.name != "__init__.py"]
    lines = sum(module.lines for module in every)
    imports = sum(module.import_lines() for module in every)
    passages = [each for module in every for each in prose(module)]
    return {
        "modules, without __init__.py": str(len(sizes)),
        "lines": f"{lines:,}",
        "mean lines of a module": f"{mean(sizes):.0f}",
        "median lines of a module": f"{median(sizes):.0f}",
        "import lines": f"{imports:,} ({100 * imports / lines:.1f} %)",
        "public classes": str(sum(len(module.public_classes()) for module in every)),
        "public class names of several classes": str(len(duplicate_classes(root))),
        f"modules under {TINY_LINES} lines with one importer": str(len(tiny_modules(root))),
        "words in docstrings and comments": f"{len(WORD.findall(' '.join(each.text for each in passages))):,}",
        **{f"per 1,000: {name}": f"{rate:.2f}" for name, rate in rates(passages).items()},
        "banned words, everywhere": str(len(banned_words(root))),
    }


def main() -> None:
    """Print the table and each banned word; with --banned only those, and exit with 1 if there are any."""
    found = banned_words()
    if "--banned" in sys.argv[1:]:
        print("\n".join(map(str, found)))
        sys.exit(1 if found else 0)
    rows = measures()
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value:>14}" for name, value in rows.items()))
    print("\n".join(["", *map(str, found)]))


if __name__ == "__main__":
    main()
