"""The options of `bridge upload`, read with argparse: importing typer would take longer than an upload."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from bridge.commands.upload.ci_build import read_build
from bridge.commands.upload.run import UploadOptions, upload
from bridge.errors import BadParameter, BridgeError

EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130  # as shells have it

_UNITS: Final = (3600, 60, 1)
_DURATION: Final = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,9}(?:\.[0-9]{1,3})?)s)?", re.ASCII)

DESCRIPTION: Final = "Upload the reports of a build, as a build step."
EPILOG: Final = (
    "Exits with 0 if all files were sent, 1 if the gateway rejected something, 2 for wrong usage, 3 if the gateway was "
    "away. The token is that of BRIDGE_TOKEN or of --token-file."
)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may not fit its encoding
            stream.reconfigure(errors="backslashreplace")
    given = parser().parse_intermixed_args(arguments)
    try:
        build = read_build(os.environ, {name: getattr(given, name) for name in _BUILD})
        code = upload(given.patterns, build, _options(given), os.environ)
    except OSError as error:
        print(f"{error.filename or 'A file'} cannot be used: {error.strerror or error}.", file=sys.stderr)  # noqa: T201
        code = EXIT_USAGE
    except BridgeError as error:
        print(error, file=sys.stderr)  # noqa: T201
        code = EXIT_USAGE
    except KeyboardInterrupt:
        print("Interrupted. With --spool, the next run sends what is not sent yet.", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    return 0 if given.never_fail else code


def read_seconds(text: str) -> float:
    """Return the seconds in a duration such as "90s" or "1h30m"; raise BadParameter if it is none, or zero."""
    match = _DURATION.fullmatch(text.strip())
    seconds = (
        sum(float(number or 0) * unit for number, unit in zip(match.groups(), _UNITS, strict=True)) if match else 0
    )
    if not seconds:
        raise BadParameter(f"--time-budget: {text} is not a duration. Use a number and a unit, such as 90s or 5m.")
    return seconds


_BUILD: Final = ("job_id", "build_no", "node_id", "branch", "commit", "project_id", "job_name")


def _options(given: argparse.Namespace) -> UploadOptions:
    return UploadOptions(
        url=given.url,
        token_file=given.token_file,
        complete=given.complete,
        newer_than_build=given.newer_than_build,
        marker=given.marker,
        spool=given.spool,
        time_budget=read_seconds(given.time_budget),
        wait=given.wait,
        dry_run=given.dry_run,
        json_wanted=given.json,
        fail_on_failures=given.fail_on_failures,
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(
        "bridge upload", description=DESCRIPTION, epilog=EPILOG, add_help=False, allow_abbrev=False
    )
    parser.add_argument(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="reports, archives of them, folders, patterns with ** (in quotes), and !patterns to exclude; "
        "without any, the places that test runners usually write to",
    )
    where = parser.add_argument_group("the gateway")
    where.add_argument("--url", default=os.environ.get("BRIDGE_URL"), help="its address; default: BRIDGE_URL")
    where.add_argument("--token-file", metavar="FILE", type=Path, help="the caller's token; default: BRIDGE_TOKEN")
    where.add_argument("--time-budget", metavar="TIME", default="5m", help="for all attempts, such as 90s; default: 5m")
    where.add_argument(
        "--spool",
        metavar="DIR",
        type=Path,
        help="keep the files in this folder until they are sent, and send those of earlier runs first",
    )
    build = parser.add_argument_group("the build; default: the variables of the CI system")
    build.add_argument("--job", dest="job_id", metavar="ID", help="the build task; default: JOB_ID")
    build.add_argument("--build", dest="build_no", metavar="NO", help="its number; default: INCREASENUM")
    build.add_argument("--node", dest="node_id", metavar="ID", help="distinguishes parallel jobs")
    build.add_argument("--branch", metavar="NAME", help="the branch")
    build.add_argument("--commit", metavar="SHA", help="the commit")
    build.add_argument("--project", dest="project_id", metavar="ID", help="the CodeArts project")
    build.add_argument("--job-name", metavar="NAME", help="the name of the build task")
    build.add_argument("--complete", action="store_true", help="the build has ended: finalize its run soon")
    files = parser.add_argument_group("the files")
    files.add_argument("--newer-than-build", action="store_true", help="leave out files that are older than the build")
    files.add_argument("--marker", metavar="FILE", type=Path, help="leave out files that are older than this one")
    files.add_argument("--dry-run", action="store_true", help="find and check the files, and send nothing")
    after = parser.add_argument_group("the result")
    after.add_argument("--json", action="store_true", help="print JSON")
    after.add_argument(
        "--wait", action="store_true", help="wait until the run is finalized; needs the scope status and an ended build"
    )
    after.add_argument("--fail-on-failures", action="store_true", help="exit with 1 if a test failed")
    after.add_argument("--never-fail", action="store_true", help="exit with 0 whatever happens, but wrong options")
    after.add_argument("-h", "--help", action="help", help="show this and exit")
    return parser
