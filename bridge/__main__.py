"""Runs the command line. `bridge upload` starts without the module that defines the other commands."""
# ruff: noqa: PLC0415 -- see above

import sys


def main() -> None:
    """Run the command in the arguments of the process, and exit."""
    if sys.argv[1:2] == ["upload"]:
        from bridge.commands.upload.options import main as run_upload

        sys.exit(run_upload(sys.argv[2:]))
    from bridge.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
