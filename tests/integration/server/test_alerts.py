"""Alerts and dashboard of deploy/ against /metrics of a gateway that has just started: each has all its series."""

import json
import re

import aiohttp
import pytest
import yaml

from tests.support.listener import running
from tests.support.ports import REFUSED_URL
from tests.support.promtool import DEPLOY, RULES
from tests.support.upload_server import FORM, GOOD, form

ALERTS = {rule["alert"]: rule["expr"] for rule in yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]}
PANELS = json.loads((DEPLOY / "grafana" / "bridge.json").read_text("utf-8"))["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]
SELECTOR = re.compile(r"\b(bridge_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
TARGET_LABELS = {"job", "instance"}  # Prometheus adds them
TABLES = f"""\
[codearts]
endpoint = "{REFUSED_URL}"
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
    """Return name and matchers of each series that the expression asks for."""
    for name, labels in SELECTOR.findall(expression):
        matchers = MATCHER.findall(labels)
        assert labels.count('"') == 2 * len(matchers), labels
        yield name, [each for each in matchers if each[0] not in TARGET_LABELS]


def matches(labels, matchers):
    """Return whether labels fulfil all matchers, as Prometheus reads them."""
    for label, operator, value in matchers:
        has = labels.get(label, "")
        is_equal = re.fullmatch(value, has) is not None if "~" in operator else has == value
        if is_equal is operator.startswith("!"):
            return False
    return True


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


def test_the_rules_and_the_panels_are_read():
    assert {"BridgeAway", "BridgeDeliversNothing", "BridgeFinalizesLate"} <= set(ALERTS)
    assert len(QUERIES) > 20


async def test_every_series_of_an_alert_and_of_the_dashboard_is_there_from_the_start(gateway, http):
    shown = samples(await metrics(gateway, http))
    expressions = [*(ALERTS[name] for name in ALERTS if name != "BridgeAway"), *QUERIES]  # `up` is Prometheus' own
    for expression in expressions:
        asked = list(selectors(expression))
        assert asked, expression
        for name, matchers in asked:
            found = [has for other, has in shown if name == other and matches(has, matchers)]
            assert found, (name, matchers)
            grouped = re.findall(r"\bby \(([^)]*)\)", expression)
            by = {label.strip() for labels in grouped for label in labels.split(",")} - TARGET_LABELS
            assert by <= {label for has in found for label in has}, (name, by)


async def test_the_dashboard_shows_every_metric_of_the_gateway(gateway, http):
    names = {re.sub(r"_(bucket|count|sum)$", "", name) for name, _ in samples(await metrics(gateway, http))}
    names = {name for name in names if not name.endswith("_created")}
    asked = {re.sub(r"_(bucket|count|sum)$", "", name) for query in QUERIES for name, _ in selectors(query)}
    assert names == asked


async def test_a_report_that_was_never_delivered_is_owed_beside_a_counter_at_zero(gateway, http):
    url = f"{gateway.server_url}/v1/report/junit/report/upload?job_id={'a1' * 16}&build_no=1"
    async with http.post(url, data=form(("report.xml", GOOD)), headers=FORM) as answer:
        assert answer.status == 200

    text = await metrics(gateway, http)

    assert 'bridge_deliveries_pending{target="testnod"} 1.0' in text
    assert 'bridge_deliveries_completed_total{target="testnod"} 0.0' in text
    ages = re.findall(r'bridge_deliveries_oldest_pending_age_seconds\{target="testnod"\} (\S+)', text)
    assert [float(age) >= 0 for age in ages] == [True]
