"""Writes accepted uploads: reports and their deliveries, rejections, and what the upload says of its build.

It needs no lease: it inserts reports, raises `report_seq` and makes builds due, all in the commit after which the
caller gets the answer "success". Many uploads share one commit.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from bridge.domain.build import BuildState, DeliveryState, DeliveryTarget, SubmittedRun, UploadMetadata
from bridge.domain.intake import AcceptedUpload, NewRejection, NewReport, ReportReceipt, UploadReceipt
from bridge.domain.job_order import HOLDS_REPORTS, reports_wait
from bridge.domain.junit.result import TestCounts, highlights_to_json
from bridge.store.duplicates import (
    SOURCES,
    UPLOAD,
    NewReportRow,
    ReportKey,
    build_key,
    dedupe_key,
    merge_allowed_routes,
    requeue_dead_deliveries,
    source_of,
    union_of_routes,
    with_routes_of,
)
from bridge.store.engine.compiled import BulkStatement, Statement, is_one_of
from bridge.store.notices import add_events
from bridge.store.rejections import record_rejections
from bridge.store.row_mapping import shown_name
from bridge.store.schema import builds, deliveries, report_cases, reports
from bridge.store.sql_helpers import earlier


class KnownBuild(NamedTuple):
    """What an upload needs of its build; metadata and routes are JSON."""

    key: str
    id: int
    route: str
    complete_at: int | None
    complete_routes: str | None
    upload_metadata: str
    bound_metadata: str | None
    waiting_on: str | None


class InsertedReport(NamedTuple):
    """A report that was new."""

    id: int
    build_id: int
    dedupe_key: bytes


class NewDeliveryRow(NamedTuple):
    """A row to insert into `deliveries`; columns that are not here start as null or with their default."""

    build_id: int
    report_id: int
    target: str
    state: str
    pending_since: int
    outage_us_at_first_failure: int
    attempts: int
    due_at: int


def _binds(name: str, count: int) -> list[sa.BindParameter[Any]]:
    return [sa.bindparam(f"{name}_{at}") for at in range(count)]


JSON_COLUMNS = ("complete_routes", "upload_metadata", "bound_metadata")
KNOWN_COLUMNS = (
    *(builds.c.key, builds.c.id, builds.c.route, builds.c.complete_at),
    *(sa.cast(builds.c[name], sa.Text).label(name) for name in JSON_COLUMNS),
    builds.c.waiting_on,
)


def _find_builds_of(source: str) -> BulkStatement:
    return BulkStatement(
        lambda _, count: (
            sa.select(*KNOWN_COLUMNS)
            .where(builds.c.source == sa.literal_column(f"'{source}'"), builds.c.key.in_(_binds("key", count)))
            # Other writers to these builds wait until this commit: the rows stay as they are read here.
            .order_by(builds.c.id)
            .with_for_update(key_share=True)
        )
    )


FIND_BUILDS = {source: _find_builds_of(source) for source in SOURCES}
INSERT_REPORTS = BulkStatement(
    lambda own_insert, count: (
        own_insert(reports)
        .values([{name: sa.bindparam(f"{name}_{at}") for name in NewReportRow._fields} for at in range(count)])
        .on_conflict_do_nothing()
        .returning(reports.c.id, reports.c.build_id, reports.c.dedupe_key)
    )
)
INSERT_DELIVERIES = BulkStatement(
    lambda _, count: sa.insert(deliveries).values(
        [{name: sa.bindparam(f"{name}_{at}") for name in NewDeliveryRow._fields} for at in range(count)]
    )
)
INSERT_CASES = BulkStatement(
    lambda _, count: sa.insert(report_cases).values(
        [{name: sa.bindparam(f"{name}_{at}") for name in ("report_id", "digest")} for at in range(count)]
    )
)
REPLACE_CASES = sa.update(report_cases).where(
    report_cases.c.report_id
    == sa.select(reports.c.id)
    .where(reports.c.build_id == sa.bindparam("of_build"), reports.c.dedupe_key == sa.bindparam("of_key"))
    .scalar_subquery()
)
REPORTS_PER_STATEMENT: Final = 64
"""An upload may bring thousands of reports; the number of values in a statement is limited."""

MAX_QUEUE_NAME: Final = 32
"""Characters of the column: submitted builds of a route with a longer name do not wait for each other."""

NOW = sa.bindparam("now", type_=sa.BigInteger)
REPORTS_WAIT = sa.or_(*(builds.c.waiting_on.like(f"{prefix}%") for prefix in HOLDS_REPORTS))
WAKE_BUILDS = Statement(
    sa.update(builds)
    .where(is_one_of(builds.c.id, "ids"))
    .values(
        due_at=sa.case((REPORTS_WAIT, builds.c.due_at), else_=earlier(builds.c.due_at, NOW)),
        report_seq=builds.c.report_seq + 1,
        # It always changes, so that an inferred end can be compared with it.
        last_report_at=sa.case((builds.c.last_report_at < NOW, NOW), else_=builds.c.last_report_at + 1),
    )
)
MARK_COMPLETE = Statement(
    sa.update(builds)
    .where(builds.c.id == sa.bindparam("row_id", type_=sa.BigInteger))
    .values(
        complete_at=NOW,
        complete_routes=sa.bindparam("routes", type_=builds.c.complete_routes.type),
        # report_seq stays, so a concurrent reconciler can notice the upload only by a due time that always changes.
        due_at=earlier(builds.c.due_at - 1, NOW),
    )
)
SET_METADATA = Statement(
    sa.update(builds)
    .where(builds.c.id == sa.bindparam("row_id", type_=sa.BigInteger))
    .values(
        upload_metadata=sa.bindparam("new_metadata", type_=builds.c.upload_metadata.type),
        bound_metadata=sa.bindparam("new_bound_metadata", type_=builds.c.bound_metadata.type),
    )
)


def accept(connection: sa.Connection, now: int, uploads: Sequence[AcceptedUpload]) -> list[UploadReceipt]:
    """Write uploads and return a receipt for each. No row refers to the blob of a DUPLICATE report.

    The uploads are all of one source: `submissions.accept_submitted` takes those of submitted builds. Nothing is
    written of an upload for a build that has one of its forbidden routes.
    """
    known = _find_or_insert_builds(connection, now, uploads)
    allowed = [upload for upload in uploads if not _is_forbidden(known, upload)]
    written = iter(_accept_allowed(connection, now, allowed, known))
    forbidden = UploadReceipt(receipts=(), forbidden=True)
    return [forbidden if _is_forbidden(known, upload) else next(written) for upload in uploads]


def _is_forbidden(known: Mapping[str, KnownBuild], upload: AcceptedUpload) -> bool:
    build = known.get(build_key(upload.job_id, upload.build_no))
    return build is not None and build.route in upload.forbidden_routes and bool(upload.reports or upload.complete)


def _accept_allowed(
    connection: sa.Connection, now: int, uploads: Sequence[AcceptedUpload], known: Mapping[str, KnownBuild]
) -> list[UploadReceipt]:
    freed = record_rejections(connection, now, uploads)
    add_events(connection, now, [event for upload in uploads for event in upload.notices])
    rows: dict[ReportKey, NewReportRow] = {}
    digests: dict[ReportKey, bytes] = {}
    targets: dict[ReportKey, tuple[DeliveryTarget, ...]] = {}
    keys: list[list[ReportKey]] = []  # of the reports of each upload
    for upload in uploads:
        keys.append([(_build_of(known, upload).id, _dedupe_key_of(report)) for report in upload.reports])
        for key, report in zip(keys[-1], upload.reports, strict=True):
            row = _report_row(key, report, upload, now)
            rows[key] = with_routes_of(rows[key], row) if key in rows else row
            targets.setdefault(key, upload.targets if report.failure is None else (DeliveryTarget.TESTNOD,))
            digests.setdefault(key, report.case_digest)
    new = _insert_reports(connection, now, rows, targets, digests)
    repeats = {key: rows[key] for key in rows.keys() - new}
    requeued = requeue_dead_deliveries(connection, now, repeats)
    for key in requeued:  # other settings may have changed the names of its cases
        which = {"of_build": key[0], "of_key": key[1]}
        connection.execute(REPLACE_CASES.values(digest=digests[key]), which)
    merge_allowed_routes(connection, {key: row for key, row in repeats.items() if key not in requeued})
    changed = {build_id for build_id, _ in new | requeued}
    if changed:
        WAKE_BUILDS.run(connection, {"ids": sorted(changed), "now": now})
    _mark_complete(connection, now, known, [upload for upload in uploads if upload.complete])
    _add_metadata(connection, known, uploads)
    receipts = dict.fromkeys(new, ReportReceipt.NEW) | dict.fromkeys(requeued, ReportReceipt.REQUEUED)
    # `pop`: of one report sent twice, only the first was new.
    return [
        UploadReceipt(
            receipts=tuple(receipts.pop(key, ReportReceipt.DUPLICATE) for key in sent),
            freed=blobs,
            may_be_due=_may_be_due(known, upload),
        )
        for upload, sent, blobs in zip(uploads, keys, freed, strict=True)
    ]


def _may_be_due(known: Mapping[str, KnownBuild], upload: AcceptedUpload) -> bool:
    build = known.get(build_key(upload.job_id, upload.build_no))
    is_settled = upload.submission_id is not None  # its build is planned again
    return build is None or upload.complete or is_settled or not reports_wait(build.waiting_on)


def try_upload(connection: sa.Connection, now: int) -> None:
    """Write an upload and roll it back: raise what an upload would raise, and leave nothing."""
    counts = TestCounts(suites=0, tests=0, failures=0, errors=0, skipped=0, flaky=0, time_us=0)
    probe = "bridge-probe"
    report = NewReport(
        name=probe, node_id="0", size=0, sent_size=0, received_sha256="", sent_sha256="", counts=counts, body=b""
    )
    upload = AcceptedUpload(
        job_id="0" * 32,
        build_no=0,
        upload_metadata=UploadMetadata(),
        complete=False,
        caller=probe,
        caller_routes=None,
        address="",
        request_id=probe,
        reports=(report,),
        rejections=(NewRejection(name=probe, reason="", code=""),),
    )
    savepoint = connection.begin_nested()
    try:
        accept(connection, now, (upload,))
    finally:
        savepoint.rollback()


# -- builds ------------------------------------------------------------------------------------------------------


def _find_or_insert_builds(
    connection: sa.Connection, now: int, uploads: Sequence[AcceptedUpload]
) -> dict[str, KnownBuild]:
    """Return the builds of uploads that were accepted in part at least, locked, by key; insert those that are new."""
    accepted = [upload for upload in uploads if upload.reports or upload.complete]
    return find_or_insert_builds(connection, now, accepted)


def find_or_insert_builds(
    connection: sa.Connection, now: int, uploads: Sequence[AcceptedUpload]
) -> dict[str, KnownBuild]:
    """Return the builds of uploads, which are of one source, locked, by key; insert those that are new."""
    first: dict[str, AcceptedUpload] = {}
    for upload in uploads:
        first.setdefault(build_key(upload.job_id, upload.build_no), upload)
    if not first:
        return {}
    source = source_of(uploads[0].build_no)
    known = _find_builds(connection, source, list(first))
    missing = sorted(first.keys() - known.keys())
    if missing:
        rows = [_build_row(key, first[key], now) for key in missing]
        values = [value for row in rows for value in row.values()]
        inserted = map(KnownBuild._make, _insert_builds(tuple(rows[0])).rows(connection, len(rows), values))
        known |= {build.key: build for build in inserted}
        others = sorted(first.keys() - known.keys())  # inserted by another gateway meanwhile
        known |= _find_builds(connection, source, others) if others else {}
    return known


@cache
def _insert_builds(columns: tuple[str, ...]) -> BulkStatement:
    return BulkStatement(
        lambda own_insert, count: (
            own_insert(builds)
            .values([{name: sa.bindparam(f"{name}_{at}") for name in columns} for at in range(count)])
            .on_conflict_do_nothing()
            .returning(*KNOWN_COLUMNS)
        )
    )


def _find_builds(connection: sa.Connection, source: str, keys: list[str]) -> dict[str, KnownBuild]:
    rows = FIND_BUILDS[source].rows(connection, len(keys), keys)
    return {build.key: build for build in map(KnownBuild._make, rows)}


def _build_row(key: str, upload: AcceptedUpload, now: int) -> dict[str, object]:
    return {
        "source": source_of(upload.build_no),
        "key": key,
        **_order_columns(upload, now),
        "state": BuildState.OPEN,
        "report_seq": 0,
        "finalized_seq": 0,
        "due_at": now,
        "fencing_token": 0,
        "accepted_at": now,
        "last_report_at": now,
        **_as_json(_metadata_columns(asdict(UploadMetadata()), [], upload)),
        **_submitted_columns(upload),  # the order is that of the schema
        "polls": 0,
        "poll_due_at": 0,
        "poll_reserved": False,
        "describe_attempts": 0,
        "describe_due_at": 0,
        "route": "",
        "finalize_attempts": 0,
        "finalize_due_at": 0,
        "confirm_due_at": 0,
        "confirm_attempts": 0,
        "outage_us_at_hold": 0,
    }


def _order_columns(upload: AcceptedUpload, now: int) -> dict[str, object]:
    """Return the columns of a build's order among those of its job, or of a submitted build, of its route."""
    if not isinstance(upload.build_no, str):
        return {"job_id": upload.job_id, "build_no": upload.build_no}
    return {"job_id": upload.job_id if len(upload.job_id) <= MAX_QUEUE_NAME else None, "build_no": now}


