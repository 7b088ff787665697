"""Registered uploads in the ledger: what settles them, and what a build waits for."""

import asyncio
from dataclasses import replace
from functools import partial
from hashlib import sha256

import pytest
from sqlalchemy import select

from bridge.domain.build import DeliveryState, SubmittedRun
from bridge.domain.intake import AcceptedUpload, ReportReceipt, UploadMetadata, UploadReceipt
from bridge.domain.submission import LATE_PUT, NEVER_UPLOADED, URL_LIFETIME, NewSubmission, SubmissionState
from bridge.store.leases import Claim, claim, read_claimed
from bridge.store.queries import BuildsQuery, find_build, find_why, list_builds
from bridge.store.schema import builds, deliveries, reports, submissions
from bridge.store.submissions import (
    accept_submitted,
    extend,
    fail_expired,
    failed_upload,
    find_submission,
    find_submitted,
    forget,
    next_expiry,
    register,
)
from tests.support.ledger import Ledger, kept_refusal, report

RUN = SubmittedRun(build_id="ci/7", branch="main", commit="abc", run_url="https://ci.test/7", tags=("smoke",))


def registration(route="shop", run=RUN):
    return NewSubmission(
        route=route,
        run=run,
        secret_sha256=sha256(b"secret").digest(),
        caller="ci",
        caller_routes=("shop",),
        address="127.0.0.1",
        request_id="r1",
    )


def with_file(submission, body=b"<testsuite/>", **values):
    upload = AcceptedUpload(
        job_id=submission.route,
        build_no=submission.build_no,
        upload_metadata=UploadMetadata(),
        complete=False,
        caller="ci",
        caller_routes=("shop",),
        address="127.0.0.1",
        request_id="r2",
        reports=(report(f"upload-{submission.id}.xml", body, dedupe_key=sha256(body).digest()),),
        rejections=(),
        submission_id=submission.id,
        file_sha256=sha256(body).hexdigest(),
    )
    return replace(upload, **values)


def with_file_after(submission):
    return with_file(submission, b"<other/>")


def failed_after(submission):
    return failed_upload(submission, "timeout", request_id="r3")


@pytest.fixture
async def submission(database):
    return await database.write(register, registration())


async def state_of(database, submission):
    return (await database.read(find_submission, submission.id)).state


async def awaits(database):
    (row,) = await Ledger(database).rows(select(builds.c.awaits_files))
    return bool(row.awaits_files)


async def test_the_first_registration_opens_the_build_and_states_its_run(database, clock, submission):
    leased = await database.write(claim, Claim(route="", owner="w", lease_us=1))
    build = (await database.read(read_claimed, leased)).build

    assert (build.job_id, build.build_no, build.submitted, build.awaits_files) == (
        "shop",
        submission.build_no,
        RUN,
        True,
    )
    assert submission.build_no.startswith("ci-7~")
    assert submission.expires_at == clock.now() + URL_LIFETIME
    assert await database.read(find_submission, submission.id) == submission


async def test_registrations_at_once_share_the_build_and_have_ids_of_their_own(database):
    several = await asyncio.gather(*(database.write(register, registration()) for _ in range(8)))

    assert len({each.id for each in several}) == 8
    assert {each.build_id for each in several} == {several[0].build_id}


async def test_a_later_registration_changes_nothing_of_the_run(database, submission):
    other = replace(RUN, branch="other", tags=("late",))
    again = await database.write(register, registration(run=other))

    view = await database.read(find_build, "shop", submission.build_no)
    assert again.build_id == submission.build_id
    assert (view["route"], view["testnod"]["build_id"], view["branch"]) == ("shop", "ci/7", "main")


async def test_a_file_settles_its_registration_and_the_build_waits_for_the_others(database, submission):
    other = await database.write(register, registration())

    first = await database.write(accept_submitted, with_file(submission))
    assert first.receipts == (ReportReceipt.NEW,)
    assert (await state_of(database, submission), await awaits(database)) == (SubmissionState.STORED, True)
    await database.write(accept_submitted, with_file(other, b"<testsuites/>"))
    assert await awaits(database) is False


async def test_the_same_bytes_again_are_one_report_whichever_registration_brings_them(database, submission):
    other = await database.write(register, registration())
    receipts = [await database.write(accept_submitted, with_file(each)) for each in (submission, submission, other)]

    assert [receipt.receipts[0] for receipt in receipts] == [ReportReceipt.NEW, *[ReportReceipt.DUPLICATE] * 2]
    assert await state_of(database, other) is SubmissionState.STORED
    assert await awaits(database) is False


async def test_a_failed_registration_becomes_a_report_without_bytes_once(database, submission):
    failed = failed_upload(submission, "s3 PUT returned 502", request_id="r3")
    receipts = [await database.write(accept_submitted, failed) for _ in range(2)]

    assert [receipt.receipts for receipt in receipts] == [(ReportReceipt.NEW,), (ReportReceipt.DUPLICATE,)]
    rows = await Ledger(database).rows(select(reports.c.name, reports.c.failure, reports.c.body, reports.c.blob))
    assert [tuple(row) for row in rows] == [(f"upload-{submission.id}.xml", "s3 PUT returned 502", None, None)]
    assert [row.state for row in await Ledger(database).rows(select(deliveries.c.state))] == [DeliveryState.PENDING]
    assert (await state_of(database, submission), await awaits(database)) == (SubmissionState.FAILED, False)


