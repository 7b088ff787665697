"""The templates of the pages, and the page of reports as one file that needs nothing else."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge.domain.instants import SECOND
from bridge.domain.junit.cases import CasePage, colored
from bridge.domain.text_format import capital, counted
from bridge.server.admin.console.charts import duration
from bridge.values import dataclass

if TYPE_CHECKING:
    import jinja2

STATIC: Final = Path(__file__).parent / "static"
STATIC_TYPES: Final = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "htmx.min.js": "text/javascript",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportPage:
    """One report of a page that is saved as a file."""

    name: str
    tests: int
    failed: int
    skipped: int
    seconds: float
    notes: Sequence[str]
    cases: CasePage


def new_environment() -> "jinja2.Environment":
    """Return the environment of all templates: everything is escaped, and a name that is missing is an error."""
    import jinja2  # noqa: PLC0415 -- most gateways are asked for no page

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bridge.server.admin.console"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        when=when,
        took=lambda seconds: duration(round(seconds * SECOND)),
        seconds=seconds,
        plain_time=plain_time,
        size=size,
        colored=colored,
        capitalize_first=capital,
    )
    environment.globals.update(counted=counted, static_url=static_url)
    return environment


def reports_as_file(title: str, reports: Sequence[ReportPage]) -> str:
    """Return a page of reports with its style inside: it can be saved, attached and opened without the gateway."""
    style = static_file("console.css").decode()
    return new_environment().get_template("report_file.html").render(title=title, reports=reports, style=style)


@cache
def static_file(name: str) -> bytes:
    """Return the content of a file of the pages."""
    return (STATIC / name).read_bytes()


def static_url(name: str) -> str:
    """Return the URL of a file of the pages, with a digest of its content."""
    return f"/static/{name}?{hashlib.sha256(static_file(name)).hexdigest()[:12]}"


def when(at: int | None) -> str:
    """Return a time as people write it: 2026-01-31 12:34:56 UTC."""
    return "–" if at is None else datetime.fromtimestamp(at / SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plain_time(text: str) -> str:
    """Return a time of the API as people write it."""
    return f"{text[:10]} {text[11:19]} UTC"


def clock_time(at: int) -> str:
    """Return the time of day: 12:34."""
    return datetime.fromtimestamp(at / SECOND, UTC).strftime("%H:%M")


def seconds(time_us: int) -> str:
    """Return a duration as people read it, with two digits: 0.35 s, 4.1 s, 130 s."""
    value = time_us / SECOND
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def size(count: int | None) -> str:
    """Return bytes as people read them: 1.5 MB."""
    if count is None:
        return "–"
    value = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return ""
