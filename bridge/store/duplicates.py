"""Identity of builds and reports, and reports that were accepted before and are sent again.

A repeat of a report makes its dead deliveries pending again, and extends the routes that it may go to.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Update, bindparam, select, update

from bridge.domain.build import BuildNo, DeliveryState, DeliveryTarget
from bridge.store.schema import deliveries, reports

SOURCE: Final = "codearts"
"""The system that numbers the builds."""

SUBMITTED: Final = "testnod"
"""The source of submitted builds, which come through TestNod's API."""

SOURCES: Final = (SOURCE, SUBMITTED)

UPLOAD: Final = "upload"
"""The source of uploaded reports."""

GENERATED: Final = "generated"
"""The source of the bridge's own reports: a build has one of each node and name, whatever its content."""

KEYS_PER_STATEMENT: Final = 5_000
"""Each key has two values, and PostgreSQL accepts 32,767 in a statement."""

ReportKey = tuple[int, bytes]
"""The unique key of a report: build id and dedupe key."""


def source_of(build_no: BuildNo) -> str:
    """Return the source of a build."""
    return SUBMITTED if isinstance(build_no, str) else SOURCE


def build_key(job_id: str, build_no: BuildNo) -> str:
    """Return the key of a build within its source: `{job_id}/{build_no}`."""
    return f"{job_id}/{build_no}"


def build_of_key(source: str, key: str) -> tuple[str, BuildNo]:
    """Return `job_id` and `build_no` of a key."""
    job_id, _, build_no = key.rpartition("/")
    return job_id, build_no if source == SUBMITTED else int(build_no)


def dedupe_key(*, node_id: str, name: str, received_sha256: str, source: str = UPLOAD) -> bytes:
    """Return the identity of a report within its build: a digest of source, node, full raw name and digest."""
    parts = [part.encode("utf-8", "surrogatepass") for part in (source, node_id, name, received_sha256)]
    return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


class NewReportRow(NamedTuple):
    """A row to insert into `reports`: all columns but the id, with JSON columns as text."""

    build_id: int
    dedupe_key: bytes
    source: str
    name: str
    node_id: str
    size: int
    sent_size: int
    received_sha256: str
    sent_sha256: str
    suites: int
    tests: int
    failures: int
    errors: int
    skipped: int
    flaky: int
    suite_errors: int
    disabled: int
    time_us: int
    notes: str
    highlights: str
    accepted_at: int
    caller: str
    caller_routes: str | None
    address: str
    request_id: str
    body: bytes | None
    blob: str | None
    failure: str | None
    trace_context: str | None


ReportRows = Mapping[ReportKey, NewReportRow]

REPLACED = (
    *("body", "blob", "sent_size", "sent_sha256", "notes", "highlights"),
    *("suites", "tests", "failures", "errors", "skipped", "flaky", "suite_errors", "disabled", "time_us"),
    *("caller", "caller_routes", "address", "request_id", "trace_context"),
)
"""The columns that a repeat of a dead report replaces: its route may repair or strip by now, and its caller may have
other rights."""


# -- dead deliveries ---------------------------------------------------------------------------------------------


class _DeadReport(NamedTuple):
    build_id: int
    dedupe_key: bytes
    report_id: int


def requeue_dead_deliveries(connection: Connection, now: int, repeats: ReportRows) -> set[ReportKey]:
    """Make the dead deliveries of reports pending whose delivery to TestNod is dead; the new bytes replace the old.

    Return the keys of these reports. A report of which only the archive's copy is dead is left alone: TestNod may have
    other bytes of it.
    """
    return {key for portion in _portions(repeats) for key in _requeue_portion(connection, now, portion)}


def _portions(rows: ReportRows) -> Iterator[dict[ReportKey, NewReportRow]]:
    """Split `rows` for statements of at most KEYS_PER_STATEMENT keys."""
    keys = sorted(rows)
    for start in range(0, len(keys), KEYS_PER_STATEMENT):
        yield {key: rows[key] for key in keys[start : start + KEYS_PER_STATEMENT]}