def _submitted_columns(upload: AcceptedUpload) -> dict[str, str]:
    if not isinstance(upload.build_no, str):
        return {}
    return {"submitted": json.dumps(asdict(upload.submitted or SubmittedRun(build_id=upload.build_no)))}


def _as_json(columns: Mapping[str, Any]) -> dict[str, str | None]:
    return {name: None if value is None else json.dumps(value) for name, value in columns.items()}


def _build_of(known: Mapping[str, KnownBuild], upload: AcceptedUpload) -> KnownBuild:
    return known[build_key(upload.job_id, upload.build_no)]


def _mark_complete(
    connection: sa.Connection, now: int, known: Mapping[str, KnownBuild], uploads: Sequence[AcceptedUpload]
) -> None:
    """Record `complete=true` with the routes that its caller may use: a repeat that adds no route changes nothing."""
    current: dict[int, list[str] | None] = {}
    for upload in uploads:
        build = _build_of(known, upload)
        routes = None if upload.caller_routes is None else sorted(upload.caller_routes)
        if build.id in current or build.complete_at is not None:
            before = current.get(build.id, json.loads(build.complete_routes or "null"))
            routes = union_of_routes(before, routes)
            if routes == before:
                continue
        current[build.id] = routes
        MARK_COMPLETE.run(connection, {"row_id": build.id, "now": now, "routes": routes})


