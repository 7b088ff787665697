"""Which facts are events of notices, and what they tell."""

from dataclasses import replace

import pytest

from bridge.domain.build import BuildState, DeliveryState, DeliveryTarget, UploadMetadata
from bridge.domain.changes import AddAttempt, set_build, set_delivery
from bridge.domain.circuit_breaker import (
    CODEARTS,
    RESTORE_PAUSE,
    TESTNOD,
    pause_breaker,
    route_breaker,
    storage_breaker,
)
from bridge.domain.instants import DAY, HOUR, MINUTE, Duration, after
from bridge.domain.intake import AcceptedUpload, NewRejection, QuarantinedFile
from bridge.domain.notice_events import (
    AWAY_FOR,
    Block,
    certificate_condition,
    events_of_block,
    events_of_changes,
    events_of_upload,
    upstream_conditions,
)
from bridge.domain.notices import EventKind, NoticeFilter, Subscriptions
from bridge.domain.result_mismatch import MismatchKind
from bridge.domain.routing import Route
from tests.support.builders import NOW, PARAMETERS, a_build, dead, opened, pending, report

ALL = Subscriptions(filters=(("all", (NoticeFilter(),)),))
SHOP = Subscriptions(filters=(("shop", (NoticeFilter(routes=frozenset({"shop"})),)),))
OTHER = Subscriptions(filters=(("other", (NoticeFilter(routes=frozenset({"other"})),)),))
ROUTES = (Route(name="shop", job_id=("job-*",)), Route(name="rest"))
SETTINGS = ("shop", "rest")  # names of routes
BLOCK = Block(
    job_id="job-1",
    build_no=7,
    route="shop",
    before=None,
    reason='Route "shop": TestNod has no project of this token. Fix its project_token.',
    waiting_on=None,
)


def died(build, *ids, error="TestNod rejected it. Correct it"):
    return [set_delivery(build.deliveries[id_], state=DeliveryState.DEAD, last_error=error) for id_ in ids]


def an_upload(*rejections, **other):
    values = {
        "job_id": "job-1",
        "build_no": 7,
        "upload_metadata": UploadMetadata(),
        "complete": False,
        "caller": "ci",
        "caller_routes": None,
        "address": "192.0.2.1",
        "request_id": "r-1",
        "reports": (),
        "rejections": rejections,
        **other,
    }
    return AcceptedUpload(**values)


def rejected(name="bad.xml", reason="bad.xml is not XML. Look at what wrote it.", **other):
    return NewRejection(name=name, reason=reason, code="BRIDGE.REPORT", **other)


# -- changes of builds -------------------------------------------------------------------------------------------


def test_reports_that_are_given_up_together_are_one_event_with_their_number():
    build = a_build(pending(1), pending(2), pending(3), run_parameters=PARAMETERS)
    [event] = events_of_changes(build, died(build, 1, 3), NOW, ALL)
    assert (event.kind, event.route, event.targets, event.count) == (EventKind.DEAD_DELIVERY, "shop", ("all",), 2)
    assert event.text == (
        "2 of the 3 reports of build 1 of job job were given up: the first is 1.xml, TestNod rejected it; Correct it. "
        "Remove the cause, then upload the same files again from CI."
    )


def test_copies_to_the_archive_that_are_given_up_are_told_apart():
    copy = pending(2, target=DeliveryTarget.ARCHIVE)
    build = a_build(pending(1), copy, run_parameters=PARAMETERS)
    [event] = events_of_changes(build, died(build, 2, error="The archive is full"), NOW, ALL)
    assert event.text.startswith("1 report of build 1 of job job was given up for the archive: The archive is full.")


def test_a_report_that_is_dead_already_or_was_delivered_meanwhile_is_no_event():
    build = a_build(dead(1), run_parameters=PARAMETERS)
    assert events_of_changes(build, died(build, 1), NOW, ALL) == ()
    was_pending = a_build(pending(1))
    delivered = a_build(pending(1, state=DeliveryState.DELIVERED))
    assert events_of_changes(delivered, died(was_pending, 1), NOW, ALL) == ()


def test_a_run_that_gets_stuck_is_an_event_once():
    build = a_build(pending(1), run_parameters=PARAMETERS)
    [event] = events_of_changes(build, [set_build(stuck_reason="The run stays pending.")], NOW, ALL)
    assert event.kind is EventKind.STUCK_RUN
    assert "is stuck at TestNod" in event.text
    assert "the run stays pending" in event.text.casefold()
    stuck = replace(build, stuck_reason="finalize fails")
    assert events_of_changes(stuck, [set_build(stuck_reason="finalize still fails")], NOW, ALL) == ()
    assert events_of_changes(stuck, [set_build(stuck_reason=None)], NOW, ALL) == ()


