"""Uploads that are registered through TestNod's submission API as the bridge serves it.

Like uploads they need no lease: a registration inserts its build, and what settles it inserts a report. A registered
upload whose file is rejected or never comes becomes a report without bytes, so that TestNod is sent the failure.
"""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, Row, exists, func, literal_column, select, update

from bridge.domain.build import BuildState, UploadMetadata
from bridge.domain.instants import Instant, after
from bridge.domain.intake import AcceptedUpload, NewReport, ReportReceipt, UploadReceipt
from bridge.domain.junit.result import TestCounts
from bridge.domain.submission import (
    LATE_PUT,
    NEVER_UPLOADED,
    URL_LIFETIME,
    NewSubmission,
    Submission,
    SubmissionState,
    file_name_of,
    submitted_build_no,
)
from bridge.store.duplicates import SUBMITTED, build_key, build_of_key
from bridge.store.engine.base import one_statement
from bridge.store.locks import lock_builds
from bridge.store.schema import builds, runs, submissions
from bridge.store.sql_helpers import earlier, insert_new
from bridge.store.uploads import accept, find_or_insert_builds
from bridge.values import dataclass

EXPIRED_LIMIT: Final = 100
"""Registered uploads that are given up in one commit."""

IS_OPEN = submissions.c.state == literal_column("'open'")  # literally, as in the condition of its index
NO_COUNTS = TestCounts(suites=0, tests=0, failures=0, errors=0, skipped=0, flaky=0, time_us=0)
NO_BYTES = sha256(b"").hexdigest()
_FOUND = select(*submissions.c, builds.c.source, builds.c.key).join(builds, builds.c.id == submissions.c.build_id)


# -- register ----------------------------------------------------------------------------------------------------


def register(connection: Connection, now: int, items: Sequence[NewSubmission]) -> list[Submission]:
    """Record registrations, each with its build, which the first one opens."""
    known = find_or_insert_builds(connection, now, [_registration(item) for item in items])
    return [_register(connection, Instant(now), item, known[_key_of(item)].id) for item in items]


def _key_of(item: NewSubmission) -> str:
    return build_key(item.route, submitted_build_no(item.run.build_id))


def _registration(item: NewSubmission) -> AcceptedUpload:
    return AcceptedUpload(
        job_id=item.route,
        build_no=submitted_build_no(item.run.build_id),
        upload_metadata=UploadMetadata(branch=item.run.branch or None, commit=item.run.commit or None),
        complete=False,
        caller=item.caller,
        caller_routes=None,  # of the metadata: the route is decided
        address=item.address,
        request_id=item.request_id,
        reports=(),
        rejections=(),
        submitted=item.run,
    )


def _register(connection: Connection, now: Instant, item: NewSubmission, build_id: int) -> Submission:
    expires_at = after(now, URL_LIFETIME)
    row = {
        "build_id": build_id,
        "state": SubmissionState.OPEN,
        "secret_sha256": item.secret_sha256,
        "caller": item.caller,
        "caller_routes": None if item.caller_routes is None else list(item.caller_routes),
        "address": item.address,
        "request_id": item.request_id,
        "registered_at": now,
        "expires_at": expires_at,
        "given_up_at": after(expires_at, LATE_PUT),
    }
    [(submission_id,)] = insert_new(connection, submissions, [row], "id")
    connection.execute(update(builds).where(builds.c.id == build_id).values(awaits_files=True))
    return Submission(
        id=submission_id,
        build_id=build_id,
        state=SubmissionState.OPEN,
        route=item.route,
        build_no=submitted_build_no(item.run.build_id),
        secret_sha256=item.secret_sha256,
        caller=item.caller,
        caller_routes=item.caller_routes,
        expires_at=expires_at,
    )


def forget(connection: Connection, now: int, items: Sequence[Submission]) -> list[None]:
    """Delete registrations whose answer did not reach the client: no one has their URLs."""
    lock_builds(connection, {item.build_id for item in items})
    for item in items:
        connection.execute(submissions.delete().where(submissions.c.id == item.id, IS_OPEN))
        _update_awaited(connection, now, item.build_id)
    return [None] * len(items)


