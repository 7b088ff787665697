"""One event for each thing that happens to a build, with its reason, and no line for what is no news."""

from dataclasses import replace
from functools import partial

import pytest
import structlog

from bridge.domain.build import BuildState, DeliveryState, DeliveryTarget, EndReason
from bridge.domain.changes import AddRun, set_build, set_delivery
from bridge.domain.rows import Rows
from bridge.worker.build_log import MAX_NAMED_REPORTS, log_blocked, log_changes, log_deliveries
from tests.support.builders import NOW, RUN, a_build, delivered, ended, pending


def logged(write, *arguments):
    with structlog.testing.capture_logs() as lines:
        write(*arguments, lambda: {"job_id": "j"})
    assert all(line["job_id"] == "j" for line in lines)
    return lines


def unasked():
    pytest.fail("fields are for lines only")


def test_deaths_of_a_step_are_one_warning_for_each_reason():
    build = a_build(*(pending(number) for number in range(1, 9)))
    changes = [
        set_delivery(delivery, state=DeliveryState.DEAD, last_error="gone" if number == 8 else "HTTP 422")
        for number, delivery in build.deliveries.items()
    ]
    first, second = logged(log_changes, build, changes)
    assert (first["event"], first["log_level"], first["target"]) == ("delivery_died", "warning", "testnod")
    assert (first["reason"], first["deliveries"], len(first["reports"])) == ("HTTP 422", 7, MAX_NAMED_REPORTS)
    assert (second["reason"], second["deliveries"]) == ("gone", 1)


def test_a_delivery_that_the_settings_keep_back_is_a_warning():
    build = a_build(pending(1))
    (line,) = logged(
        log_changes, build, [set_delivery(build.deliveries[1], blocked_since=NOW, last_error="no archive")]
    )
    assert (line["event"], line["log_level"], line["reason"]) == ("delivery_blocked", "warning", "no archive")


def test_a_run_is_opened_once():
    build = replace(a_build(pending(1)), runs=(RUN,))
    again = AddRun(RUN.test_run_id, RUN.test_run_url, NOW)
    (line,) = logged(log_changes, build, [again, AddRun("run-2", "https://testnod.test/run-2", NOW)])
    assert (line["event"], line["test_run_id"]) == ("run_opened", "run-2")


def test_an_end_and_a_run_that_stays_pending_are_logged_whichever_call_has_shown_them():
    end = set_build(state=BuildState.ENDED, end_reason=EndReason.BUILD_INFO, build_result="SUCCESS")
    (line,) = logged(log_changes, a_build(pending(1)), [end])
    assert (line["event"], line["reason"], line["build_result"]) == ("build_ended", "build_info", "SUCCESS")
    stuck = set_build(stuck_reason="it stays pending")
    (line,) = logged(log_changes, ended(delivered()), [stuck])
    assert (line["event"], line["log_level"], line["reason"]) == ("build_stuck", "warning", "it stays pending")
    assert logged(log_changes, replace(ended(delivered()), stuck_reason="before"), [stuck]) == []


def test_what_is_no_news_asks_for_no_fields():
    build = a_build(pending(1))
    log_changes(build, [set_delivery(build.deliveries[1], attempts=2), set_build(polls=3)], unasked)
    log_deliveries(build, build, unasked)
    log_deliveries(build, replace(build, deliveries=Rows(build.deliveries.values())), unasked)
    log_blocked(build, None, unasked)


def test_reports_that_a_step_has_delivered_are_one_line_for_each_target():
    copy = pending(3, target=DeliveryTarget.ARCHIVE)
    before = a_build(pending(1), pending(2), copy)
    after = replace(
        before,
        deliveries=before.deliveries.with_rows(
            [
                replace(before.deliveries[1], state=DeliveryState.DELIVERED),
                replace(copy, state=DeliveryState.DELIVERED),
            ]
        ),
    )
    lines = logged(log_deliveries, before, after)
    assert [(line["event"], line["target"], line["deliveries"], line["pending"]) for line in lines] == [
        ("reports_delivered", "testnod", 1, 1),
        ("reports_delivered", "archive", 1, 0),
    ]
    assert logged(log_deliveries, after, after) == []


def test_a_build_that_waits_for_an_operator_is_a_warning_until_it_does_not():
    build = a_build(pending(1))
    (line,) = logged(log_blocked, build, "Correct the token.")
    assert (line["event"], line["log_level"], line["reason"]) == ("build_blocked", "warning", "Correct the token.")
    blocked = replace(build, blocked_reason="Correct the token.")
    assert logged(log_blocked, blocked, "Correct the token.") == []
    (line,) = logged(log_blocked, blocked, None)
    assert line["event"] == "build_unblocked"


def test_a_build_that_waits_quietly_is_not_logged_until_what_blocks_it_is_news():
    quiet = a_build(pending(1), blocked_reason="Correct the token.", blocked_quietly=True)
    assert logged(partial(log_blocked, quietly=True), quiet, "Correct the token.") == []
    assert logged(log_blocked, quiet, None) == []
    (line,) = logged(log_blocked, quiet, "Correct the token.")
    assert line["event"] == "build_blocked"
