import platform
import re
from itertools import product
from pathlib import Path

import bridge
from bridge.domain.build import DeliveryTarget
from bridge.domain.request_rate import Api
from bridge.protocols.notices import NoticeFormat
from bridge.server.proxy.request_target import Upstream
from bridge.telemetry.metrics import CALLS, Metrics, error_codes
from docs.render_codes import ANSWERS

CLIENT = Path(bridge.__file__).parent / "client"
CLIENTS = sorted(CLIENT.glob("*.py"))


def sample(metrics, name):
    for line in metrics.render().decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return None


def test_each_event_is_counted_under_its_name():
    metrics = Metrics()
    metrics.count_accepted(3)
    metrics.count_duplicates()
    metrics.count_rejection("BRIDGE.REPORT")
    metrics.count_delivered("testnod", 2)
    metrics.set_builds(stuck=1, blocked=4)
    metrics.observe_finalize_lag(11.0)
    metrics.observe_commit(64)
    metrics.observe_call("testnod", "register", 0.2, "Registered")
    metrics.set_heartbeat("cleanup", 1.5)
    metrics.count_proxied("build", 403)
    metrics.count_proxied("build", 404)
    metrics.count_proxied("iam", None)
    metrics.count_coverage_upload(200)
    metrics.set_spool_free(2**40)
    for name, value in {
        "bridge_reports_accepted_total": 3,
        "bridge_reports_duplicate_total": 1,
        'bridge_rejections_total{code="BRIDGE.REPORT"}': 1,
        'bridge_deliveries_completed_total{target="testnod"}': 2,
        "bridge_builds_stuck": 1,
        "bridge_builds_blocked": 4,
        'bridge_finalize_lag_seconds_bucket{le="10.0"}': 0,
        'bridge_finalize_lag_seconds_bucket{le="15.0"}': 1,
        'bridge_ledger_commit_writes_bucket{le="64.0"}': 1,
        'bridge_upstream_request_duration_seconds_count{call="register",upstream="testnod"}': 1,
        'bridge_upstream_requests_total{call="register",outcome="Registered",upstream="testnod"}': 1,
        'bridge_proxy_requests_total{status="4xx",upstream="build"}': 2,
        'bridge_proxy_requests_total{status="none",upstream="iam"}': 1,
        'bridge_coverage_uploads_total{status="2xx"}': 1,
        'bridge_task_heartbeat_age_seconds{task="cleanup"}': 1.5,
        "bridge_spool_free_bytes": 2**40,
    }.items():
        assert sample(metrics, name) == value, name


def test_what_is_no_longer_owed_is_shown_as_none():
    metrics = Metrics()
    metrics.set_deliveries({("testnod", "pending"): 5, ("testnod", "dead"): 1})
    assert sample(metrics, 'bridge_deliveries_pending{target="testnod"}') == 5
    metrics.set_deliveries({("testnod", "dead"): 1})
    assert sample(metrics, 'bridge_deliveries_pending{target="testnod"}') == 0
    assert sample(metrics, 'bridge_deliveries_dead{target="testnod"}') == 1


def test_breakers_of_routes_are_closed_until_they_are_known_to_be_open():
    metrics = Metrics()
    metrics.set_circuits({"route:shop": 12.5, "pause:old": 3}, ["shop"])
    assert sample(metrics, 'bridge_circuit_open_seconds{upstream="route:shop"}') == 12.5
    assert sample(metrics, 'bridge_circuit_open_seconds{upstream="storage:shop"}') == 0
    assert sample(metrics, 'bridge_circuit_open_seconds{upstream="pause:old"}') == 3
    metrics.set_circuits({}, ["app"])
    assert b"shop" not in metrics.render()
    assert b"pause:old" not in metrics.render()


def test_the_version_is_a_label():
    labels = f'python="{platform.python_version()}",version="{bridge.__version__}"'
    assert sample(Metrics(), f"bridge_build_info{{{labels}}}") == 1


def test_mismatches_that_are_gone_are_not_shown():
    metrics = Metrics()
    metrics.set_result_mismatches({("no_report", ""): 2, ("failed_tests", "shop"): 1})
    assert sample(metrics, 'bridge_builds_result_mismatch{kind="no_report",route=""}') == 2
    metrics.set_result_mismatches({("failed_tests", "shop"): 3}, ["shop", "app"])
    assert sample(metrics, 'bridge_builds_result_mismatch{kind="failed_tests",route="shop"}') == 3
    assert sample(metrics, 'bridge_builds_result_mismatch{kind="no_report",route=""}') == 0
    assert sample(metrics, 'bridge_builds_result_mismatch{kind="no_report",route="app"}') == 0
    metrics.set_result_mismatches({}, ["app"])
    assert b'route="shop"' not in metrics.render()


