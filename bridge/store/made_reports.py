"""Reports that the bridge makes itself become rows like uploaded ones: kept, owed, and there once for each build.

It knows neither what they hold nor when they are made.
"""

from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, insert

from bridge.domain.build import Delivery
from bridge.domain.changes import AddReport
from bridge.store.identity import CHECK, dedupe_key
from bridge.store.schema import deliveries, reports
from bridge.store.statements import insert_new


def add_report(connection: Connection, build_id: int, change: AddReport) -> AddReport:
    """Insert the report and owe it; return it with its ids, 0 where the build has it already.

    Its bytes are no part of what makes it the same: whoever asks later, or has lost the build meanwhile, adds none.
    """
    row = _report_row(build_id, change)
    inserted = insert_new(connection, reports, [row], "id")
    report_id: int = inserted[0].id if inserted else 0
    report = replace(change.report, id=report_id)
    if not inserted:
        return replace(change, report=report)
    owed = tuple(_owe(connection, build_id, replace(delivery, report_id=report_id)) for delivery in change.deliveries)
    return replace(change, report=report, deliveries=owed)


def _owe(connection: Connection, build_id: int, delivery: Delivery) -> Delivery:
    columns = {**asdict(delivery), "build_id": build_id}
    del columns["id"]
    delivery_id: int = connection.execute(insert(deliveries).returning(deliveries.c.id), columns).scalar_one()
    return replace(delivery, id=delivery_id)


def _report_row(build_id: int, change: AddReport) -> dict[str, Any]:
    report, counts = change.report, change.counts
    return {
        "build_id": build_id,
        "dedupe_key": dedupe_key(node_id=report.node_id, name=report.name, received_sha256="", source=CHECK),
        "source": CHECK,
        "name": report.name,
        "node_id": report.node_id,
        "size": report.size,
        "sent_size": report.sent_size,
        "received_sha256": report.sent_sha256,
        "sent_sha256": report.sent_sha256,
        **asdict(counts),
        "notes": [],
        "accepted_at": report.accepted_at,
        "caller": report.caller,
        "caller_routes": report.caller_routes,
        "address": "",
        "request_id": "",
        "body": change.body,
        "blob": None,
    }