def _add_metadata(
    connection: sa.Connection, known: Mapping[str, KnownBuild], uploads: Sequence[AcceptedUpload]
) -> None:
    """Add metadata that no earlier upload of the build had whose caller may use the same routes."""
    current: dict[int, dict[str, Any]] = {}
    for upload in uploads:
        key = build_key(upload.job_id, upload.build_no)
        if key not in known or upload.upload_metadata == UploadMetadata():
            continue
        build = known[key]
        before = current.get(build.id) or {
            "upload_metadata": json.loads(build.upload_metadata),
            "bound_metadata": json.loads(build.bound_metadata or "null"),
        }
        merged = _metadata_columns(before["upload_metadata"], before["bound_metadata"] or [], upload)
        if merged != before:
            current[build.id] = merged
            new = {"new_metadata": merged["upload_metadata"], "new_bound_metadata": merged["bound_metadata"]}
            SET_METADATA.run(connection, {"row_id": build.id, **new})


def _metadata_columns(
    unbound: dict[str, str | None], bound: list[dict[str, Any]], upload: AcceptedUpload
) -> dict[str, Any]:
    """Return the columns with what the upload states, kept with the routes of its caller; the first value counts."""
    stated = upload.upload_metadata
    if upload.caller_routes is None:
        unbound = asdict(UploadMetadata(**unbound).merged(stated))
    elif stated != UploadMetadata():
        routes = sorted(upload.caller_routes)
        by_routes = {tuple(each["routes"]): UploadMetadata(**each["stated"]) for each in bound}  # in order of arrival
        by_routes[*routes,] = by_routes.get((*routes,), UploadMetadata()).merged(stated)
        bound = [{"routes": list(routes), "stated": asdict(stated)} for routes, stated in by_routes.items()]
    return {"upload_metadata": unbound, "bound_metadata": bound or None}


