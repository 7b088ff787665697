"""Digests of cases in the ledger: written with their report, read by job, gone with their report."""

from typing import Any

import pytest
from sqlalchemy import Connection

from bridge.domain.build import UploadMetadata
from bridge.store import case_history
from bridge.store.case_history import job_digests, recent_jobs
from bridge.store.schema import deliveries, report_cases, reports
from tests.support.ledger import dead, report

JOB = "a" * 32


def digests(connection: Connection) -> list[bytes]:
    return [row.digest for row in connection.execute(report_cases.select().order_by(report_cases.c.report_id))]


async def test_a_digest_is_stored_with_its_report_and_found_by_job(database: Any, ledger: Any) -> None:
    metadata = UploadMetadata(commit="c1", job_name="nightly")
    await ledger.accept(report("a.xml", b"a", case_digest=b"\1a"), report("b.xml", b"b"), build_no=7)
    await ledger.accept(report("c.xml", b"c", case_digest=b"\1c"), build_no=8, upload_metadata=metadata)
    await ledger.accept(report("d.xml", b"d", case_digest=b"\1d"), build_no=9, job_id="b" * 32)
    found = await database.read(job_digests, JOB, 20)
    assert [(build.build_no, build.commit) for build in found.builds] == [(7, None), (8, "c1")]
    assert [(stored.name, stored.digest) for stored in found.builds[0].reports] == [("a.xml", b"\1a")]
    assert (found.job_name, found.cut) == ("nightly", False)
    assert [build.build_no for build in (await database.read(job_digests, JOB, 1)).builds] == [8]
    jobs = await database.read(recent_jobs)
    assert [(job.job_id, job.builds, job.last_build_no) for job in jobs] == [("b" * 32, 1, 9), (JOB, 2, 8)]


async def test_a_commit_that_a_bound_caller_states_is_found(database: Any, ledger: Any) -> None:
    await ledger.accept(
        report(case_digest=b"\1a"), upload_metadata=UploadMetadata(commit="c1"), caller_routes=("shop",)
    )
    (build,) = (await database.read(job_digests, JOB, 20)).builds
    assert build.commit == "c1"


async def test_a_duplicate_changes_no_digest(database: Any, ledger: Any) -> None:
    await ledger.accept(report(case_digest=b"\1a"))
    await ledger.accept(report(case_digest=b"\1b"))
    assert await database.read(digests) == [b"\1a"]


async def test_a_dead_report_that_is_sent_again_has_its_new_digest(database: Any, ledger: Any) -> None:
    await ledger.accept(report(case_digest=b"\1a"))
    leased = await ledger.claimed()
    (delivery,) = leased.build.deliveries.values()
    await ledger.record(leased.build, dead(delivery))
    await ledger.accept(report(case_digest=b"\1b"))
    assert await database.read(digests) == [b"\1b"]


async def test_a_digest_goes_with_its_report(database: Any, ledger: Any) -> None:
    await ledger.accept(report(case_digest=b"\1a"))

    def delete(connection: Connection, _now: int) -> None:
        connection.execute(deliveries.delete())
        connection.execute(reports.delete())

    await database.transact(delete)
    assert await database.read(digests) == []


async def test_the_newest_builds_are_read_as_far_as_there_is_room(
    database: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        await ledger.accept(report(case_digest=b"\1" * 100), build_no=number)
    monkeypatch.setattr(case_history, "MAX_BYTES", 250)
    found = await database.read(job_digests, JOB, 20)
    assert [build.build_no for build in found.builds] == [2, 3]
    assert found.cut
