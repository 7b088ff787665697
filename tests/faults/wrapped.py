"""Runs a program of the bridge with faults installed around it, and around the ledger's writer that it starts.

    python -m tests.faults.wrapped PLAN bridge.cli serve --config …

PLAN is a JSON file: {"control": folder or null, "remembers": whether that disk remembers what was synced, "clock": the
file that sets the clock or null, "longest_put_seconds" and "notice_seconds": a number or null, "die": [step, "before"
or "after", count] or null, "armed": the file without which nothing counts}.
"""

import json
import os
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.faults import clock, disk, steps
from tests.faults.replacing import replace_everywhere

NOTICE_TIMES = ("GROUP_WAIT", "GROUP_INTERVAL", "SEND_LEASE", "SLOT_INTERVAL")
WRITER = "bridge.store.engine.sqlite_writer"


def main() -> None:
    plan_file, module = sys.argv[1], sys.argv[2]
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    if plan["clock"] is not None:
        clock.install(Path(plan["clock"]))
    if plan["control"] is not None:
        disk.install(Path(plan["control"]), remembers=plan["remembers"])
    if plan["longest_put_seconds"] is not None:
        replace_everywhere(import_module("bridge.client.presigned_put"), "MAX_PUT_SECONDS", plan["longest_put_seconds"])
    if plan["notice_seconds"] is not None:
        import_module("bridge.store.notices")
        for name in NOTICE_TIMES:
            replace_everywhere(import_module("bridge.domain.notices"), name, int(plan["notice_seconds"] * 1_000_000))
    if module == WRITER:
        steps.die_with(os.getppid())
    if plan["die"] is not None and (module != WRITER or steps.is_in_store(plan["die"][0])):
        steps.die_at(*plan["die"], armed=Path(plan["armed"]))
    _wrap_writer(plan_file)
    os.register_at_fork(after_in_child=lambda: _join(plan["control"]))  # the first writer is a fork
    sys.argv = [module, *sys.argv[3:]]
    if module == WRITER:
        # Not as __main__: what was patched in the module is what runs.
        from bridge.store.engine.sqlite_writer import main as write  # noqa: PLC0415

        write()
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _join(control: str | None) -> None:
    """Make this process, the forked writer, part of its gateway: one dies with the other, and both have one disk."""
    steps.die_with(os.getppid())
    if control is not None:
        disk.join(Path(control))


def _wrap_writer(plan_file: str) -> None:
    """Have the ledger's writer started in this same way."""
    popen = subprocess.Popen

    class Wrapped(popen):  # type: ignore[type-arg,misc,valid-type]
        def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
            if list(args[1:3]) == ["-m", WRITER]:
                args = [args[0], "-m", __spec__.name, plan_file, *args[2:]]
            super().__init__(args, *rest, **options)

    subprocess.Popen = Wrapped  # type: ignore[misc]


if __name__ == "__main__":
    main()