def test_counters_exist_with_zero_before_their_first_event():
    metrics = Metrics()
    for name in (
        *(f'bridge_deliveries_completed_total{{target="{target}"}}' for target in DeliveryTarget),
        *(
            f'bridge_deliveries_{state}{{target="{target}"}}'
            for target, state in product(DeliveryTarget, ("pending", "dead"))
        ),
        'bridge_rejections_total{code="BRIDGE.UNAVAILABLE"}',
        'bridge_rejections_total{code="BRIDGE.REPORT"}',
        'bridge_rejections_total{code="APIGW.0301"}',
        'bridge_upstream_requests_total{call="build_info",outcome="CredentialsRejected",upstream="codearts"}',
        'bridge_upstream_requests_total{call="register",outcome="NotSent",upstream="testnod"}',
        'bridge_upstream_requests_total{call="put",outcome="PutRejected",upstream="storage"}',
        'bridge_upstream_requests_total{call="log_in",outcome="CredentialsRejected",upstream="iam"}',
        'bridge_proxy_requests_total{status="5xx",upstream="build"}',
        'bridge_connections_closed_total{reason="limit"}',
        'bridge_config_reloads_total{result="rejected"}',
        'bridge_deliveries_oldest_pending_age_seconds{target="testnod"}',
        'bridge_circuit_open_seconds{upstream="testnod"}',
        'bridge_builds_result_mismatch{kind="failed_tests",route=""}',
        'bridge_upstream_request_duration_seconds_count{call="put",upstream="storage"}',
        "bridge_tls_certificate_expiry_timestamp_seconds",
    ):
        assert sample(metrics, name) == 0, name


SERIES = {
    "bridge_rejections": {"code": set(error_codes())},
    "bridge_deliveries_completed": {"target": set(DeliveryTarget)},
    "bridge_codearts_throttled": {"api": set(Api)},
    "bridge_proxy_requests": {
        "upstream": {*Upstream, "none"},
        "status": {"2xx", "3xx", "4xx", "5xx", "none"},
    },
    "bridge_coverage_uploads": {"status": {"2xx", "3xx", "4xx", "5xx", "none"}},
    "bridge_connections_closed": {"reason": {"header_timeout", "header_size", "write_timeout", "limit"}},
    "bridge_config_reloads": {"result": {"success", "rejected"}},
    "bridge_notices_sent": {"format": set(NoticeFormat)},
    "bridge_notices_failed": {"format": set(NoticeFormat)},
}
"""The labels of counters, and all of their values, but for the calls to upstreams."""


def test_every_counter_has_a_series_for_all_values_of_its_labels_from_the_start():
    found = {}
    for family in Metrics()._registry.collect():
        if family.type in {"counter", "histogram"} and not family.name.startswith("bridge_upstream_request"):
            found[family.name] = [each.labels for each in family.samples if each.name.endswith(("_total", "_count"))]
    assert {name for name, series in found.items() if series != [{}]} == set(SERIES)
    for name, values in SERIES.items():
        wanted = [dict(zip(values, map(str, each), strict=True)) for each in product(*values.values())]
        assert sorted(map(str, found[name])) == sorted(map(str, wanted)), name


def test_every_reason_for_which_a_connection_is_closed_has_its_series():
    module = (Path(bridge.__file__).parent / "server" / "http" / "connections.py").read_text()
    named = set(re.findall(r'(?:observer\(|close\(|close, )"(\w+)"', module))
    assert named == SERIES["bridge_connections_closed"]["reason"]


def test_every_code_that_an_upload_can_be_answered_with_has_its_series():
    assert {answer.error.code for answer in ANSWERS} <= set(error_codes())


def test_every_call_that_a_client_observes_has_its_series():
    named = [(module.stem, call) for module in CLIENTS for call in re.findall(r'observed\("(\w+)"', module.read_text())]
    testnod = re.findall(r'self\._call\("(\w+)"', (CLIENT / "testnod.py").read_text())
    assert len(named) > 5
    assert {call for _, call in named} | set(testnod) == {call for calls in CALLS.values() for call in calls}


def test_two_gateways_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.count_accepted()
    assert sample(other, "bridge_reports_accepted_total") == 0


def test_the_metrics_have_these_names_and_no_others():
    names = re.findall(r"(?m)^# TYPE (\S+) ", Metrics().render().decode())
    assert {name for name in names if not name.endswith("_created")} == {
        "bridge_reports_accepted_total",
        "bridge_reports_duplicate_total",
        "bridge_rejections_total",
        "bridge_deliveries_pending",
        "bridge_deliveries_oldest_pending_age_seconds",
        "bridge_deliveries_dead",
        "bridge_deliveries_completed_total",
        "bridge_builds_stuck",
        "bridge_runs_replaced_total",
        "bridge_builds_blocked",
        "bridge_builds_result_mismatch",
        "bridge_finalize_lag_seconds",
        "bridge_ledger_commit_writes",
        "bridge_circuit_open_seconds",
        "bridge_upstream_request_duration_seconds",
        "bridge_upstream_requests_total",
        "bridge_proxy_requests_total",
        "bridge_coverage_uploads_total",
        "bridge_codearts_throttled_total",
        "bridge_codearts_calls_per_minute",
        "bridge_task_heartbeat_age_seconds",
        "bridge_connections_closed_total",
        "bridge_config_reloads_total",
        "bridge_tls_certificate_invalid",
        "bridge_notices_sent_total",
        "bridge_notices_failed_total",
        "bridge_notice_events_pending",
        "bridge_notice_events_dropped_total",
        "bridge_tls_certificate_expiry_timestamp_seconds",
        "bridge_ready",
        "bridge_build_info",
        "bridge_spool_free_bytes",
    }
