"""What mkdocs needs to make a site of pages that are written for a repository: mkdocs.yml names this file.

Pages outside docs/ are added below `repository/`. Links to them lead there; links to other files of the repository
become plain text, because a site has none of them.
"""
# ruff: noqa: INP001 -- docs/ is no package

import posixpath
import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
DOCS = "docs/"
ADDED = "repository/"
PAGES = (
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "deploy/README.md",
)
"""Pages of the repository outside docs/ that the site has, too."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"(?ms)^```.*?^```$|`[^`\n]+`")


def heading_id(text: str, separator: str = "-") -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", separator)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages outside docs/."""
    from mkdocs.structure.files import File  # noqa: PLC0415 -- tests read `heading_id` without mkdocs

    for name in PAGES:
        files.append(File.generated(config, f"{ADDED}{name}", content=(REPOSITORY / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001 -- as mkdocs calls it
    """Return the page with links that lead within the site."""
    here = page.file.src_uri
    inside = [match.span() for match in _CODE.finditer(markdown)]

    def changed(match: re.Match[str]) -> str:
        is_code = any(start <= match.start() < end for start, end in inside)
        return match[0] if is_code else link(here, *match.groups())

    return _LINK.sub(changed, markdown)


def link(here: str, image: str, text: str, target: str) -> str:
    """Return a link of the page `here` of the site as it must be there."""
    place, hash_, anchor = target.partition("#")
    if not place or "://" in place:
        return f"{image}[{text}]({target})"
    source = here.removeprefix(ADDED) if here.startswith(ADDED) else f"{DOCS}{here}"
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), place))
    if path == "docs/decisions":
        path = "docs/decisions/README.md"
    if path == "deploy":
        path = "deploy/README.md"
    if path in PAGES:
        there = f"{ADDED}{path}"
    elif path.startswith(DOCS) and (REPOSITORY / path).is_file():
        there = path.removeprefix(DOCS)
    else:
        return text
    return f"{image}[{text}]({posixpath.relpath(there, posixpath.dirname(here) or '.')}{hash_}{anchor})"