# -- settle ------------------------------------------------------------------------------------------------------


def accept_submitted(connection: Connection, now: int, uploads: Sequence[AcceptedUpload]) -> list[UploadReceipt]:
    """Write uploads of submitted builds as `uploads.accept` does, and settle the registered uploads that they are of.

    A registered upload that is settled already does not fail any more: only rejections are written of such an upload.
    Of one that has another file already, nothing is written.
    """
    known = _locked(connection, {upload.submission_id for upload in uploads if upload.submission_id is not None})
    written: list[AcceptedUpload] = []
    places: list[int | None] = []  # of each upload in `written`; None: it has another file
    late: set[int] = set()  # places of those that fail too late
    for upload in uploads:
        left = upload
        submission = known.get(upload.submission_id or 0)
        if submission is not None and upload.reports:
            if _has_other_file(submission, upload):
                places.append(None)
                continue
            if submission.state is not SubmissionState.OPEN and not _is_stored(upload):
                late.add(len(written))
                left = replace(upload, reports=())
            else:
                known[submission.id] = _settle(connection, now, submission, upload)
        places.append(len(written))
        written.append(left)
    receipts = accept(connection, now, written)
    for place in late:
        receipts[place] = replace(receipts[place], receipts=(ReportReceipt.DUPLICATE,))
    other_file = UploadReceipt(receipts=(), has_other_file=True)
    return [other_file if place is None else receipts[place] for place in places]


def _locked(connection: Connection, ids: set[int]) -> dict[int, Submission]:
    """Return submissions by id; their builds are locked first, as all writers do."""
    of_builds = select(submissions.c.build_id).where(submissions.c.id.in_(ids))
    lock_builds(connection, set(connection.execute(of_builds).scalars()))
    found = map(_submission, connection.execute(_FOUND.where(submissions.c.id.in_(ids))))
    return {submission.id: submission for submission in found}


def _is_stored(upload: AcceptedUpload) -> bool:
    """Return whether an upload has a report of its file; else it failed."""
    return any(report.failure is None for report in upload.reports)


def _has_other_file(submission: Submission, upload: AcceptedUpload) -> bool:
    """Return whether another file than that of `upload` was stored for the registered upload."""
    was_stored = submission.state is SubmissionState.STORED
    return was_stored and _is_stored(upload) and submission.file_sha256 != upload.file_sha256


def _settle(connection: Connection, now: int, submission: Submission, upload: AcceptedUpload) -> Submission:
    """Record how a registered upload ended; return it as it is now, for later uploads of the same commit."""
    if _is_stored(upload):
        settled = replace(submission, state=SubmissionState.STORED, file_sha256=upload.file_sha256)
    else:
        settled = replace(submission, state=SubmissionState.FAILED)
    values = {"state": settled.state, "file_sha256": settled.file_sha256}
    connection.execute(update(submissions).where(submissions.c.id == submission.id).values(values))
    _update_awaited(connection, now, submission.build_id)
    return settled


def _update_awaited(connection: Connection, now: int, build_id: int) -> None:
    """Record whether a build still has open submissions; it is planned again in any case."""
    is_awaited = exists().where(submissions.c.build_id == build_id, IS_OPEN)
    values = {"awaits_files": is_awaited, "due_at": earlier(builds.c.due_at - 1, now)}
    connection.execute(update(builds).where(builds.c.id == build_id).values(values))


def extend(connection: Connection, _now: int, items: Sequence[tuple[int, int]]) -> list[None]:
    """Give PUTs that are arriving more time: (submission id, until when they are waited for)."""
    for submission_id, until in items:
        of_submission = (submissions.c.id == submission_id, submissions.c.given_up_at < until)
        connection.execute(update(submissions).where(*of_submission).values(given_up_at=until))
    return [None] * len(items)


# -- registered uploads whose file never comes ---------------------------------------------------------------------


