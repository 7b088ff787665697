"""SQLite chooses without knowing how many rows there are, so what it chooses here it chooses with a million too."""

import pytest
from sqlalchemy import event

from bridge.domain.build import BuildState
from bridge.store.case_history import job_digests, recent_jobs
from bridge.store.engine.sqlite_writer import sqlite_engine
from bridge.store.leases import PollRequest, due_routes, read_newer, request_poll
from bridge.store.ledger import migrate
from bridge.store.queries import BuildsQuery, count_mismatches, counts, list_builds
from bridge.store.rejections import (
    IS_FOREIGN,
    IS_UNPROVEN,
    MAX_FOREIGN_OF_CALLER,
    MAX_UNPROVEN,
    RejectionsQuery,
    keep_newest,
    list_rejections,
)
from bridge.store.retention import unlink_dead
from bridge.store.schema import rejections
from tests.support.builders import a_build, pending

JOB = "a1" * 16


@pytest.fixture
def connection(tmp_path):
    engine = sqlite_engine(tmp_path / "bridge.db", begin="BEGIN IMMEDIATE")
    migrate(engine)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (lambda c: list_builds(c, BuildsQuery(state=BuildState.NO_RUN, route="shop")), "ix_builds_unfinished_route"),
        (lambda c: list_builds(c, BuildsQuery(state=BuildState.OPEN, job_id=JOB)), "ix_builds_unfinished_job"),
        (lambda c: list_builds(c, BuildsQuery(caller="ci")), "ix_reports_caller"),
        (lambda c: list_builds(c, BuildsQuery(branch="main")), "ix_builds_branch"),
        (lambda c: list_builds(c, BuildsQuery(commit="abc")), "ix_builds_commit"),
        (lambda c: list_builds(c, BuildsQuery(problems=True)), "ix_builds_stuck_reason"),
        (lambda c: list_builds(c, BuildsQuery(mirror_differs=True)), "ix_builds_mirror_differs"),
        (lambda c: list_builds(c, BuildsQuery(mirror_differs=True, route="shop")), "ix_builds_mirror_differs"),
        (lambda c: request_poll(c, 1, [PollRequest(job_id=JOB)]), "ix_builds_unfinished_job"),
        (lambda c: unlink_dead(c, 1, [1]), "ix_deliveries_unfinished"),
        (lambda c: list_rejections(c, RejectionsQuery(route="shop")), "ix_rejections_route"),
        (lambda c: list_rejections(c, RejectionsQuery(job_id=JOB)), "ix_rejections_job_id"),
        (lambda c: keep_newest(c, MAX_UNPROVEN, IS_UNPROVEN, rejections.c.address == "::1"), "ix_rejections_unproven"),
        (
            lambda c: keep_newest(c, MAX_FOREIGN_OF_CALLER, IS_FOREIGN, rejections.c.caller == "ci"),
            "ix_rejections_foreign",
        ),
        (counts, "ix_deliveries_unfinished"),
        (lambda c: count_mismatches(c, 1), "ix_builds_result_mismatch"),
        (lambda c: due_routes(c, ["shop"], 1), "ix_builds_due"),
    ],
    ids=[
        "closed of a route",
        "open of a job",
        "of a caller",
        "of a branch",
        "of a commit",
        "with problems",
        "whose mirror differs",
        "of a route whose mirror differs",
        "hook",
        "dead",
        "rejections of a route",
        "rejections of a job",
        "rejections of a stranger",
        "rejections of a caller for jobs of others",
        "counts",
        "mismatches",
        "due",
    ],
)
def test_what_is_few_is_found_by_an_index_that_holds_little_else(connection, query, index):
    plans = []

    def explain(*event_arguments):
        _, cursor, statement, parameters, _, _ = event_arguments
        if not plans:
            cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
            plans.append(" ".join(str(row[-1]) for row in cursor.fetchall()))

    event.listen(connection, "before_cursor_execute", explain)
    query(connection)
    assert index in plans[0]


def test_what_came_since_is_read_without_the_other_reports_of_the_build(connection):
    plans = []

    def explain(*event_arguments):
        _, cursor, statement, parameters, _, _ = event_arguments
        if not plans:
            cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
            plans.extend(row[-1] for row in cursor.fetchall())

    event.listen(connection, "before_cursor_execute", explain)
    read_newer(connection, a_build(pending()))
    assert "SEARCH reports USING INTEGER PRIMARY KEY (rowid=?)" in plans
    assert "SEARCH deliveries USING INDEX ix_deliveries_build_id (build_id=? AND rowid>?)" in plans


@pytest.mark.parametrize(
    "query",
    [
        BuildsQuery(branch="main"),
        BuildsQuery(commit="a"),
        BuildsQuery(problems=True),
        BuildsQuery(mirror_differs=True),
        BuildsQuery(mirror_differs=True, problems=True),
    ],
)
def test_no_filter_reads_the_whole_table(connection, query):
    scans = []

    def explain(*event_arguments):
        _, cursor, statement, parameters, _, _ = event_arguments
        cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
        scans.extend(
            row[-1] for row in cursor.fetchall() if row[-1].startswith("SCAN builds") and "INDEX" not in row[-1]
        )

    event.listen(connection, "before_cursor_execute", explain)
    list_builds(connection, query)
    assert scans == []


def test_the_tests_of_a_job_are_read_by_indexes_alone(connection):
    plans = []

    def explain(*event_arguments):
        _, cursor, statement, parameters, _, _ = event_arguments
        cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
        plans.append(" ".join(str(row[-1]) for row in cursor.fetchall()))

    event.listen(connection, "before_cursor_execute", explain)
    job_digests(connection, JOB, 20)
    assert "ix_builds_job_id" in plans[0]
    assert len(plans) == 3
    scans = ("SCAN reports", "SCAN report_cases", "SCAN builds")
    assert not [plan for plan in plans for scan in scans if scan in plan]


def test_the_jobs_of_the_newest_builds_are_found_without_sorting_all_builds(connection):
    plans = []

    def explain(*event_arguments):
        _, cursor, statement, parameters, _, _ = event_arguments
        cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
        plans.append([row[-1] for row in cursor.fetchall()])

    event.listen(connection, "before_cursor_execute", explain)
    recent_jobs(connection)
    (plan,) = plans
    at = next(number for number, step in enumerate(plan) if "builds" in step)
    assert plan[at] == "SCAN builds"  # by its ids, until there are enough
    assert "TEMP B-TREE FOR ORDER BY" not in plan[at + 1]  # the jobs are sorted, not the builds