def _requeue_portion(connection: Connection, now: int, repeats: ReportRows) -> set[ReportKey]:
    query = (
        select(reports.c.build_id, reports.c.dedupe_key, deliveries.c.report_id)
        .join(deliveries, deliveries.c.report_id == reports.c.id)
        .where(
            reports.c.build_id.in_({build_id for build_id, _ in repeats}),
            reports.c.dedupe_key.in_({key for _, key in repeats}),
            deliveries.c.state == DeliveryState.DEAD,
            deliveries.c.target == DeliveryTarget.TESTNOD,
        )
    )
    found = {(row.build_id, row.dedupe_key): row.report_id for row in map(_DeadReport._make, connection.execute(query))}
    dead = {key: report_id for key, report_id in found.items() if key in repeats}  # also holds other combinations
    if not dead:
        return set()
    requeue = requeued(now).where(deliveries.c.report_id == bindparam("dead_id"))
    connection.execute(requeue, [{"dead_id": report_id} for report_id in dead.values()])
    replace = update(reports).where(reports.c.id == bindparam("report_id"))
    replace = replace.values({name: bindparam(f"new_{name}") for name in REPLACED})
    values = [{"report_id": report_id} | _replacement(repeats[key]) for key, report_id in dead.items()]
    connection.execute(replace, values)
    return set(dead)


def _replacement(row: NewReportRow) -> dict[str, Any]:
    values = {f"new_{name}": getattr(row, name) for name in REPLACED}
    # This statement converts JSON itself, unlike the insert.
    return values | {
        "new_notes": json.loads(row.notes),
        "new_highlights": json.loads(row.highlights),
        "new_caller_routes": _routes(row.caller_routes),
    }


def requeued(now: int) -> Update:
    """Return the statement that makes dead deliveries pending: attempts and the give-up clock start again."""
    return (
        update(deliveries)
        .where(deliveries.c.state == DeliveryState.DEAD)
        .values(
            state=DeliveryState.PENDING,
            pending_since=now,
            due_at=now,
            attempts=0,
            first_failure_at=None,
            outage_us_at_first_failure=0,
            rejected_since=None,
            blocked_since=None,
            send_alone=False,
            last_error=None,
            unread=None,
            unread_since=None,
            unread_at=None,
        )
    )


# -- routes of several callers -----------------------------------------------------------------------------------


def with_routes_of(row: NewReportRow, repeat: NewReportRow) -> NewReportRow:
    """Return the `row` of a report that comes twice in one commit: it may go to the routes of both callers."""
    routes = union_of_routes(_routes(row.caller_routes), _routes(repeat.caller_routes))
    return row._replace(caller_routes=None if routes is None else json.dumps(routes))


def merge_allowed_routes(connection: Connection, repeats: ReportRows) -> None:
    """Let duplicates go to the routes of all their callers: each caller got the answer "success"."""
    for portion in _portions(repeats):
        _merge_portion(connection, portion)


def _merge_portion(connection: Connection, repeats: ReportRows) -> None:
    query = select(reports.c.id, reports.c.build_id, reports.c.dedupe_key, reports.c.caller_routes).where(
        reports.c.build_id.in_({build_id for build_id, _ in repeats}),
        reports.c.dedupe_key.in_({key for _, key in repeats}),
        reports.c.caller_routes.is_not(None),
    )
    for row in connection.execute(query).all():
        repeat = repeats.get((row.build_id, row.dedupe_key))
        if repeat is None:
            continue
        routes = union_of_routes(row.caller_routes, _routes(repeat.caller_routes))
        if routes != row.caller_routes:
            connection.execute(update(reports).where(reports.c.id == row.id).values(caller_routes=routes))


def _routes(text: str | None) -> list[str] | None:
    routes: list[str] | None = None if text is None else json.loads(text)
    return routes


def union_of_routes(routes: list[str] | None, others: list[str] | None) -> list[str] | None:
    """Return the routes of two callers together; None stands for all routes."""
    return None if routes is None or others is None else sorted({*routes, *others})
