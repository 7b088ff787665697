"""`bridge check FILE…`: the gate at the desk, before CI uploads anything.

It must not need a gateway, settings or a network.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress

from bridge.commands.check.inputs import MissingInput, SourceFile, find
from bridge.commands.check.output_folder import OutputFolder
from bridge.commands.check.report import as_json, remarks, summary, table
from bridge.commands.check.results import CheckRow, Outcome, rows
from bridge.commands.console import remark, say

MANY_FILES = 20
"""From here on a terminal gets a progress bar: fewer are checked before one could be read."""

UNBOUNDED_COLUMNS = 10_000
"""The width of a table that no terminal cuts: names in a file or a pipe stay on one line."""


def check_files(arguments: Sequence[str], *, json_wanted: bool, repaired_folder: Path | None) -> bool:
    """Print the verdict of every file that the arguments mean; return whether there was no fault.

    With `repaired_folder` judge as for a route that repairs, and write what it would send into that folder.
    """
    sources = find(arguments)
    repaired = None
    if repaired_folder is not None:
        files = [source.path for source in sources if isinstance(source, SourceFile)]
        repaired = OutputFolder(repaired_folder, files)
    judged = _judge(sources, repaired)
    if json_wanted:
        typer.echo(json.dumps(as_json(judged), indent=2))
    else:
        _show(judged)
    if repaired is not None:
        remark(f"Written into {repaired_folder}, as they would be sent: {repaired.written}.")
    return all(row.verdict is not Outcome.REFUSED for row in judged)


def _judge(sources: Sequence[SourceFile | MissingInput], repaired: OutputFolder | None) -> list[CheckRow]:
    judged: list[CheckRow] = []
    console = Console(stderr=True)
    hidden = not console.is_terminal or len(sources) < MANY_FILES
    with Progress(console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("Checking", total=len(sources))
        for source in sources:
            judged += rows(source, repaired)
            progress.advance(task)
    return judged


def _show(judged: Sequence[CheckRow]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNBOUNDED_COLUMNS)
    console.print(table(judged, columns=console.width), end="\n\n")
    for line in remarks(judged):
        say(line)
    say(summary(judged))
