"""Submitted builds through the real worker and ledger: days of a clock that the play moves."""

from dataclasses import replace
from hashlib import sha256

import pytest
from sqlalchemy import select

from bridge.domain.build import EndReason, SubmittedRun
from bridge.domain.clock_trust import ClockState, Verdict
from bridge.domain.code_check.models import CodeCheckRules
from bridge.domain.intake import AcceptedUpload, UploadMetadata
from bridge.domain.routing import ResultSuite, Route
from bridge.domain.submission import LATE_PUT, NEVER_UPLOADED, URL_LIFETIME, NewSubmission
from bridge.store.queries import find_build
from bridge.store.schema import builds
from bridge.store.submissions import accept_submitted, register
from bridge.worker.submission_expiry import SubmissionExpiry
from tests.support.builders import HOUR, MINUTE
from tests.support.fake_clock import FakeClock
from tests.support.ledger import report
from tests.support.worker_play import Outside, Play

ROUTES = tuple(
    Route(
        name=name,
        job_id=("nothing",),
        mirror=True,
        result_suite=ResultSuite.ALWAYS,
        code_check=CodeCheckRules(task_id="t", job_id="", limits=(), wait_us=MINUTE, omit_missing=False),
    )
    for name in ("api", "shop")
)
"""Everything that CodeArts has a part in: none of it is asked about a submitted build."""


class Reported(Outside):
    """TestNod that keeps the failures that it is sent, and CodeArts that no one may ask."""

    def __init__(self, clock):
        super().__init__(clock)
        self.failures = []

    async def upload_failed(self, token, *, failure_message, **ids):
        self.failures.append(failure_message)
        return await super().upload_failed(token, **ids)

    async def record_info(self, _job_id, _build_no):
        raise AssertionError("CodeArts was asked.")

    build_info = record_info


@pytest.fixture
async def play(backend, tmp_path):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        yield Play(database, clock, tmp_path, outside=Reported(clock), has_codearts=True, routes=ROUTES)


async def registered(play, build_id="ci-7"):
    new = NewSubmission(
        route="shop",
        run=SubmittedRun(build_id=build_id),
        secret_sha256=b"",
        caller="ci",
        caller_routes=("shop",),
        address="",
        request_id="",
    )
    return await play.config.database.write(register, new)


async def accepted(play, submission, body=None, *, complete=False):
    files = () if body is None else (report("u.xml", body, dedupe_key=sha256(body).digest()),)
    upload = AcceptedUpload(
        job_id=submission.route,
        build_no=submission.build_no,
        upload_metadata=UploadMetadata(),
        complete=complete,
        caller="ci",
        caller_routes=("shop",),
        address="",
        request_id="",
        reports=files,
        rejections=(),
        submission_id=submission.id if files else None,
    )
    await play.config.database.write(accept_submitted, upload)


async def end_reason(play):
    (row,) = await play.ledger.rows(select(builds.c.end_reason))
    return row.end_reason


def expiry(play):
    return SubmissionExpiry(
        database=play.config.database, clock=play.clock, stopping=play.config.stopping, wake=lambda: None
    )


async def test_finalize_waits_for_the_files_that_are_registered_and_codearts_is_not_asked(play):
    first, second = await registered(play), await registered(play)
    await accepted(play, first, b"<testsuite/>")
    await accepted(play, first, complete=True)
    await play.until(play.clock.now() + 3 * MINUTE)
    assert (play.outside.stored, play.outside.finalized) == (1, set())

    await accepted(play, second, b"<testsuites/>")
    await play.until(play.clock.now() + 3 * MINUTE)
    assert (play.outside.stored, play.outside.finalized) == (2, {"ci-7"})
    assert play.outside.failures == []


async def test_a_file_that_never_comes_is_reported_and_the_run_is_finalized(play):
    kept = await registered(play)
    await registered(play)
    await accepted(play, kept, b"<testsuite/>")
    await accepted(play, kept, complete=True)
    await play.until(kept.expires_at)
    await expiry(play).expire()
    await play.until(play.clock.now() + 1)
    assert (play.outside.failures, play.outside.finalized) == ([], set())

    await play.until(kept.expires_at + LATE_PUT)
    await expiry(play).expire()
    await play.until(play.clock.now() + 3 * MINUTE)
    assert (play.outside.failures, play.outside.finalized) == ([NEVER_UPLOADED], {"ci-7"})
    assert sorted(await play.states()) == ["dead", "delivered"]
    assert play.outside.stored == 1


@pytest.mark.parametrize(("state", "failures"), [(ClockState.SUSPECT, []), (ClockState.UNPROVEN, [NEVER_UPLOADED])])
async def test_a_clock_against_which_a_sign_speaks_gives_no_upload_up(play, state, failures):
    await registered(play)
    play.clock.advance(URL_LIFETIME + LATE_PUT)
    await replace(expiry(play), clock_verdict=lambda: Verdict(state=state)).expire()
    await play.until(play.clock.now() + MINUTE)
    assert play.outside.failures == failures


async def test_a_failure_is_reported_once_also_while_testnod_is_away(play):
    await registered(play)
    play.outside.away.add("testnod")
    play.clock.advance(URL_LIFETIME + LATE_PUT)
    await expiry(play).expire()
    await play.hours(3)
    play.outside.away.clear()
    await play.hours(30)

    assert play.outside.failures == [NEVER_UPLOADED]
    assert play.outside.finalized == {"ci-7"}


async def test_a_build_that_no_one_finalizes_ends_after_max_age_and_not_before(play):
    await accepted(play, await registered(play), b"<testsuite/>")
    await play.hours(23)
    assert await end_reason(play) is None
    assert play.outside.stored == 1
    await play.hours(2)
    assert await end_reason(play) == EndReason.MAX_AGE
    assert play.outside.finalized == {"ci-7"}


async def test_after_an_outage_builds_of_a_route_open_their_runs_in_the_order_of_their_registrations(play):
    play.outside.away.add("testnod")
    for number in range(6):
        submission = await registered(play, f"ci-{number}")
        await accepted(play, submission, b"<testsuite/>")
        await accepted(play, submission, complete=True)
        await play.until(play.clock.now() + HOUR)
    play.outside.away.clear()
    await play.hours(3)

    begun, *others = sorted(play.outside.opened)  # the first one had its turn before the outage was noticed
    assert [build_id for build_id in play.outside.opened if build_id != begun] == others
    assert len(others) == 5


async def test_a_route_that_is_gone_keeps_its_builds_until_it_is_back(play):
    routes, play.config = play.config.policy.routes, play.config
    await accepted(play, await registered(play), b"<testsuite/>")
    object.__setattr__(play.config.policy, "routes", tuple(route for route in routes if route.name != "shop"))
    await play.until(play.clock.now() + MINUTE)
    view = await play.config.database.read(find_build, "shop", "ci-7")
    assert view["blocked_reason"].startswith("No route takes this build.")
    assert play.outside.registered == []