# -- reports -----------------------------------------------------------------------------------------------------


def _dedupe_key_of(report: NewReport) -> bytes:
    if report.dedupe_key is not None:
        return report.dedupe_key
    return dedupe_key(node_id=report.node_id, name=report.name, received_sha256=report.received_sha256)


def _report_row(key: ReportKey, report: NewReport, upload: AcceptedUpload, now: int) -> NewReportRow:
    counts = report.counts
    return NewReportRow(
        build_id=key[0],
        dedupe_key=key[1],
        source=UPLOAD,
        name=shown_name(report.name),
        node_id=report.node_id,
        size=report.size,
        sent_size=report.sent_size,
        received_sha256=report.received_sha256,
        sent_sha256=report.sent_sha256,
        suites=counts.suites,
        tests=counts.tests,
        failures=counts.failures,
        errors=counts.errors,
        skipped=counts.skipped,
        flaky=counts.flaky,
        suite_errors=counts.suite_errors,
        disabled=counts.disabled,
        time_us=counts.time_us,
        notes=json.dumps(report.changes + report.notes),
        highlights=json.dumps(highlights_to_json(report.highlights)),
        accepted_at=now,
        caller=upload.caller,
        caller_routes=None if upload.caller_routes is None else json.dumps(upload.caller_routes),
        address=upload.address,
        request_id=upload.request_id,
        body=report.body,
        blob=report.blob,
        failure=report.failure,
        trace_context=upload.trace_context,
    )