@pytest.mark.parametrize(
    ("reports", "kind", "event_kind", "says"),
    [
        ([report(1, tests=3)], MismatchKind.NO_FAILED_TEST, EventKind.RESULT_MISMATCH, "Look at the build log"),
        ([], MismatchKind.NO_REPORT, EventKind.BUILD_WITHOUT_REPORTS, "no report was accepted"),
    ],
)
def test_a_result_that_differs_from_the_reports_is_an_event_once(reports, kind, event_kind, says):
    build = a_build(*reports, state=BuildState.ENDED, build_result="failed", run_parameters=PARAMETERS)
    [event] = events_of_changes(build, [set_build(result_mismatch=kind)], NOW, ALL)
    assert event.kind is event_kind
    assert says in event.text
    assert event.text.startswith("Build 1 of job job: CodeArts says failed")
    again = replace(build, result_mismatch=kind)
    assert events_of_changes(again, [set_build(result_mismatch=kind)], NOW, ALL) == ()
    assert events_of_changes(again, [set_build(result_mismatch=None)], NOW, ALL) == ()


def test_other_changes_and_changes_without_subscriptions_are_no_events():
    build = a_build(pending(1), run_parameters=PARAMETERS)
    assert events_of_changes(build, [set_build(last_error="x"), AddAttempt(None)], NOW, ALL) == ()
    assert events_of_changes(build, died(build, 1), NOW, Subscriptions()) == ()
    assert events_of_changes(build, died(build, 1), NOW, OTHER) == ()
    assert len(events_of_changes(build, died(build, 1), NOW, SHOP)) == 1


def test_a_text_has_a_limit():
    build = a_build(pending(1), run_parameters=PARAMETERS)
    [event] = events_of_changes(build, [set_build(stuck_reason="x " * 10_000)], NOW, ALL)
    assert len(event.text) <= 600


# -- blocked builds ----------------------------------------------------------------------------------------------


def test_a_build_that_begins_to_wait_for_an_operator_is_an_event():
    [event] = events_of_block(BLOCK, SHOP)
    assert (event.kind, event.route, event.job_id, event.build_no) == (EventKind.BLOCKED_ROUTE, "shop", "job-1", 7)
    assert event.text == (
        'Build 7 of job job-1 is blocked: Route "shop": TestNod has no project of this token. Fix its project_token.'
    )


def test_the_breaker_names_the_route_of_a_build_without_run_parameters():
    block = replace(BLOCK, route="", waiting_on=route_breaker("shop"))
    assert [event.route for event in events_of_block(block, SHOP)] == ["shop"]
    assert events_of_block(replace(block, waiting_on=TESTNOD), SHOP) == ()


def test_a_build_that_waits_still_or_is_paused_is_no_event():
    for block in (
        replace(BLOCK, before="Something else."),
        replace(BLOCK, reason=None),
        replace(BLOCK, waiting_on=RESTORE_PAUSE, is_quiet=True),
        replace(BLOCK, is_quiet=True),  # in the settings
    ):
        assert events_of_block(block, ALL) == ()
    assert events_of_block(BLOCK, Subscriptions()) == ()
    assert events_of_block(BLOCK, OTHER) == ()


def test_a_build_that_is_blocked_after_a_pause_is_an_event():
    paused = replace(BLOCK, before="It is paused. Resume it.", was_quiet=True)
    assert len(events_of_block(paused, SHOP)) == 1
    assert events_of_block(replace(paused, is_quiet=True), SHOP) == ()


# -- uploads -----------------------------------------------------------------------------------------------------


def test_a_rejected_file_is_an_event_of_the_route_it_was_meant_for():
    [event] = events_of_upload(an_upload(rejected()), ROUTES, SHOP)
    assert (event.kind, event.route) == (EventKind.REJECTED_UPLOAD, "shop")
    assert event.text == ("1 file for build 7 of job job-1 was rejected: bad.xml is not XML. Look at what wrote it.")


def test_an_upload_with_many_rejected_files_is_one_event():
    files = [rejected(f"{number}.xml", "It is not XML. Look at it.") for number in range(3)]
    [event] = events_of_upload(an_upload(*files), ROUTES, ALL)
    assert event.count == 1
    assert event.text.startswith("3 files for build 7 of job job-1 were rejected: the first is 0.xml: It is not XML.")


