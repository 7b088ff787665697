"""Runs `bridge` with faults installed around it: `python -m tests.faults.wrapped PLAN serve --config …`.

PLAN is a JSON file: {"control": folder or null, "die": [step, "before" or "after", count] or null}.
"""

import json
import sys
from pathlib import Path

from tests.faults import disk, steps


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if plan["control"] is not None:
        disk.install(Path(plan["control"]))
    if plan["die"] is not None:
        steps.die_at(*plan["die"])
    sys.argv = ["bridge", *sys.argv[2:]]
    from bridge.cli import main as bridge  # noqa: PLC0415 -- the disk is taken in hand before

    bridge()


if __name__ == "__main__":
    main()
