"""A report that was accepted before and is sent again: owed again where it is dead, and sent where anybody may send it.

It knows neither uploads nor why a delivery died.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Update, bindparam, select, update

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.store.schema import deliveries, reports

Key = tuple[int, bytes]
"""A report's place in the unique index: build id and dedupe key."""

KEYS_A_STATEMENT = 5_000  # each has two values, and PostgreSQL takes 32,767 in a statement

BROUGHT_AGAIN = (
    *("body", "blob", "sent_size", "sent_sha256", "notes"),
    *("caller", "caller_routes", "address", "request_id"),
)
"""What a dead report gets anew: the route may repair or strip by now, and who sends it may be allowed more."""


def requeue_dead_deliveries(connection: Connection, now: int, rows: dict[Key, dict[str, Any]]) -> set[Key]:
    """Owe those of `rows`, all known, whose delivery to TestNod is dead; CI's new bytes replace the old ones.

    What else was dead of them is owed again too. A copy alone is not: TestNod has other bytes by now, perhaps.
    """
    return {key for some in _portions(rows) for key in _owe_some_again(connection, now, some)}


def _portions(rows: dict[Key, dict[str, Any]]) -> Iterator[dict[Key, dict[str, Any]]]:
    """Yield `rows` in portions that one statement can ask for."""
    keys = sorted(rows)
    for start in range(0, len(keys), KEYS_A_STATEMENT):
        yield {key: rows[key] for key in keys[start : start + KEYS_A_STATEMENT]}


def _owe_some_again(connection: Connection, now: int, rows: dict[Key, dict[str, Any]]) -> set[Key]:
    query = (
        select(reports.c.build_id, reports.c.dedupe_key, deliveries.c.report_id)
        .join(deliveries, deliveries.c.report_id == reports.c.id)
        .where(
            reports.c.build_id.in_({build_id for build_id, _ in rows}),
            reports.c.dedupe_key.in_({key for _, key in rows}),
            deliveries.c.state == DeliveryState.DEAD,
            deliveries.c.target == DeliveryTarget.TESTNOD,
        )
    )
    found = {(row.build_id, row.dedupe_key): row for row in connection.execute(query)}
    dead = {key: row for key, row in found.items() if key in rows}  # a build may hold what came for another one
    if not dead:
        return set()
    owe = requeued(now).where(deliveries.c.report_id == bindparam("owed_id"))
    connection.execute(owe, [{"owed_id": row.report_id} for row in dead.values()])
    bring = update(reports).where(reports.c.id == bindparam("report_id"))
    bring = bring.values({name: bindparam(f"new_{name}") for name in BROUGHT_AGAIN})
    connection.execute(bring, [{"report_id": row.report_id} | _brought_again(rows[key]) for key, row in dead.items()])
    return set(dead)


def _brought_again(row: dict[str, Any]) -> dict[str, Any]:
    values = {f"new_{name}": row[name] for name in BROUGHT_AGAIN}
    # This statement knows the columns' types, ForMany's do not.
    return values | {"new_notes": json.loads(row["notes"]), "new_caller_routes": _loaded(row["caller_routes"])}


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def requeued(now: int) -> Update:
    """Return the statement that owes a dead delivery again: attempts and the give-up clock start anew."""
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
            send_alone=False,
            last_error=None,
            unread=None,
            unread_since=None,
            unread_at=None,
        )
    )


def joined(row: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """Return the `row` of a report that comes twice in one commit: it may go wherever one of both senders may send."""
    routes = _both(_loaded(row["caller_routes"]), _loaded(again["caller_routes"]))
    return row | {"caller_routes": None if routes is None else json.dumps(routes)}


def merge_allowed_routes(connection: Connection, repeats: dict[Key, dict[str, Any]]) -> None:
    """Let a report that is known go wherever one of those who sent it may send: each of them was told "success"."""
    for some in _portions(repeats):
        _widen_some(connection, some)


def _widen_some(connection: Connection, repeats: dict[Key, dict[str, Any]]) -> None:
    query = select(reports.c.id, reports.c.build_id, reports.c.dedupe_key, reports.c.caller_routes).where(
        reports.c.build_id.in_({build_id for build_id, _ in repeats}),
        reports.c.dedupe_key.in_({key for _, key in repeats}),
        reports.c.caller_routes.is_not(None),
    )
    for row in connection.execute(query).all():
        repeat = repeats.get((row.build_id, row.dedupe_key))
        if repeat is None:
            continue
        routes = _both(row.caller_routes, _loaded(repeat["caller_routes"]))
        if routes != row.caller_routes:
            connection.execute(update(reports).where(reports.c.id == row.id).values(caller_routes=routes))


def _both(routes: list[str] | None, others: list[str] | None) -> list[str] | None:
    """Return where one of two senders may send; None is anywhere."""
    return None if routes is None or others is None else sorted({*routes, *others})


# What makes two builds, and two files of one build, the same: the keys of the ledger's unique indexes.
#
# It knows no table.


SOURCE = "codearts"
"""Who numbers the builds."""

UPLOAD = "upload"
"""The source of reports that were uploaded."""


CHECK = "check"
"""The source of what CodeArts Check says of a build: one report each, whatever it says."""


def build_key(job_id: str, build_no: int) -> str:
    """Return the key of a CodeArts build: `{job_id}/{build_no}`."""
    return f"{job_id}/{build_no}"


def dedupe_key(*, node_id: str, name: str, received_sha256: str, source: str = UPLOAD) -> bytes:
    """Return what makes two files of one build the same: source, node, full raw name and digest."""
    parts = [part.encode("utf-8", "surrogatepass") for part in (source, node_id, name, received_sha256)]
    return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