@one_statement
def next_expiry(connection: Connection) -> int | None:
    """Return when the next open submission is given up, in microseconds UTC; None if there is none."""
    at: int | None = connection.execute(select(func.min(submissions.c.given_up_at)).where(IS_OPEN)).scalar()
    return at


def fail_expired(connection: Connection, now: int) -> int:
    """Give up to EXPIRED_LIMIT open submissions up whose time is over; return how many."""
    expired = _FOUND.where(IS_OPEN, submissions.c.given_up_at <= now).order_by(submissions.c.given_up_at)
    found = [_submission(row) for row in connection.execute(expired.limit(EXPIRED_LIMIT))]
    accept_submitted(connection, now, [failed_upload(each, NEVER_UPLOADED, request_id="") for each in found])
    return len(found)


def failed_upload(submission: Submission, failure: str, *, request_id: str, address: str = "") -> AcceptedUpload:
    """Return what is written of a registered upload whose file does not come: a report without bytes."""
    report = NewReport(
        name=file_name_of(submission.id),
        node_id="default",
        size=0,
        sent_size=0,
        received_sha256=NO_BYTES,
        sent_sha256=NO_BYTES,
        counts=NO_COUNTS,
        failure=failure,
    )
    return AcceptedUpload(
        job_id=submission.route,
        build_no=submission.build_no,
        upload_metadata=UploadMetadata(),
        complete=False,
        caller=submission.caller,
        caller_routes=submission.caller_routes,
        address=address,
        request_id=request_id,
        reports=(report,),
        rejections=(),
        submission_id=submission.id,
    )


# -- read --------------------------------------------------------------------------------------------------------


def find_submission(connection: Connection, submission_id: int) -> Submission | None:
    """Return the submission with this id."""
    row = connection.execute(_FOUND.where(submissions.c.id == submission_id)).one_or_none()
    return None if row is None else _submission(row)


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmittedBuild:
    """What finalize answers from: a submitted build, and the status of its newest run at TestNod, if that is known."""

    id: int
    route: str
    build_no: str
    awaits_files: bool
    run_status: str | None


def find_submitted(connection: Connection, routes: Sequence[str], build_id: str) -> list[SubmittedBuild]:
    """Return the builds of this build_id in any of the routes."""
    keys = [build_key(route, submitted_build_no(build_id)) for route in routes]
    query = select(builds).where(builds.c.source == SUBMITTED, builds.c.key.in_(keys)).order_by(builds.c.id)
    return [_submitted(connection, row) for row in connection.execute(query)]


def _submitted(connection: Connection, row: Row[Any]) -> SubmittedBuild:
    newest = select(runs.c.status).where(runs.c.build_id == row.id).order_by(runs.c.id.desc()).limit(1)
    is_final = row.state == BuildState.FINALIZED and row.report_seq == row.finalized_seq
    route, build_no = build_of_key(row.source, row.key)
    return SubmittedBuild(
        id=row.id,
        route=route,
        build_no=str(build_no),
        awaits_files=row.awaits_files,
        run_status=connection.execute(newest).scalar() if is_final else None,
    )


@one_statement
def newest_run_url(connection: Connection, build_id: int) -> str | None:
    """Return the address of the newest run of a build at TestNod; None if it has none yet."""
    newest = select(runs.c.test_run_url).where(runs.c.build_id == build_id).order_by(runs.c.id.desc()).limit(1)
    url: str | None = connection.execute(newest).scalar()
    return url


def _submission(row: Any) -> Submission:
    route, build_no = build_of_key(row.source, row.key)
    return Submission(
        id=row.id,
        build_id=row.build_id,
        state=SubmissionState(row.state),
        route=route,
        build_no=str(build_no),
        secret_sha256=row.secret_sha256,
        caller=row.caller,
        caller_routes=None if row.caller_routes is None else tuple(row.caller_routes),
        expires_at=Instant(row.expires_at),
        file_sha256=row.file_sha256,
    )
