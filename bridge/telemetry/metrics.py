"""The bridge's figures for Prometheus, in a registry of their own; the only module that knows prometheus_client.

It must not know where a number comes from: rooms call its methods, /metrics shows `render()`.
"""

from collections.abc import Mapping
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bridge.telemetry import labels

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# grace_period is 10 s by default, max_finalize_delay 30 min
LAG_SECONDS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600)
GROUP_SIZES = (1, 2, 4, 8, 16, 32, 64)  # a commit takes at most 64 writes
UPSTREAM_SECONDS = (
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
)  # small calls end at 30 s


class Metrics:
    """All figures of one gateway. Labels come from closed sets: routes, codes and calls, never from callers.

    Counters exist with 0 for every value of their labels from the start, and so do deliveries owed and dead.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._accepted = self._counter("bridge_reports_accepted", "Reports accepted: bytes and row are on disk.")
        self._known = self._counter("bridge_reports_duplicate", "Reports that were accepted before and sent again.")
        self._refused = self._counter("bridge_rejections", "Files and uploads refused, by code.", "code")
        self._deliveries = self._gauge("bridge_deliveries", "Deliveries owed and dead now.", "target", "state")
        self._delivered = self._counter("bridge_deliveries_completed", "Deliveries made.", "target")
        self._stuck = self._gauge("bridge_builds_stuck", "Builds whose run stays pending at TestNod.")
        self._blocked = self._gauge("bridge_builds_blocked", "Builds that wait until a person mends something.")
        self._away = self._gauge("bridge_circuit_open_seconds", "Since an upstream has been away.", "upstream")
        self._lag = self._histogram("bridge_finalize_lag_seconds", "From a build's end to its finalize.", LAG_SECONDS)
        self._group = self._histogram("bridge_ledger_commit_writes", "Writes that shared one commit.", GROUP_SIZES)
        self._upstream = self._histogram(
            "bridge_upstream_request_duration_seconds", "Calls to upstreams.", UPSTREAM_SECONDS, "upstream", "call"
        )
        self._answers = self._counter(
            "bridge_upstream_requests", "Answers of upstreams.", "upstream", "call", "outcome"
        )
        self._proxied = self._counter("bridge_proxy_requests", "Calls passed on to CodeArts.", "upstream", "status")
        self._heartbeat = self._gauge("bridge_task_heartbeat_age_seconds", "Since a loop last turned.", "task")
        self._cut = self._counter(
            "bridge_connections_closed", "Connections of clients that were cut, by why.", "reason"
        )
        self._reloads = self._counter("bridge_config_reloads", "Settings read again, by what came of it.", "result")
        self._certificate = self._gauge(
            "bridge_tls_certificate_invalid", "1 while the files of the certificate hold none that can be shown."
        )
        self._free = self._gauge("bridge_spool_free_bytes", "Free space where the spool is.")
        self._begin()

    def _begin(self) -> None:
        """Make every series whose labels are known in advance, so that alerts see the first event of each."""
        for code in labels.refusal_codes():
            self._refused.labels(code)
        for target in labels.TARGETS:
            self._delivered.labels(target)
        for answer in labels.answers():
            self._answers.labels(*answer)
        for upstream, status in product(labels.PROXIED, labels.PROXIED_STATUSES):
            self._proxied.labels(upstream, status)
        for why in labels.CLOSE_REASONS:
            self._cut.labels(why)
        for result in labels.RELOADED:
            self._reloads.labels(result)
        self.deliveries({})

    def accepted(self, count: int = 1) -> None:
        self._accepted.inc(count)

    def known(self, count: int = 1) -> None:
        self._known.inc(count)

    def refused(self, code: str) -> None:
        self._refused.labels(code).inc()

    def delivered(self, target: str, count: int = 1) -> None:
        self._delivered.labels(target).inc(count)

    def deliveries(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Set what is owed and dead now, by (target, state); pairs that are absent are 0."""
        self._deliveries.clear()
        for pair in product(labels.TARGETS, labels.UNFINISHED):
            self._deliveries.labels(*pair)
        for (target, state), count in counts.items():
            self._deliveries.labels(target, state).set(count)

    def builds(self, *, stuck: int, blocked: int) -> None:
        self._stuck.set(stuck)
        self._blocked.set(blocked)

    def away(self, seconds: Mapping[str, float]) -> None:
        """Set for how long upstreams have been away, by the name of their gate; absent ones are there."""
        self._away.clear()
        for upstream, away in seconds.items():
            self._away.labels(upstream).set(away)

    def finalized(self, lag_seconds: float) -> None:
        self._lag.observe(lag_seconds)

    def committed(self, group_size: int) -> None:
        self._group.observe(group_size)

    def upstream(self, upstream: str, call: str, seconds: float, outcome: str) -> None:
        """Count one call: which upstream, which call, how long it took, the name of its outcome."""
        self._upstream.labels(upstream, call).observe(seconds)
        self._answers.labels(upstream, call, outcome).inc()

    def connection_cut(self, why: str) -> None:
        self._cut.labels(why).inc()

    def proxied(self, upstream: str, status: int | None) -> None:
        """Count one proxied call by the class of its status, such as 2xx; None: the caller went away first."""
        self._proxied.labels(upstream, f"{status // 100}xx" if status else "none").inc()

    def heartbeat(self, loop: str, age_seconds: float) -> None:
        self._heartbeat.labels(loop).set(age_seconds)

    def reloaded(self, result: str) -> None:
        """Count one reload: `success`, or `rejected` with everything left as it was."""
        self._reloads.labels(result).inc()

    def certificate(self, *, refused: bool) -> None:
        self._certificate.set(refused)

    def spool_free(self, free_bytes: int) -> None:
        self._free.set(free_bytes)

    def render(self) -> bytes:
        """Return all figures in Prometheus' text format, of type CONTENT_TYPE."""
        return generate_latest(self._registry)

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(name, says, labels, registry=self._registry)

    def _gauge(self, name: str, says: str, *labels: str) -> Gauge:
        return Gauge(name, says, labels, registry=self._registry)

    def _histogram(self, name: str, says: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, says, labels, registry=self._registry, buckets=buckets)
