"""Runs `bridge check FILE…`: finds the files, checks them, prints a table or JSON."""
# ruff: noqa: PLC0415 -- --json needs no rich (20 ms)

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bridge.commands.check.html import HtmlFile
from bridge.commands.check.inputs import MissingInput, SourceFile, find_inputs
from bridge.commands.check.report import as_json, notes_of, status_counts, table
from bridge.commands.check.results import CheckRow, FileStatus, OutputFolder, check_source
from bridge.commands.check.rewrite import RewriteTrial, read_rules
from bridge.commands.console import print_note, print_result
from bridge.domain.text_format import counted

PROGRESS_FROM_FILES = 20
"""A terminal shows a progress bar from this many files on; fewer are checked before it could be read."""

UNBOUNDED_COLUMNS = 10_000
"""Width of the table if stdout is not a terminal, so that names are not wrapped."""


def check_files(
    arguments: Sequence[str],
    *,
    json_wanted: bool,
    output_folder: Path | None,
    html_path: Path | None = None,
    rules_path: Path | None = None,
    route: str = "",
) -> bool:
    """Print the result for every file; return whether no file is rejected.

    With `output_folder` reports are repaired, and written to that folder; with `html_path` a page of them is written;
    with `rules_path` names are rewritten by the rules of `route` in that file, and shown.
    """
    trial = None if rules_path is None else RewriteTrial(read_rules(rules_path, route))
    sources = find_inputs(arguments)
    output = None
    if output_folder is not None:
        output = OutputFolder(output_folder, [one.path for one in sources if isinstance(one, SourceFile)])
    html = HtmlFile(html_path) if html_path is not None else None
    rows = _check(sources, output, html, trial)
    if json_wanted:
        rewritten = {} if trial is None else {"rewritten": trial.as_json()}
        print(json.dumps(as_json(rows) | rewritten, indent=2))  # noqa: T201
    else:
        _show(rows, trial)
    if output is not None:
        print_note(f"Wrote {counted(output.written, 'file')} to {output_folder}, as they would be sent.")
    if html is not None:
        print_note(f"Wrote {counted(html.write(), 'report')} to {html_path}.")
    return all(row.status is not FileStatus.REJECTED for row in rows)


def _check(
    sources: Sequence[SourceFile | MissingInput],
    output: OutputFolder | None,
    html: HtmlFile | None,
    trial: RewriteTrial | None,
) -> list[CheckRow]:
    rows: list[CheckRow] = []
    if not sys.stderr.isatty() or len(sources) < PROGRESS_FROM_FILES:
        for source in sources:
            rows += check_source(source, output, html, trial)
        return rows
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Checking", total=len(sources))
        for source in sources:
            rows += check_source(source, output, html, trial)
            progress.advance(task)
    return rows


def _show(rows: Sequence[CheckRow], trial: RewriteTrial | None) -> None:
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNBOUNDED_COLUMNS)
    console.print(table(rows), end="\n\n")
    for line in (*notes_of(rows), *(trial.lines() if trial else ())):
        print_result(line)
    print_result(status_counts(rows))
