"""The counter: accepted reports and refusals become rows, many uploads in one commit.

It knows neither HTTP nor what becomes of a report later. Intake owns no lease: it inserts reports, raises
`batch_seq` and pulls `due_at` forward, all in the commit after which CI is told "success".
"""

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Update, bindparam, case, select, update

from bridge.domain.acceptance import Acceptance, NewReport, Receipt
from bridge.domain.build import BuildState, DeliveryState, Said, Target
from bridge.store.rows import shown_name
from bridge.store.schema import builds, deliveries, refusals, reports
from bridge.store.statements import earlier, insert_new

SOURCE = "codearts"
UPLOAD = "upload"

Key = tuple[int, bytes]
"""A report's place in the unique index: build id and dedupe key."""


def build_key(job_id: str, build_no: int) -> str:
    """Return the key of a CodeArts build: `{job_id}/{build_no}`."""
    return f"{job_id}/{build_no}"


def dedupe_key(report: NewReport, source: str = UPLOAD) -> bytes:
    """Return what makes two reports of one build the same: source, node, full raw name and digest."""
    digest = sha256()
    for part in (source, report.node_id, report.name, report.received_sha256):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.digest()


def accept(connection: Connection, now: int, acceptances: Sequence[Acceptance]) -> list[tuple[Receipt, ...]]:
    """Write what uploads brought; return for each a receipt a report, in order.

    The blob of a report that is KNOWN is not referred to by any row.
    """
    _insert_refusals(connection, now, acceptances)
    known = _builds(connection, now, acceptances)
    work = [
        (known[build_key(acceptance.job_id, acceptance.build_no)].id, acceptance)
        for acceptance in acceptances
        if acceptance.reports or acceptance.complete
    ]
    rows: dict[Key, dict[str, Any]] = {}
    for build_id, acceptance in work:
        for report in acceptance.reports:
            key = dedupe_key(report)
            rows.setdefault((build_id, key), _report_row(build_id, key, report, acceptance, now))
    new = _insert_reports(connection, now, rows)
    again = _owe_again(connection, now, {key: rows[key] for key in rows.keys() - new})
    _raise_batches(connection, now, {build_id for build_id, _ in new | again})
    for build_id, acceptance in work:
        if acceptance.complete:
            _complete(connection, now, build_id)
    _add_said(connection, known, acceptances)
    written = dict.fromkeys(new, Receipt.NEW) | dict.fromkeys(again, Receipt.OWED_AGAIN)
    return [_receipts(known, acceptance, written) for acceptance in acceptances]


def _insert_refusals(connection: Connection, now: int, acceptances: Sequence[Acceptance]) -> None:
    rows = [
        {
            "source": SOURCE,
            "key": build_key(acceptance.job_id, acceptance.build_no),
            "at": now,
            "name": shown_name(refusal.name),
            "reason": refusal.reason,
            "code": refusal.code,
            "caller": acceptance.caller,
            "address": acceptance.address,
            "request_id": acceptance.request_id,
        }
        for acceptance in acceptances
        for refusal in acceptance.refusals
    ]
    if rows:
        connection.execute(refusals.insert(), rows)


def _builds(connection: Connection, now: int, acceptances: Sequence[Acceptance]) -> dict[str, Any]:
    """Return id and said of the builds that something was accepted for, opening those that are new."""
    rows: dict[str, dict[str, Any]] = {}
    for acceptance in acceptances:
        if acceptance.reports or acceptance.complete:
            key = build_key(acceptance.job_id, acceptance.build_no)
            rows.setdefault(key, _build_row(key, acceptance, now))
    if not rows:
        return {}
    query = select(builds.c.key, builds.c.id, builds.c.said).where(builds.c.source == SOURCE, builds.c.key.in_(rows))
    known = {row.key: row for row in connection.execute(query)}
    missing = [rows[key] for key in sorted(rows.keys() - known.keys())]
    if missing:
        insert_new(connection, builds, missing)
        known = {row.key: row for row in connection.execute(query)}
    return known


def _build_row(key: str, acceptance: Acceptance, now: int) -> dict[str, Any]:
    return {
        "source": SOURCE,
        "key": key,
        "job_id": acceptance.job_id,
        "build_no": acceptance.build_no,
        "state": BuildState.OPEN,
        "batch_seq": 0,
        "finalized_seq": 0,
        "due_at": now,
        "fence": 0,
        "accepted_at": now,
        "last_report_at": now,
        "said": asdict(acceptance.said),
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
        "hold_away_us": 0,
    }


def _report_row(build_id: int, key: bytes, report: NewReport, acceptance: Acceptance, now: int) -> dict[str, Any]:
    counts = report.counts
    return {
        "build_id": build_id,
        "dedupe_key": key,
        "source": UPLOAD,
        "name": shown_name(report.name),
        "node_id": report.node_id,
        "size": report.size,
        "received_sha256": report.received_sha256,
        "sent_sha256": report.sent_sha256,
        "suites": counts.suites,
        "tests": counts.tests,
        "failures": counts.failures,
        "errors": counts.errors,
        "skipped": counts.skipped,
        "flaky": counts.flaky,
        "time_us": counts.time_us,
        "notes": list(report.notes),
        "accepted_at": now,
        "caller": acceptance.caller,
        "caller_routes": None if acceptance.caller_routes is None else list(acceptance.caller_routes),
        "address": acceptance.address,
        "request_id": acceptance.request_id,
        "body": report.body,
        "blob": report.blob,
    }


