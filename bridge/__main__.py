"""Runs the command line. `bridge upload` and `bridge serve` start without the module that defines all commands."""
# ruff: noqa: PLC0415 -- see above

import gc
import os
import sys

COLLECT_AFTER = 50_000
"""New objects before Python looks for cycles among them. With its own 700, that is a third of the time of imports."""


def main() -> None:
    """Run the command in the arguments of the process, and exit."""
    if sys.argv[1:2] == ["serve"]:
        from bridge.commands.serve_arguments import main as run_gateway
        from bridge.commands.serve_arguments import read_plain_arguments

        if given := read_plain_arguments(sys.argv[2:], os.environ):
            sys.exit(run_gateway(given))
    gc.set_threshold(COLLECT_AFTER)
    if sys.argv[1:2] == ["upload"]:
        from bridge.commands.upload.options import main as run_upload

        sys.exit(run_upload(sys.argv[2:]))
    from bridge.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
