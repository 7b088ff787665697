"""The counter: accepted reports and refusals become rows, many uploads in one commit.

It knows neither HTTP nor what becomes of a report later. Intake owns no lease: it inserts reports, raises
`report_seq` and pulls `due_at` forward, all in the commit after which CI is told "success".
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Connection,
    Text,
    bindparam,
    case,
    cast,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from bridge.domain.build import BuildState, DeliveryState, DeliveryTarget, UploadMetadata
from bridge.domain.circuit_breaker import TESTNOD, register_breaker, route_breaker
from bridge.domain.intake import AcceptedUpload, NewReport, ReportReceipt, UploadReceipt
from bridge.domain.job_order import queue_of
from bridge.store.duplicates import (
    SOURCE,
    UPLOAD,
    Key,
    build_key,
    dedupe_key,
    joined,
    merge_allowed_routes,
    requeue_dead_deliveries,
)
from bridge.store.rejections import record_rejections
from bridge.store.row_mapping import shown_name
from bridge.store.schema import builds, deliveries, reports
from bridge.store.sql_helpers import CompiledBulkStatement, earlier, insert_new

KNOWN_BUILDS = CompiledBulkStatement(
    lambda _, count: (
        select(builds.c.key, builds.c.id, cast(builds.c.upload_metadata, Text).label("upload_metadata"))
        .where(builds.c.source == literal_column(f"'{SOURCE}'"), builds.c.key.in_(_binds("key", count)))
        # Whoever else writes to these builds waits until this commit: what is read of them here stays true.
        .order_by(builds.c.id)
        .with_for_update(key_share=True)
    )
)
REPORT_COLUMNS = tuple(column.name for column in reports.c if column.name != "id")
NEW_REPORTS = CompiledBulkStatement(
    lambda own_insert, count: (
        own_insert(reports)
        .values([{name: bindparam(f"{name}_{at}") for name in REPORT_COLUMNS} for at in range(count)])
        .on_conflict_do_nothing()
        .returning(reports.c.id, reports.c.build_id, reports.c.dedupe_key)
    )
)
REPORTS_A_STATEMENT = 64  # an upload may bring thousands; a statement's values are limited
AT = bindparam("at", type_=BigInteger)
WAITS_FOR_TESTNOD = or_(
    builds.c.waiting_on == TESTNOD,
    builds.c.waiting_on.like(queue_of("%")),
    *(builds.c.waiting_on.like(breaker("%")) for breaker in (route_breaker, register_breaker)),
)
RAISE_BATCHES = (
    update(builds)
    .where(builds.c.id.in_(bindparam("ids", expanding=True)))
    .values(
        # What waits for TestNod, or in line, waits on: the gate when it opens, or whoever stands before it, pulls the
        # turn forward for old and new alike.
        due_at=case((WAITS_FOR_TESTNOD, builds.c.due_at), else_=earlier(builds.c.due_at, AT)),
        report_seq=builds.c.report_seq + 1,
        last_report_at=case((builds.c.last_report_at < AT, AT), else_=builds.c.last_report_at + 1),
    )
)
OWED_COLUMNS = (
    "build_id",
    "report_id",
    "target",
    "state",
    "pending_since",
    "outage_us_at_first_failure",
    "attempts",
    "due_at",
)
OWE = CompiledBulkStatement(
    lambda _, count: insert(deliveries).values(
        [{name: bindparam(f"{name}_{at}") for name in OWED_COLUMNS} for at in range(count)]
    )
)


def accept(connection: Connection, now: int, acceptances: Sequence[AcceptedUpload]) -> list[UploadReceipt]:
    """Write what uploads brought; return for each what became of it.

    The blob of a report that is KNOWN is not referred to by any row.
    """
    freed = record_rejections(connection, now, acceptances)
    known = _builds(connection, now, acceptances)
    rows: dict[Key, dict[str, Any]] = {}
    targets: dict[Key, tuple[DeliveryTarget, ...]] = {}
    keys: list[list[Key]] = []  # of each acceptance's reports
    for acceptance in acceptances:
        keys.append([(_build_of(known, acceptance).id, _key_of(report)) for report in acceptance.reports])
        for key, report in zip(keys[-1], acceptance.reports, strict=True):
            row = _report_row(key, report, acceptance, now)
            rows[key] = joined(rows[key], row) if key in rows else row
            targets.setdefault(key, acceptance.targets)
    new = _insert_reports(connection, now, rows, targets)
    repeats = {key: rows[key] for key in rows.keys() - new}
    again = requeue_dead_deliveries(connection, now, repeats)
    merge_allowed_routes(connection, {key: row for key, row in repeats.items() if key not in again})
    _raise_batches(connection, now, {build_id for build_id, _ in new | again})
    for acceptance in acceptances:
        if acceptance.complete:
            _complete(connection, now, _build_of(known, acceptance).id)
    _add_said(connection, known, acceptances)
    written = dict.fromkeys(new, ReportReceipt.NEW) | dict.fromkeys(again, ReportReceipt.REQUEUED)
    # Taken out of `written`: of one report sent twice, the first was new.
    return [
        UploadReceipt(receipts=tuple(written.pop(key, ReportReceipt.DUPLICATE) for key in sent), freed=blobs)
        for sent, blobs in zip(keys, freed, strict=True)
    ]


def _key_of(report: NewReport) -> bytes:
    if report.dedupe_key is not None:
        return report.dedupe_key
    return dedupe_key(node_id=report.node_id, name=report.name, received_sha256=report.received_sha256)


def _builds(connection: Connection, now: int, acceptances: Sequence[AcceptedUpload]) -> dict[str, Any]:
    """Return id and said of the builds that something was accepted for, opening those that are new."""
    first: dict[str, AcceptedUpload] = {}
    for acceptance in acceptances:
        if acceptance.reports or acceptance.complete:
            first.setdefault(build_key(acceptance.job_id, acceptance.build_no), acceptance)
    if not first:
        return {}
    known = {row.key: row for row in KNOWN_BUILDS.run(connection, len(first), list(first))}
    missing = sorted(first.keys() - known.keys())
    if missing:
        insert_new(connection, builds, [_build_row(key, first[key], now) for key in missing])
        known |= {row.key: row for row in KNOWN_BUILDS.run(connection, len(missing), missing)}
    return known


def _build_row(key: str, acceptance: AcceptedUpload, now: int) -> dict[str, Any]:
    return {
        "source": SOURCE,
        "key": key,
        "job_id": acceptance.job_id,
        "build_no": acceptance.build_no,
        "state": BuildState.OPEN,
        "report_seq": 0,
        "finalized_seq": 0,
        "due_at": now,
        "fencing_token": 0,
        "accepted_at": now,
        "last_report_at": now,
        "upload_metadata": asdict(acceptance.upload_metadata),
        "polls": 0,
        "poll_due_at": 0,
        "poll_reserved": False,
        "describe_attempts": 0,
        "describe_due_at": 0,
        "describe_reserved": False,
        "route": "",
        "finalize_attempts": 0,
        "finalize_due_at": 0,
        "confirm_due_at": 0,
        "confirm_attempts": 0,
        "outage_us_at_hold": 0,
    }


def _report_row(key: Key, report: NewReport, acceptance: AcceptedUpload, now: int) -> dict[str, Any]:
    counts = report.counts
    return {
        "build_id": key[0],
        "dedupe_key": key[1],
        "source": UPLOAD,
        "name": shown_name(report.name),
        "node_id": report.node_id,
        "size": report.size,
        "sent_size": report.sent_size,
        "received_sha256": report.received_sha256,
        "sent_sha256": report.sent_sha256,
        "suites": counts.suites,
        "tests": counts.tests,
        "failures": counts.failures,
        "errors": counts.errors,
        "skipped": counts.skipped,
        "flaky": counts.flaky,
        "time_us": counts.time_us,
        "notes": json.dumps(report.changes + report.notes),
        "accepted_at": now,
        "caller": acceptance.caller,
        "caller_routes": None if acceptance.caller_routes is None else json.dumps(acceptance.caller_routes),
        "address": acceptance.address,
        "request_id": acceptance.request_id,
        "body": report.body,
        "blob": report.blob,
    }


def _insert_reports(
    connection: Connection, now: int, rows: dict[Key, dict[str, Any]], targets: dict[Key, tuple[DeliveryTarget, ...]]
) -> set[Key]:
    """Insert the reports and owe the new ones; return the keys of those that nobody had sent before.

    Which were new is the unique index' answer, so two who send the same at once cannot both be told yes.
    """
    new: set[Key] = set()
    ordered = sorted(rows)
    for start in range(0, len(ordered), REPORTS_A_STATEMENT):
        keys = ordered[start : start + REPORTS_A_STATEMENT]
        values = [rows[key][name] for key in keys for name in REPORT_COLUMNS]
        inserted = NEW_REPORTS.run(connection, len(keys), values).all()
        if inserted:
            owed = [
                _owed(row.build_id, row.id, target, now)
                for row in inserted
                for target in targets[row.build_id, row.dedupe_key]
            ]
            OWE.run(connection, len(owed), [value for values in owed for value in values])
            new |= {(row.build_id, row.dedupe_key) for row in inserted}
    return new


def _owed(build_id: int, report_id: int, target: DeliveryTarget, now: int) -> tuple[Any, ...]:
    """Return the values of OWED_COLUMNS."""
    return build_id, report_id, target.value, DeliveryState.PENDING.value, now, 0, 0, now


def _binds(name: str, count: int) -> list[BindParameter[Any]]:
    return [bindparam(f"{name}_{at}") for at in range(count)]


def _build_of(known: dict[str, Any], acceptance: AcceptedUpload) -> Any:
    return known[build_key(acceptance.job_id, acceptance.build_no)]


def _raise_batches(connection: Connection, now: int, build_ids: set[int]) -> None:
    """Let the builds that owe something new be looked at now.

    `last_report_at` always moves, so that a guessed end can tell that a report came after it.
    """
    if not build_ids:
        return
    connection.execute(RAISE_BATCHES, {"ids": list(build_ids), "at": now})


def _complete(connection: Connection, now: int, build_id: int) -> None:
    """Note `complete=true`, once: a repeat of what is known raises nothing."""
    statement = update(builds).where(builds.c.id == build_id, builds.c.complete_at.is_(None))
    # It raises no batch, so a visit under way can tell by a changed due time only that something came.
    connection.execute(statement.values(complete_at=now, due_at=earlier(builds.c.due_at - 1, now)))


def _add_said(connection: Connection, known: dict[str, Any], acceptances: Sequence[AcceptedUpload]) -> None:
    """Add what an upload said of its build and no earlier one did."""
    upload_metadata: dict[str, dict[str, str | None]] = {}
    for acceptance in acceptances:
        key = build_key(acceptance.job_id, acceptance.build_no)
        if key not in known or acceptance.upload_metadata == UploadMetadata():
            continue
        before = upload_metadata.setdefault(key, json.loads(known[key].upload_metadata))
        merged = {name: before[name] or value for name, value in asdict(acceptance.upload_metadata).items()}
        if merged != before:
            upload_metadata[key] = merged
            connection.execute(update(builds).where(builds.c.id == known[key].id).values(upload_metadata=merged))
