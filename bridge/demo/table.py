"""The demo's table: one row a build, as far as it has come.

It must not know where the values come from.
"""

from collections.abc import Iterable

from rich import box
from rich.table import Table
from rich.text import Text

from bridge.demo.player import Progress

COLOURS = {"processed": "bold green", "failed": "bold red", "waiting": "dim"}


def table(rows: Iterable[Progress]) -> Table:
    """Return the table; it fits into 80 columns."""
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    drawn.add_column("Build", no_wrap=True)
    for heading in ("Reports", "Tests", "Failed"):
        drawn.add_column(heading, justify="right")
    drawn.add_column("TestNod\nrun", justify="right")
    drawn.add_column("Status", min_width=len("processing"))
    drawn.add_column("End to\nfinalize", justify="right")
    for row in rows:
        drawn.add_row(
            row.build.title,
            _number(row.reports),
            _number(row.tests),
            Text(_number(row.failures), style="red" if row.failures else ""),
            ", ".join(str(number) for number in row.test_run_ids),
            Text(row.status, style=COLOURS.get(row.status, "yellow")),
            "" if row.finalize_seconds is None else f"{row.finalize_seconds:.1f} s",
        )
    return drawn


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
