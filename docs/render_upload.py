"""Render the parts of docs/upload.md that follow from the code: the digest of the script, and the usual places.

`make docs` writes the page; a test compares it.
"""
# ruff: noqa: INP001 -- docs/ is no package; run as `python -m docs.render_upload`

import re
from hashlib import sha256
from pathlib import Path

from bridge.commands.upload.usual_places import PLACES
from bridge.server.app import read_upload_script

PAGE = Path(__file__).parent / "upload.md"

DIGEST = re.compile(r'(?m)^echo "[0-9a-f]*  upload\.sh"')
TABLE = re.compile(r"(?ms)^\| runner \| files \|\n.*?(?=^\n|\Z)")


def page(text: str) -> str:
    """Return the page with these parts as they are now."""
    text = DIGEST.sub(f'echo "{sha256(read_upload_script()).hexdigest()}  upload.sh"', text)
    places: dict[str, list[str]] = {}
    for place in PLACES:
        places.setdefault(place.runner, []).append(f"`{place.pattern}`")
    rows = [f"| {runner} | {', '.join(patterns)} |\n" for runner, patterns in places.items()]
    return TABLE.sub(lambda _: "".join(["| runner | files |\n", "|---|---|\n", *rows]), text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
