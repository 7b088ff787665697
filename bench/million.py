"""Fill a ledger with finished builds by plain SQL: a minute for a million.

Values that are not measured are copied from one uploaded build.
"""

from typing import Any

from sqlalchemy import Connection, Table, insert, text

from bridge.domain.build import UploadMetadata
from bridge.domain.intake import AcceptedUpload, NewReport
from bridge.domain.junit.result import TestCounts
from bridge.store.schema import builds, deliveries, registrations, rejections, reports, runs
from bridge.store.uploads import accept

UNFINISHED = 200  # open builds, in a ledger of any size
DEAD = 100  # deliveries
STUCK = 20  # builds, and as many blocked
JOBS = 8  # so that a page of one is full in a small ledger too
ROUTES = ("shop", "pay", "docs")
REJECTED_EVERY = 10  # builds: rejections are deleted after a week
BODY = b'<testsuite name="s"><testcase classname="c" name="n"/></testsuite>'

JOB = "'1000000000000000000000000000' || cast(1000 + i % :jobs AS text)"
KEY = f"{JOB} || '/' || cast(i AS text)"
OPEN = "i > :builds - :unfinished"
ROUTE = f"CASE WHEN {OPEN} AND i % 2 = 0 THEN '' WHEN i % 3 = 0 THEN 'shop' WHEN i % 3 = 1 THEN 'pay' ELSE 'docs' END"
SERIES = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < :builds) "
RANDOM = {"sqlite": "randomblob(32)", "postgresql": "sha256(convert_to(cast(i AS text), 'UTF8'))"}

OF_BUILD = {
    "id": "i",
    "key": KEY,
    "job_id": JOB,
    "build_no": "i",
    "state": f"CASE WHEN {OPEN} THEN 'open' ELSE 'finalized' END",
    "finalized_seq": f"CASE WHEN {OPEN} THEN 0 ELSE report_seq END",
    "due_at": f"CASE WHEN {OPEN} THEN due_at END",
    "route": ROUTE,
    "stuck_reason": "CASE WHEN i < :stuck THEN 'a run stays pending' END",
    "blocked_reason": "CASE WHEN i < :stuck THEN 'no route' END",
    "complete_at": "accepted_at",
}
OF_REPORT = {"id": "i", "build_id": "i", "body": f"CASE WHEN {OPEN} THEN body END"}
OF_DELIVERY = {
    "id": "i",
    "build_id": "i",
    "report_id": "i",
    "state": f"CASE WHEN {OPEN} THEN 'pending' WHEN i < :dead THEN 'dead' ELSE 'delivered' END",
}
OF_REGISTRATION = {"id": "i", "build_id": "i", "delivery_id": "i"}
OF_RUN = {"id": "i", "build_id": "i", "test_run_id": "cast(i AS text)"}
OF_REJECTION = {"id": "i", "key": KEY, "job_id": JOB, "route": ROUTE}


def small_upload(job: int, build_no: int, *, name: str = "TEST-a.xml", digest: str = "a" * 64) -> AcceptedUpload:
    """Return an upload of one small report."""
    counts = TestCounts(suites=1, tests=1, failures=0, errors=0, skipped=0, flaky=0, time_us=1)
    report = NewReport(
        name=name,
        node_id="default",
        size=len(BODY),
        sent_size=len(BODY),
        received_sha256=digest,
        sent_sha256=digest,
        counts=counts,
        body=BODY,
    )
    return AcceptedUpload(
        job_id=job_id(job),
        build_no=build_no,
        upload_metadata=UploadMetadata(branch="main", commit="c" * 40),
        complete=False,
        caller="ci",
        caller_routes=None,
        address="192.0.2.1",
        request_id="r" * 32,
        reports=(report,),
        rejections=(),
    )


def job_id(job: int) -> str:
    return f"1000000000000000000000000000{1000 + job}"


def fill(connection: Connection, now: int, count: int) -> None:
    """Write `count` builds of one report each into an empty ledger."""
    accept(connection, now, [small_upload(1, 1)])
    _write_first(connection, now)
    values = {"builds": count, "unfinished": UNFINISHED, "dead": DEAD, "stuck": STUCK, "jobs": JOBS}
    digest = {"dedupe_key": RANDOM[connection.dialect.name]}
    for table, own in (
        (builds, OF_BUILD),
        (reports, OF_REPORT | digest),
        (deliveries, OF_DELIVERY),
        (registrations, OF_REGISTRATION),
        (runs, OF_RUN),
    ):
        _multiply(connection, table, own, values)
    _multiply(connection, rejections, OF_REJECTION, values | {"builds": max(2, count // REJECTED_EVERY)})
    if connection.dialect.name == "postgresql":
        for table in (builds, reports, deliveries, registrations, runs, rejections):
            sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
            connection.execute(text(f"SELECT setval({sequence}, (SELECT max(id) FROM {table.name}))"))  # noqa: S608


def _write_first(connection: Connection, now: int) -> None:
    """Write a registration and a run of the first build, as the reconciler would, and a rejection."""
    registration = {"state": "stored", "fencing_token": 1, "requested_at": now, "attempts": 1, "due_at": now}
    owner = {"id": 1, "build_id": 1}
    connection.execute(insert(registrations), {**owner, "delivery_id": 1, **registration, "put_outcome_unknown": False})
    connection.execute(insert(runs), {**owner, "test_run_id": "1", "test_run_url": "https://x", "opened_at": now})
    rejection = {"source": "codearts", "key": f"{job_id(1)}/1", "job_id": job_id(1), "rejected_at": now}
    rejection |= {"name": "a.xml", "reason": "No report."}
    sender = {"code": "BRIDGE.REPORT", "caller": "ci", "address": "192.0.2.1", "request_id": "r" * 32}
    connection.execute(insert(rejections), {"id": 1, **rejection, **sender})


def _multiply(connection: Connection, table: Table, own: dict[str, str], values: dict[str, Any]) -> None:
    """Insert rows 2 to `builds`: copies of the first row except for the columns in `own`."""
    names = [column.name for column in table.columns]
    chosen = ", ".join(own.get(name, f'"{name}"') for name in names)
    query = f"{SERIES} SELECT {chosen} FROM {table.name}, n WHERE id = 1"  # noqa: S608 -- names of the schema
    used = {name: value for name, value in values.items() if f":{name}" in query}
    quoted = ", ".join(f'"{name}"' for name in names)  # `commit` is a word of SQL
    connection.execute(text(f"INSERT INTO {table.name} ({quoted}) {query}"), used)