def test_a_file_in_quarantine_has_its_route():
    kept = QuarantinedFile(
        node_id="", route="rest", size=1, sha256="", received_size=1, received_sha256="", keep_us=Duration(1)
    )
    [event] = events_of_upload(an_upload(rejected(quarantined=kept)), ROUTES, ALL)
    assert event.route == "rest"


def test_a_caller_that_is_bound_to_routes_names_one_of_its_own():
    [event] = events_of_upload(an_upload(rejected(), job_id="other", caller_routes=("rest",)), ROUTES, ALL)
    assert event.route == "rest"


def test_strangers_cause_no_notice_and_foreign_callers_none_to_a_route():
    assert events_of_upload(an_upload(rejected(), caller=""), ROUTES, ALL) == ()
    assert events_of_upload(an_upload(), ROUTES, ALL) == ()
    foreign = an_upload(rejected(name="", reason="The caller may not upload."), is_foreign=True)
    assert events_of_upload(foreign, ROUTES, SHOP) == ()
    [event] = events_of_upload(foreign, ROUTES, ALL)
    assert event.text.startswith("An upload for build 7 of job job-1 was rejected: The caller may not upload.")


# -- conditions --------------------------------------------------------------------------------------------------


def breakers_open(*names, since):
    return [opened(name, opened_at=since) for name in names]


def test_an_upstream_is_told_when_it_has_been_away_for_long_and_again_when_it_is_back():
    since = NOW
    at = after(since, AWAY_FOR)
    away = breakers_open(CODEARTS, since=since)
    assert upstream_conditions(away, {}, SETTINGS, after(at, Duration(-1)), ALL) == ([], [])
    [condition], ended = upstream_conditions(away, {}, SETTINGS, at, ALL)
    assert ended == []
    assert condition.began_at == since
    assert condition.event.text.startswith("CodeArts has been away for 15 minutes")
    told = {condition.subject: since}
    assert upstream_conditions(away, told, SETTINGS, at, ALL) == ([], [])
    new, [back] = upstream_conditions([], told, SETTINGS, after(since, HOUR), ALL)
    assert new == []
    assert back.event.text == "CodeArts is back after 1 hour; what waited is delivered now."


def test_breakers_of_projects_and_pauses_are_no_upstreams_that_are_away():
    names = (route_breaker("shop"), RESTORE_PAUSE, pause_breaker("shop"))
    assert upstream_conditions(breakers_open(*names, since=NOW), {}, SETTINGS, after(NOW, DAY), ALL) == ([], [])


def test_an_outage_that_began_at_another_time_than_the_announced_one_is_announced():
    began = after(NOW, DAY)
    away = breakers_open(CODEARTS, since=began)
    told = {"away:codearts": NOW}
    assert upstream_conditions(away, told, SETTINGS, began, ALL) == ([], [])
    [condition], ended = upstream_conditions(away, told, SETTINGS, after(began, AWAY_FOR), ALL)
    assert (condition.began_at, ended) == (began, [])


def test_upstreams_of_a_route_that_was_removed_are_not_announced_and_end_silently():
    gone = storage_breaker("gone")
    assert upstream_conditions(breakers_open(gone, since=NOW), {}, SETTINGS, after(NOW, DAY), ALL) == ([], [])
    new, [ended] = upstream_conditions([], {f"away:{gone}": NOW}, SETTINGS, NOW, ALL)
    assert (new, ended.event.targets) == ([], ())


def test_the_return_of_an_upstream_that_no_target_wants_ends_its_condition_silently():
    _, [ended] = upstream_conditions([], {"away:testnod": NOW}, SETTINGS, NOW, SHOP)
    assert ended.event.targets == ()


@pytest.mark.parametrize(("left", "mark"), [(15, None), (14, "14"), (4, "14"), (3, "3"), (0, "0"), (-2, "0")])
def test_a_certificate_is_told_once_for_each_threshold(left, mark):
    found = certificate_condition(after(NOW, Duration(left * DAY)), "f1", "tls.pem", NOW, ALL)
    assert (None if found is None else found.subject.rpartition(":")[2]) == mark


def test_a_certificate_concerns_no_route():
    assert certificate_condition(NOW, "f1", "tls.pem", NOW, SHOP) is None
    assert "has ended" in certificate_condition(after(NOW, Duration(-MINUTE)), "f1", "tls.pem", NOW, ALL).event.text
