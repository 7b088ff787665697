"""Charts as SVG, drawn on the server: no script and no inline style, so that they pass the pages' content policy."""

from collections.abc import Sequence
from html import escape
from typing import Final

from bridge.domain.instants import HOUR, MINUTE, SECOND
from bridge.values import dataclass

WIDTH: Final = 720
CHART_HEIGHT: Final = 64
ROW_HEIGHT: Final = 22
LABEL_WIDTH: Final = 200
MAX_ROWS: Final = 40


def bars(counts: Sequence[int], *, label: str, starts: Sequence[str]) -> str:
    """Return a bar chart of `counts`; `starts` names the beginning of each bucket, for the tips of the bars."""
    highest = max([*counts, 1])
    step = WIDTH / len(counts)
    total = f"{escape(label)}: {sum(counts)} in all, at most {max(counts, default=0)} in one bar"
    box = f'viewBox="0 0 {WIDTH} {CHART_HEIGHT}" preserveAspectRatio="none"'
    parts = [f'<svg class="bars" {box} role="img" aria-label="{total}">']
    for index, count in enumerate(counts):
        height = 0 if not count else max(2, round(count / highest * (CHART_HEIGHT - 4)))
        parts.append(
            f'<rect x="{index * step:.1f}" y="{CHART_HEIGHT - height}" width="{step - 1.5:.1f}" height="{height}">'
            f"<title>{escape(starts[index])}: {count}</title></rect>"
        )
    parts.append(f'<line x1="0" y1="{CHART_HEIGHT}" x2="{WIDTH}" y2="{CHART_HEIGHT}"/></svg>')
    return "".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A part of a bar, with the text of its tip; `kind` is the class of its color."""

    start: int
    end: int
    kind: str
    tip: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A bar of a timeline; `end` is None while it lasts. `kind` is the class of its color.

    A bar with `marks` is drawn pale, because what is not marked was waiting.
    """

    label: str
    start: int
    end: int | None
    kind: str
    marks: Sequence[Mark] = ()


def timeline(spans: Sequence[Span], *, now: int, label: str) -> str:
    """Return the spans below each other on a common axis of time (microseconds UTC); the first MAX_ROWS are drawn."""
    shown = spans[:MAX_ROWS]
    first = min(span.start for span in shown)
    last = max([*(span.end if span.end is not None else now for span in shown), first + 1])
    width, height = WIDTH - LABEL_WIDTH - 60, ROW_HEIGHT * len(shown) + 18
    parts = [f'<svg class="timeline" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">']

    def place(start: int, end: int) -> tuple[float, float]:
        left = LABEL_WIDTH + (start - first) / (last - first) * width
        return left, max(2.0, (end - start) / (last - first) * width)

    for index, span in enumerate(shown):
        end = span.end if span.end is not None else now
        left, length = place(span.start, end)
        top = index * ROW_HEIGHT
        kind = f"{span.kind}{'' if span.end is not None else ' running'}{' waits' if span.marks else ''}"
        took = duration(max(0, end - span.start)) if span.end is not None else "so far"
        parts.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{top + 15}" class="name">{escape(_short(span.label))}</text>'
            f'<rect x="{left:.1f}" y="{top + 4}" width="{length:.1f}" height="{ROW_HEIGHT - 8}" rx="3" '
            f'class="{kind}">'
            f"<title>{escape(span.label)}: {took}</title></rect>"
            f"{''.join(_mark(mark, place(mark.start, mark.end), top) for mark in span.marks)}"
            f'<text x="{min(left + length + 5, WIDTH - 56):.1f}" y="{top + 15}" class="took">{took}</text>'
        )
    base = ROW_HEIGHT * len(shown)
    parts.append(f'<line x1="{LABEL_WIDTH}" y1="{base}" x2="{LABEL_WIDTH + width}" y2="{base}"/></svg>')
    return "".join(parts)


def _mark(mark: Mark, place: tuple[float, float], top: int) -> str:
    left, length = place
    return (
        f'<rect x="{left:.1f}" y="{top + 4}" width="{length:.1f}" height="{ROW_HEIGHT - 8}" class="{mark.kind}">'
        f"<title>{escape(mark.tip)}</title></rect>"
    )


def duration(microseconds: int) -> str:
    """Return a duration as a chart shows it: `4 ms`, `0.84 s`, `12.3 s`, `5 min`, `3.2 h`."""
    if microseconds < SECOND // 10:
        return f"{microseconds / 1000:.0f} ms"
    if microseconds < MINUTE:
        return f"{microseconds / SECOND:.2f} s" if microseconds < 10 * SECOND else f"{microseconds / SECOND:.1f} s"
    return f"{microseconds / MINUTE:.0f} min" if microseconds < 2 * HOUR else f"{microseconds / HOUR:.1f} h"


def _short(text: str, limit: int = 29) -> str:
    return text if len(text) <= limit else "…" + text[-limit + 1 :]
