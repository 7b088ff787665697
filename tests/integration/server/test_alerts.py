"""The alerts of docs/operate.md against /metrics of a gateway that has just started: each has all its series."""

import re
from pathlib import Path

import aiohttp
import pytest

from tests.integration.server.running import running
from tests.integration.server.upload_server import FORM, GOOD, form

OPERATE = (Path(__file__).parents[3] / "docs" / "operate.md").read_text(encoding="utf-8")
ALERTS = dict(
    re.findall(r"(?m)^ +- alert: (\w+).*\n +expr: (.+)$", OPERATE.partition("```yaml")[2].partition("```")[0])
)
SELECTOR = re.compile(r"\b(bridge_\w+)(?:\{([^}]*)\})?")
TABLES = """\
[callers]
auth = "open"
[[routes]]
name = "shop"
project_token = "t-123456"
"""


def samples(text):
    """Return name and labels of each sample."""
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels = re.fullmatch(r"(\w+)(?:\{(.*)\})? \S+", line).groups()
            found.append((name, dict(re.findall(r'(\w+)="([^"]*)"', labels or ""))))
    return found


def selectors(expression):
    """Return name and labels of each series that the expression asks for; matchers other than `=` are not read."""
    for name, labels in SELECTOR.findall(expression):
        matchers = re.findall(r'(\w+)="([^"]*)"', labels)
        assert len(matchers) == len(labels.split(",") if labels else []), labels
        yield name, dict(matchers)


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def gateway(tmp_path):
    async with running(tmp_path, TABLES) as gateway:
        yield gateway


async def metrics(gateway, http):
    async with http.get(f"{gateway.admin_url}/metrics") as answer:
        return await answer.text()


def test_the_alerts_are_read():
    assert {"BridgeAway", "BridgeDeliversNothing", "BridgeFinalizesLate"} <= set(ALERTS)


@pytest.mark.parametrize("alert", sorted(set(ALERTS) - {"BridgeAway"}))  # `up` is Prometheus' own
async def test_every_series_of_an_alert_is_there_from_the_start(alert, gateway, http):
    shown = samples(await metrics(gateway, http))
    asked = list(selectors(ALERTS[alert]))
    assert asked
    for name, labels in asked:
        assert any(name == other and labels.items() <= has.items() for other, has in shown), (name, labels)


async def test_a_report_that_was_never_delivered_is_owed_beside_a_counter_at_zero(gateway, http):
    url = f"{gateway.server_url}/v1/report/junit/report/upload?job_id={'a1' * 16}&build_no=1"
    async with http.post(url, data=form(("report.xml", GOOD)), headers=FORM) as answer:
        assert answer.status == 200

    text = await metrics(gateway, http)

    assert 'bridge_deliveries_pending{target="testnod"} 1.0' in text
    assert 'bridge_deliveries_completed_total{target="testnod"} 0.0' in text
