"""The documentation as a site: built with every link checked, and loaded without requests to other hosts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.starting import REPOSITORY

LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=[\"']?([^\"' >]+)|<link\b[^>]*?>")
KINDS = re.compile(r"rel=[\"']?(stylesheet|preconnect|preload|icon|dns-prefetch)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material is not installed.")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        check=False,
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = {path.relative_to(REPOSITORY / "docs") for path in (REPOSITORY / "docs").rglob("*.md")}
    built = {page: page.with_name(page.name.replace("README", "index")).with_suffix(".html") for page in pages}
    missing = [page for page, html in built.items() if not (site / html).is_file()]
    assert missing == []
    assert list(site.rglob("*.py")) == []


def test_make_builds_the_site_as_this_test_does() -> None:
    """With --quiet, mkdocs passes no warning to --strict."""
    (line,) = re.findall(r"(?m)^\t.*mkdocs build.*$", (REPOSITORY / "Makefile").read_text(encoding="utf-8"))
    assert line.endswith(" -m mkdocs build --strict")


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loaded = set()
    for page in site.rglob("*.html"):
        for found in LOADED.finditer(page.read_text(encoding="utf-8")):
            if found[1] is not None:
                loaded.add(found[1])
            elif KINDS.search(found[0]):
                loaded |= set(re.findall(r"href=[\"']?([^\"' >]+)", found[0]))
    assert loaded
    assert [name for name in loaded if "//" in name] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles) == []
