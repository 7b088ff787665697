"""The bridge's Prometheus metrics. Components call the methods of `Metrics`; /metrics returns `render()`.

To add a metric, create it in `Metrics.__init__`, the series of a counter with labels in `_create_series`, and add a row
to docs/operate.md.
"""

import platform
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from types import UnionType
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bridge import __version__
from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.circuit_breaker import ARCHIVE, CODEARTS, MIRROR, TESTNOD, breakers_of
from bridge.domain.lifecycle.mirror import StagesOutcome, SummaryOutcome, UploadOutcome
from bridge.domain.outcomes import (
    CheckOutcome,
    DetailsOutcome,
    FinalizeOutcome,
    JobListOutcome,
    NotSent,
    PollOutcome,
    PutOutcome,
    RecordListOutcome,
    RecordOutcome,
    RegisterOutcome,
    UploadFailedOutcome,
)
from bridge.domain.request_rate import Api
from bridge.domain.result_mismatch import MismatchKind
from bridge.errors import BridgeError
from bridge.protocols.iam import TokenOutcome, ValidationOutcome
from bridge.protocols.notices import NoticeFormat

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LAG_SECONDS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600)
"""Buckets from the default of polling.grace_period (10 s) to beyond that of delivery.max_finalize_delay (30 min)."""
COMMIT_WRITES = (1, 2, 4, 8, 16, 32, 64)  # a commit has at most 64 writes
CALL_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)  # calls without a body end at 30 s

CLOSE_REASONS = ("header_timeout", "header_size", "write_timeout", "limit")
UPSTREAMS = (TESTNOD, CODEARTS, ARCHIVE, MIRROR)
RELOAD_RESULTS = ("success", "rejected")
PROXY_UPSTREAMS = ("build", "check", "iam", "none")  # none: the path has several readings
PROXY_STATUSES = ("2xx", "3xx", "4xx", "5xx", "none")

CALLS: dict[str, dict[str, UnionType]] = {
    "testnod": {
        "register": RegisterOutcome,
        "finalize": FinalizeOutcome,
        "upload_failed": UploadFailedOutcome,
        "probe": FinalizeOutcome,
    },
    "storage": {"put": PutOutcome},
    "codearts": {
        "build_info": PollOutcome,
        "record_info": RecordOutcome,
        "record_list": RecordListOutcome,
        "job_list": JobListOutcome,
        "record_details": DetailsOutcome,
        "upload": UploadOutcome,
        "full_stages": StagesOutcome,
        "summary": SummaryOutcome,
    },
    "check": {"refresh": CheckOutcome},
    "iam": {"log_in": TokenOutcome | NotSent, "validate": ValidationOutcome | NotSent},
}
"""The calls to each upstream and their possible outcomes. S3 is omitted: if the spool is a folder, it gets no calls."""


