"""Evaluates the alert rules of deploy/prometheus with promtool on what gateways really showed at /metrics."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
LABELS = 'job="bridge",instance="a"'
SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'

_FOUND = shutil.which("promtool", path=str(Path(sys.executable).parent)) or shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    _FOUND is None, reason="promtool is not installed (`make .venv/bin/promtool` takes it from Debian)"
)


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run promtool and return its exit code and output."""
    assert _FOUND is not None
    return subprocess.run([_FOUND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120)


def series_of(text: str) -> dict[str, float]:
    """Return the values of a page of metrics by series, each with the labels of its target."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, line
            name, labels, value = match.groups()
            found[f"{name}{{{LABELS}{',' if labels else ''}{labels or ''}}}"] = float(value)
    return found


def assert_firing(folder: Path, scrapes: Sequence[tuple[int, str | None]], alerts: Collection[str], *, at: int) -> None:
    """Fail unless exactly these alerts fire `at` minutes after the first scrape.

    `scrapes` are pages of metrics, each with the minute from which on every scrape returns it, and None if it fails.
    """
    now = time.time()  # promtool begins at 0
    up = f"up{{{LABELS}}}"
    pages = [
        (minute, {up: 0.0} if text is None else series_of(text) | {up: 1.0}) for minute, text in scrapes if minute <= at
    ]
    ends = [minute for minute, _ in pages[1:]] + [at + 1]
    inputs = []
    for series in sorted({name for _, page in pages for name in page}):
        values: list[str] = []
        for (begin, page), end in zip(pages, ends, strict=True):
            value = page.get(series)
            if value is not None and "_timestamp_seconds{" in series and value:
                value -= now
            # Prometheus ends all series of a target whose scrape fails.
            missing = ["stale", *["_"] * (end - begin - 1)]
            values += missing if value is None else [repr(value)] * (end - begin)
        inputs.append({"series": series, "values": " ".join(values)})
    case = {
        "interval": "1m",
        "input_series": inputs,
        "promql_expr_test": [
            {
                "expr": FIRING,
                "eval_time": f"{at}m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)],
            }
        ],
    }
    tests = folder / "played.yml"
    tests.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))
    result = promtool("test", "rules", tests)
    assert result.returncode == 0, result.stdout + result.stderr
