"""What deploy/ offers is valid: rules, their tests and their runbook, and a dashboard that any Grafana can import."""

import json
import re

import pytest
import yaml

from tests.support.promtool import DEPLOY, RULES, needs_promtool, promtool

RUNBOOK = (DEPLOY.parent / "docs" / "runbook.md").read_text("utf-8")
TESTS = DEPLOY / "prometheus" / "tests.yml"
ALERTS = yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]
CASES = yaml.safe_load(TESTS.read_text("utf-8"))["tests"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "bridge.json").read_text("utf-8"))


def test_each_alert_has_its_section_in_the_runbook_and_no_other():
    assert re.findall(r"(?m)^## (\w+)$", RUNBOOK) == [rule["alert"] for rule in ALERTS]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_says_how_urgent_it_is_what_it_is_and_what_to_do(rule):
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"]["summary"].endswith((".", ").", "}}."))
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_for_each_alert_there_is_a_case_in_which_it_alone_fires_and_one_in_which_none_does():
    fires = [re.findall(r'alertname="(\w+)"', json.dumps(case).replace('\\"', '"')) for case in CASES]
    assert fires == [[], *([rule["alert"]] for rule in ALERTS)]


@needs_promtool
def test_promtool_accepts_the_rules_and_their_cases(tmp_path):
    for command in (("check", "rules", RULES), ("test", "rules", TESTS)):
        result = promtool(*command)
        assert result.returncode == 0, result.stdout + result.stderr
    silent = TESTS.read_text("utf-8").replace("rule_files: [alerts.yml]", f"rule_files: ['{RULES}']")
    (tmp_path / "tests.yml").write_text(re.sub(r"(?m)^ +(exp_samples:|- \{labels: ).*\n", "", silent), "utf-8")
    assert promtool("test", "rules", tmp_path / "tests.yml").stderr.count("got:") == len(ALERTS)  # they do fire


@needs_promtool
def test_promtool_accepts_every_query_of_the_dashboard(tmp_path):
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    rules = [
        {"record": f"panel:query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), "utf-8")
    result = promtool("check", "rules", path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_any_grafana_can_import_the_dashboard():
    assert DASHBOARD["schemaVersion"] >= 36
    assert (DASHBOARD["id"], DASHBOARD["uid"]) == (None, None)  # Grafana assigns both
    variables = {each["name"]: each["type"] for each in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query", "instance": "query"}
    sources = re.findall(r'"type": "prometheus",\s+"uid": "([^"]+)"', json.dumps(DASHBOARD))
    assert set(sources) == {"${datasource}"}
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [panel["title"] for panel in panels if panel["type"] != "row" and not panel["description"]] == []
    taken = [panel["gridPos"] for panel in panels]
    assert all(each["x"] + each["w"] <= 24 for each in taken)
    cells = [(each["x"] + x, each["y"] + y) for each in taken for x in range(each["w"]) for y in range(each["h"])]
    assert len(cells) == len(set(cells))  # no panel covers another one