def _insert_reports(
    connection: sa.Connection,
    now: int,
    rows: Mapping[ReportKey, NewReportRow],
    targets: Mapping[ReportKey, tuple[DeliveryTarget, ...]],
    digests: Mapping[ReportKey, bytes],
) -> set[ReportKey]:
    """Insert reports, and pending deliveries of those that are new; return the keys of the new ones.

    The unique index decides which are new, so of two equal reports at the same time only one is.
    """
    new: set[ReportKey] = set()
    ordered = sorted(rows)
    for start in range(0, len(ordered), REPORTS_PER_STATEMENT):
        keys = ordered[start : start + REPORTS_PER_STATEMENT]
        result = INSERT_REPORTS.rows(connection, len(keys), [value for key in keys for value in rows[key]])
        inserted = [InsertedReport._make(row) for row in result]
        if inserted:
            pending = [
                NewDeliveryRow(
                    build_id=report.build_id,
                    report_id=report.id,
                    target=target.value,
                    state=DeliveryState.PENDING.value,
                    pending_since=now,
                    outage_us_at_first_failure=0,
                    attempts=0,
                    due_at=now,
                )
                for report in inserted
                for target in targets[report.build_id, report.dedupe_key]
            ]
            INSERT_DELIVERIES.run(connection, len(pending), [value for row in pending for value in row])
            cases = [(row.id, digests[row.build_id, row.dedupe_key]) for row in inserted]
            cases = [(report_id, digest) for report_id, digest in cases if digest]
            if cases:
                INSERT_CASES.run(connection, len(cases), [value for row in cases for value in row])
            new |= {(report.build_id, report.dedupe_key) for report in inserted}
    return new