async def test_a_failure_that_comes_after_the_file_changes_nothing(database, submission):
    await database.write(accept_submitted, with_file(submission))
    late = await database.write(accept_submitted, failed_upload(submission, "timeout", request_id="r3"))

    assert late.receipts == (ReportReceipt.DUPLICATE,)
    assert await state_of(database, submission) is SubmissionState.STORED
    assert len(await Ledger(database).rows(select(reports.c.id))) == 1


async def test_a_file_that_comes_after_the_failure_is_accepted(database, submission):
    await database.write(accept_submitted, failed_upload(submission, "timeout", request_id="r3"))
    late = await database.write(accept_submitted, with_file(submission))

    assert late.receipts == (ReportReceipt.NEW,)
    assert await state_of(database, submission) is SubmissionState.STORED


async def test_of_another_file_nothing_is_written(database, submission):
    await database.write(accept_submitted, with_file(submission))
    refused = kept_refusal("u.xml", b"<a>")
    receipt = await database.write(accept_submitted, with_file(submission, b"<other/>", rejections=(refused,)))

    assert receipt == UploadReceipt(receipts=(), has_other_file=True)
    assert len(await Ledger(database).rows(select(reports.c.id))) == 1
    assert list((await database.read(find_why, "shop", submission.build_no)).rejections) == []


async def test_of_several_files_at_once_one_is_stored(database, submission):
    files = [with_file(submission, b"<testsuite/>" + b" " * number) for number in range(8)]
    receipts = await asyncio.gather(*(database.write(accept_submitted, each) for each in files))

    assert sorted(receipt.has_other_file for receipt in receipts) == [False, *[True] * 7]
    (row,) = await Ledger(database).rows(select(reports.c.received_sha256))
    assert (await database.read(find_submission, submission.id)).file_sha256 == row.received_sha256


@pytest.mark.parametrize("later", [with_file_after, failed_after])
async def test_a_file_settles_its_registration_for_later_uploads_of_the_same_commit(database, submission, later):
    uploads = [with_file(submission), later(submission)]
    first, second = await database.transact(partial(accept_submitted, uploads=uploads))

    assert first.receipts == (ReportReceipt.NEW,)
    assert ReportReceipt.NEW not in second.receipts
    assert await state_of(database, submission) is SubmissionState.STORED
    assert [row.failure for row in await Ledger(database).rows(select(reports.c.failure))] == [None]


async def test_rejections_are_recorded_for_the_build_also_if_the_registration_has_failed_already(database, submission):
    failed = failed_upload(submission, "not JUnit", request_id="r3")
    for content in (b"<a>", b"<b>"):
        await database.write(accept_submitted, replace(failed, rejections=(kept_refusal("u.xml", content),)))

    found = await database.read(find_why, "shop", submission.build_no)
    assert [rejection.size for rejection in found.rejections] == [3, 3]
    assert found.build is not None


async def test_what_is_not_uploaded_in_time_fails_by_itself(database, clock, submission):
    assert await database.read(next_expiry) == submission.expires_at + LATE_PUT
    clock.advance(URL_LIFETIME + LATE_PUT)

    assert [await database.transact(fail_expired) for _ in range(2)] == [1, 0]
    (row,) = await Ledger(database).rows(select(reports.c.failure))
    assert row.failure == NEVER_UPLOADED
    assert await database.read(next_expiry) is None


async def test_a_put_that_is_arriving_is_waited_for(database, clock, submission):
    await database.write(extend, (submission.id, clock.now() + 10 * URL_LIFETIME))
    await database.write(extend, (submission.id, clock.now()))
    clock.advance(2 * URL_LIFETIME)

    assert await database.transact(fail_expired) == 0
    assert await state_of(database, submission) is SubmissionState.OPEN


async def test_a_registration_whose_answer_was_lost_is_forgotten(database, submission):
    await database.write(forget, submission)

    assert await Ledger(database).rows(select(submissions.c.id)) == []
    assert await awaits(database) is False


async def test_finalize_ends_the_build_and_finds_it_by_route_and_build_id(database, submission):
    completion = with_file(submission, reports=(), submission_id=None, complete=True)
    await database.write(accept_submitted, completion)

    (row,) = await Ledger(database).rows(select(builds.c.complete_at, builds.c.complete_routes))
    assert row.complete_at is not None
    (found,) = await database.read(find_submitted, ["other", "shop"], "ci/7")
    assert (found.id, found.awaits_files, found.run_status) == (submission.build_id, True, None)
    assert await database.read(find_submitted, ["other"], "ci/7") == []
    assert await database.read(find_submitted, ["shop"], "ci-7") == []


async def test_pages_show_it_beside_builds_of_codearts(database, submission):
    await Ledger(database).accept(report("a.xml"))
    await database.write(accept_submitted, with_file(submission))

    page = await database.read(list_builds, BuildsQuery())
    shown = [(build["job_id"], build["build_no"], build["route"]) for build in page.builds]
    assert ("shop", submission.build_no, "shop") in shown
    assert len(shown) == 2
    only = await database.read(list_builds, BuildsQuery(job_id="shop", build_no=submission.build_no))
    assert [build["build_no"] for build in only.builds] == [submission.build_no]
