"""Write the licenses in an SBOM as a table: `python -m tools.license_list SBOM PAGE`. Run by `make sbom`."""

import json
import sys
from pathlib import Path
from typing import Any

HEAD = "# Licenses of what the gateway runs on\n\n| package | version | license |\n|---|---|---|\n"


def licenses_of(component: dict[str, Any]) -> str:
    """Return the SPDX expression, ids or names of a CycloneDX component; raise ValueError if it states none."""
    stated = component.get("licenses", [])
    declared = [entry for entry in stated if entry.get("license", entry).get("acknowledgement") == "declared"] or stated
    names = [entry.get("expression") or entry["license"].get("id") or entry["license"]["name"] for entry in declared]
    if not names:
        raise ValueError(f"{component['name']} states no license.")
    return " and ".join(dict.fromkeys(name.removeprefix("License :: OSI Approved :: ") for name in names))


def page(sbom: dict[str, Any]) -> str:
    """Return the table of a CycloneDX document, in Markdown."""
    rows = sorted((part["name"].lower(), part["version"], licenses_of(part)) for part in sbom["components"])
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    source, target = (Path(argument) for argument in sys.argv[1:])
    target.write_text(page(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")