class Metrics:
    """All metrics of one gateway. Labels have small sets of values: constants, or names of routes and tasks.

    Each series exists with 0 from the start, but those of routes, which the first scrape creates: Prometheus sees no
    increase in a series that its first event creates, so an alert would miss that event.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._accepted = self._counter("bridge_reports_accepted", "Reports that were stored and answered with success.")
        self._duplicate = self._counter(
            "bridge_reports_duplicate", "Reports that were sent again after they had been accepted."
        )
        self._rejections = self._counter("bridge_rejections", "Rejected files and uploads, by error code.", "code")
        self._pending = self._gauge("bridge_deliveries_pending", "Deliveries that are pending now.", "target")
        self._oldest_pending = self._gauge(
            "bridge_deliveries_oldest_pending_age_seconds",
            "How long the oldest pending delivery has been pending; 0 if none is.",
            "target",
        )
        self._dead = self._gauge("bridge_deliveries_dead", "Deliveries that were given up.", "target")
        self._completed = self._counter("bridge_deliveries_completed", "Completed deliveries.", "target")
        self._stuck = self._gauge("bridge_builds_stuck", "Builds whose run stays pending at TestNod after finalize.")
        self._replaced = self._counter(
            "bridge_runs_replaced", "Runs that a lost registration held in pending, and whose build was sent again."
        )
        self._blocked = self._gauge("bridge_builds_blocked", "Builds that wait for an operator.")
        self._mismatches = self._gauge(
            "bridge_builds_result_mismatch",
            "Builds that ended in the last 24 hours and whose CodeArts result differs from their reports.",
            "kind",
            "route",
        )
        self._circuit_open = self._gauge(
            "bridge_circuit_open_seconds", "How long a circuit breaker has been open; 0 while closed.", "upstream"
        )
        self._lag = self._histogram(
            "bridge_finalize_lag_seconds", "Time from the end of a build to its finalize.", LAG_SECONDS
        )
        self._commit_writes = self._histogram(
            "bridge_ledger_commit_writes", "Writes that shared one commit.", COMMIT_WRITES
        )
        self._call_seconds = self._histogram(
            "bridge_upstream_request_duration_seconds", "Duration of calls.", CALL_SECONDS, "upstream", "call"
        )
        self._calls = self._counter("bridge_upstream_requests", "Calls by outcome.", "upstream", "call", "outcome")
        self._call_series: dict[tuple[str, str, str], tuple[Histogram, Counter]] = {}
        self._coverage_uploads = self._counter(
            "bridge_coverage_uploads", "Uploads of coverage reports, by class of the answer.", "status"
        )
        self._throttled = self._counter("bridge_codearts_throttled", "Calls that CodeArts throttled, by API.", "api")
        self._rates = self._gauge(
            "bridge_codearts_calls_per_minute", "Calls a minute that the bridge makes at most now, by API.", "api"
        )
        self._proxied = self._counter(
            "bridge_proxy_requests", "Calls forwarded to CodeArts, by class of the answer.", "upstream", "status"
        )
        self._heartbeat = self._gauge(
            "bridge_task_heartbeat_age_seconds", "Time since a background task last ran.", "task"
        )
        self._closed = self._counter(
            "bridge_connections_closed", "Client connections that the bridge closed, by reason.", "reason"
        )
        self._reloads = self._counter("bridge_config_reloads", "Reloads of the settings, by result.", "result")
        self._certificate_invalid = self._gauge(
            "bridge_tls_certificate_invalid", "1 while the certificate files cannot be used."
        )
        self._notices_sent = self._counter("bridge_notices_sent", "Notices that arrived, by format.", "format")
        self._notices_failed = self._counter(
            "bridge_notices_failed", "Attempts to send a notice that failed.", "format"
        )
        self._notice_events_pending = self._gauge("bridge_notice_events_pending", "Events that were not sent yet.")
        self._notice_events_dropped = self._counter(
            "bridge_notice_events_dropped", "Events whose target was removed from the settings."
        )
        self._certificate_expiry = self._gauge(
            "bridge_tls_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires, as a Unix time; 0 without TLS.",
        )
        self._spool_free = self._gauge("bridge_spool_free_bytes", "Free space for the spool.")
        self._ready = self._gauge("bridge_ready", "1 while uploads are accepted, as /readyz has it.")
        build_info = self._gauge("bridge_build_info", "1, with the version of this gateway.", "version", "python")
        build_info.labels(__version__, platform.python_version()).set(1)
        self._create_series()

    def _create_series(self) -> None:
        for code in error_codes():
            self._rejections.labels(code)
        for target in DeliveryTarget:
            self._completed.labels(target)
        for upstream, call, outcome in call_outcomes():
            self._calls.labels(upstream, call, outcome)
            self._call_seconds.labels(upstream, call)
        for api in Api:
            self._throttled.labels(api)
        for upstream, status in product(PROXY_UPSTREAMS, PROXY_STATUSES):
            self._proxied.labels(upstream, status)
        for status in PROXY_STATUSES:
            self._coverage_uploads.labels(status)
        for reason in CLOSE_REASONS:
            self._closed.labels(reason)
        for result in RELOAD_RESULTS:
            self._reloads.labels(result)
        for format_ in NoticeFormat:
            self._notices_sent.labels(format_)
            self._notices_failed.labels(format_)
        self.set_deliveries({})
        self.set_circuits({})
        self.set_result_mismatches({})

    # -- uploads and deliveries ----------------------------------------------------------------------------------

    def count_accepted(self, count: int = 1) -> None:
        self._accepted.inc(count)

    def count_duplicates(self, count: int = 1) -> None:
        self._duplicate.inc(count)

    def count_rejection(self, code: str) -> None:
        self._rejections.labels(code).inc()

    def count_delivered(self, target: str, count: int = 1) -> None:
        self._completed.labels(target).inc(count)

    def set_deliveries(
        self, counts: Mapping[tuple[str, str], int], oldest_seconds: Mapping[str, float] | None = None
    ) -> None:
        """Set the pending and dead deliveries, by (target, state), and the age of the oldest pending one by target.

        What is missing is 0.
        """
        oldest_seconds = oldest_seconds or {}
        for target in DeliveryTarget:
            self._oldest_pending.labels(target).set(oldest_seconds.get(target, 0))
            self._pending.labels(target).set(counts.get((target, DeliveryState.PENDING), 0))
            self._dead.labels(target).set(counts.get((target, DeliveryState.DEAD), 0))

    def set_builds(self, *, stuck: int, blocked: int) -> None:
        self._stuck.set(stuck)
        self._blocked.set(blocked)

    def count_replaced(self) -> None:
        self._replaced.inc()

    def set_result_mismatches(self, counts: Mapping[tuple[str, str], int], routes: Iterable[str] = ()) -> None:
        """Set the builds whose result differs from their reports, by (kind, route); missing pairs of `routes` are 0."""
        self._mismatches.clear()
        for kind, route in product(MismatchKind, ("", *routes)):
            self._mismatches.labels(kind, route)
        for pair, count in counts.items():
            self._mismatches.labels(*pair).set(count)

    def observe_finalize_lag(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def observe_commit(self, writes: int) -> None:
        self._commit_writes.observe(writes)

    # -- upstreams -----------------------------------------------------------------------------------------------

    def observe_call(self, upstream: str, call: str, seconds: float, outcome: str) -> None:
        """Count a call and its duration; `outcome` is the name of the outcome's class."""
        found = self._call_series.get((upstream, call, outcome))
        if found is None:  # kept: `labels` takes longer than the rest
            found = self._call_seconds.labels(upstream, call), self._calls.labels(upstream, call, outcome)
            self._call_series[upstream, call, outcome] = found
        duration, calls = found
        duration.observe(seconds)
        calls.inc()

    def set_circuits(self, open_seconds: Mapping[str, float], routes: Iterable[str] = ()) -> None:
        """Set how long breakers have been open, by name; missing ones of upstreams and `routes` are 0."""
        self._circuit_open.clear()
        for upstream in (*UPSTREAMS, *(name for route in routes for name in breakers_of(route))):
            self._circuit_open.labels(upstream)
        for upstream, age in open_seconds.items():
            self._circuit_open.labels(upstream).set(age)

    def count_throttled(self, api: str) -> None:
        self._throttled.labels(api).inc()

    def set_rates(self, per_minute: Mapping[str, float]) -> None:
        """Set how many calls a minute the bridge makes at most, by API of CodeArts."""
        for api, rate in per_minute.items():
            self._rates.labels(api).set(rate)

    def count_proxied(self, upstream: str, status: int | None) -> None:
        """Count a forwarded call by the class of its status, such as 2xx; None if the caller left first."""
        self._proxied.labels(upstream, f"{status // 100}xx" if status else "none").inc()

    def count_coverage_upload(self, status: int | None) -> None:
        """Count an upload of coverage reports, by the class of its status as `count_proxied`."""
        self._coverage_uploads.labels(f"{status // 100}xx" if status else "none").inc()

    # -- notices -------------------------------------------------------------------------------------------------

    def count_notice_sent(self, format_: NoticeFormat) -> None:
        self._notices_sent.labels(format_).inc()

    def count_notice_failed(self, format_: NoticeFormat) -> None:
        self._notices_failed.labels(format_).inc()

    def set_pending_notice_events(self, count: int) -> None:
        self._notice_events_pending.set(count)

    def count_dropped_notice_events(self, count: int) -> None:
        self._notice_events_dropped.inc(count)

    # -- the process ---------------------------------------------------------------------------------------------

    def set_heartbeat(self, task: str, age_seconds: float) -> None:
        self._heartbeat.labels(task).set(age_seconds)

    def count_closed_connection(self, reason: str) -> None:
        self._closed.labels(reason).inc()

    def count_reload(self, result: str) -> None:
        """Count a reload: `success`, or `rejected` if nothing changed."""
        self._reloads.labels(result).inc()

    def set_certificate_invalid(self, *, invalid: bool) -> None:
        self._certificate_invalid.set(invalid)

    def set_certificate_expiry(self, expires_at: float) -> None:
        """Set when the certificate in use expires, in seconds since 1970."""
        self._certificate_expiry.set(expires_at)

    def set_ready(self, *, ready: bool) -> None:
        self._ready.set(ready)

    def set_spool_free(self, free_bytes: int) -> None:
        self._spool_free.set(free_bytes)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format, of type CONTENT_TYPE."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self._registry, buckets=buckets)


def call_outcomes() -> Iterator[tuple[str, str, str]]:
    """Yield upstream, call and outcome of every series of calls."""
    for upstream, calls in CALLS.items():
        for call, outcomes in calls.items():
            for outcome in get_args(outcomes):
                yield upstream, call, outcome.__name__


def error_codes(error: type[BridgeError] = BridgeError) -> Iterator[str]:
    """Yield the code of `error` and of each of its subclasses."""
    yield error.code
    for kind in error.__subclasses__():
        yield from error_codes(kind)