def _insert_reports(connection: Connection, now: int, rows: dict[Key, dict[str, Any]]) -> set[Key]:
    """Insert the reports and owe the new ones; return the keys of those that nobody had sent before."""
    if not rows:
        return set()
    ordered = [rows[key] for key in sorted(rows)]
    inserted = insert_new(connection, reports, ordered, "id", "build_id", "dedupe_key")
    owed = [
        {
            "build_id": row.build_id,
            "report_id": row.id,
            "target": Target.TESTNOD,
            "state": DeliveryState.OWED,
            "owed_since": now,
            "trying_away_us": 0,
            "attempts": 0,
            "due_at": now,
        }
        for row in inserted
    ]
    if owed:
        connection.execute(deliveries.insert(), owed)
    return {(row.build_id, row.dedupe_key) for row in inserted}


def _owe_again(connection: Connection, now: int, rows: dict[Key, dict[str, Any]]) -> set[Key]:
    """Owe those of `rows`, all known, whose delivery is dead; CI's new bytes replace the old ones."""
    if not rows:
        return set()
    query = (
        select(reports.c.build_id, reports.c.dedupe_key, deliveries.c.id, deliveries.c.report_id)
        .join(deliveries, deliveries.c.report_id == reports.c.id)
        .where(
            reports.c.build_id.in_({build_id for build_id, _ in rows}),
            reports.c.dedupe_key.in_({key for _, key in rows}),
            deliveries.c.state == DeliveryState.DEAD,
        )
    )
    found = {(row.build_id, row.dedupe_key): row for row in connection.execute(query)}
    dead = {key: row for key, row in found.items() if key in rows}  # a build may hold what came for another one
    if not dead:
        return set()
    owe = owed_again(now).where(deliveries.c.id == bindparam("delivery_id"))
    connection.execute(owe, [{"delivery_id": row.id} for row in dead.values()])
    bring = update(reports).where(reports.c.id == bindparam("report_id"))
    bring = bring.values(body=bindparam("new_body"), blob=bindparam("new_blob"))
    connection.execute(
        bring,
        [
            {"report_id": row.report_id, "new_body": rows[key]["body"], "new_blob": rows[key]["blob"]}
            for key, row in dead.items()
        ],
    )
    return set(dead)


def owed_again(now: int) -> Update:
    """Return the statement that owes a dead delivery again: attempts and the give-up clock start anew."""
    return (
        update(deliveries)
        .where(deliveries.c.state == DeliveryState.DEAD)
        .values(
            state=DeliveryState.OWED,
            owed_since=now,
            due_at=now,
            attempts=0,
            trying_since=None,
            trying_away_us=0,
            conflicted=False,
            last_error=None,
        )
    )


def _receipts(known: dict[str, Any], acceptance: Acceptance, written: dict[Key, Receipt]) -> tuple[Receipt, ...]:
    """Take the receipts of what was written out of `written`: of one report sent twice, the first was."""
    if not acceptance.reports:
        return ()
    build = known[build_key(acceptance.job_id, acceptance.build_no)]
    return tuple(written.pop((build.id, dedupe_key(report)), Receipt.KNOWN) for report in acceptance.reports)


def _raise_batches(connection: Connection, now: int, build_ids: set[int]) -> None:
    """Let the builds that owe something new be looked at now.

    `last_report_at` always moves, so that a guessed end can tell that a report came after it.
    """
    if not build_ids:
        return
    later = case((builds.c.last_report_at < now, now), else_=builds.c.last_report_at + 1)
    values = {"due_at": earlier(builds.c.due_at, now), "batch_seq": builds.c.batch_seq + 1, "last_report_at": later}
    connection.execute(update(builds).where(builds.c.id.in_(build_ids)).values(values))


def _complete(connection: Connection, now: int, build_id: int) -> None:
    """Note `complete=true`, once: a repeat of what is known raises nothing."""
    statement = update(builds).where(builds.c.id == build_id, builds.c.complete_at.is_(None))
    # It raises no batch, so a visit under way can tell by a changed due time only that something came.
    connection.execute(statement.values(complete_at=now, due_at=earlier(builds.c.due_at - 1, now)))


def _add_said(connection: Connection, known: dict[str, Any], acceptances: Sequence[Acceptance]) -> None:
    """Add what an upload said of its build and no earlier one did."""
    said = {key: row.said for key, row in known.items()}
    for acceptance in acceptances:
        key = build_key(acceptance.job_id, acceptance.build_no)
        if key not in known or acceptance.said == Said():
            continue
        merged = {name: said[key][name] or value for name, value in asdict(acceptance.said).items()}
        if merged != said[key]:
            said[key] = merged
            connection.execute(update(builds).where(builds.c.id == known[key].id).values(said=merged))
