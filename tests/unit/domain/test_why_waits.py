from dataclasses import replace

import pytest

from bridge.domain.build import BuildRecord
from bridge.domain.circuit_breaker import CODEARTS, TESTNOD, CircuitBreakers, storage_breaker
from bridge.domain.code_check.models import CodeCheckStatus
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.breaker_signals import CREDENTIALS_REJECTED
from bridge.domain.policy import RECORD_TIMEOUT
from bridge.domain.why import DeliveryWait, away, code_check_note, delivery_wait, finalize_wait, why
from tests.support.builders import (
    MINUTE,
    NOW,
    PARAMETERS,
    ROUTE,
    RUN,
    a_build,
    delivered,
    ended,
    finalized,
    opened,
    pending,
    registered,
    requested,
    stored,
    waiting,
)

REASON = "It answers 503."
FRESH = {"accepted_at": NOW - 20 * SECOND}
ASKED = {"describe_attempts": 1, "describe_due_at": NOW + 5 * SECOND, "last_error": "Slow down."}


def breakers_opened(name, **values):
    values = {"opened_at": NOW - 2 * MINUTE, "reason": REASON, "probe_at": NOW + 5 * SECOND, **values}
    return CircuitBreakers.of([opened(name, **values)])


def test_what_is_away_says_since_when_and_why():
    assert away("TestNod", opened(TESTNOD, reason=REASON), NOW) == "TestNod has been away for 1 minute (It answers 503)"


# -- reports that are owed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("breaker", "run_parameters", "says"),
    [
        (TESTNOD, PARAMETERS, "TestNod has been away for 2 minutes (It answers 503)"),
        (storage_breaker(ROUTE), PARAMETERS, "TestNod's storage has been failing for 2 minutes (It answers 503)"),
        (storage_breaker("other"), PARAMETERS, "nothing has failed so far, TestNod is called next"),
        (CODEARTS, PARAMETERS, "nothing has failed so far, TestNod is called next"),
    ],
)
def test_a_delivery_waits_for_the_upstream_that_is_away_and_needed(breaker, run_parameters, says):
    build = a_build(pending(due_at=NOW + 30 * SECOND), run_parameters=run_parameters)
    assert delivery_wait(build, breakers_opened(breaker), NOW).cause == says


def test_one_that_stands_in_the_line_of_its_job_says_so():
    build = a_build(pending(due_at=NOW), queue_until=NOW + 30 * MINUTE)
    first = "an earlier build of the same job opens its run first, as TestNod compares runs in their order"
    assert delivery_wait(build, CircuitBreakers(), NOW) == DeliveryWait(cause=first, until=NOW + 30 * MINUTE)
    assert delivery_wait(build, breakers_opened(TESTNOD), NOW).cause.startswith("TestNod has been away for 2 minutes")


def test_a_named_registration_means_that_storage_comes_next():
    build = a_build(pending(last_error="storage answered 503."), registered(due_at=NOW))
    cause = "1 attempt failed, the last one with storage answered 503; TestNod's storage is called next"
    assert delivery_wait(build, CircuitBreakers(), NOW) == DeliveryWait(cause=cause, until=NOW)


def test_the_delivery_that_is_due_first_is_told():
    build = a_build(
        pending(1, due_at=NOW + MINUTE),
        pending(2, due_at=NOW + SECOND, last_error="HTTP 500."),
        run_parameters=PARAMETERS,
    )
    cause = "1 attempt failed, the last one with HTTP 500; TestNod is called next"
    assert delivery_wait(build, CircuitBreakers(), NOW) == DeliveryWait(cause=cause, until=NOW + SECOND)


def test_failed_attempts_are_counted():
    build = a_build(pending(attempts=6, last_error="HTTP 422"), registered(due_at=NOW, attempts=1))
    assert delivery_wait(build, CircuitBreakers(), NOW).cause.startswith(
        "7 attempts failed, the last one with HTTP 422"
    )


def test_rejected_credentials_are_no_outage():
    reason = f"{CREDENTIALS_REJECTED}decrypt token fail."
    assert away("CodeArts", opened(CODEARTS, reason=reason), NOW) == (
        "CodeArts has rejected the bridge's credentials for 1 minute "
        "(decrypt token fail; renew them in [codearts] and reload)"
    )


@pytest.mark.parametrize(
    ("registration", "says"),
    [
        (requested(requested_at=NOW - 15 * SECOND), "the call that registers a report at TestNod has been running"),
        (registered(due_at=NOW - 15 * SECOND), "the upload of a report to TestNod's storage has been running"),
    ],
)
def test_a_call_that_hangs_is_named_with_its_duration(registration, says):
    build = a_build(pending(), registration)
    wait = delivery_wait(build, CircuitBreakers(), NOW, leased=True)
    assert wait.cause == f"{says} for 15 seconds"
    assert not delivery_wait(build, CircuitBreakers(), NOW).is_running  # no worker has the build
    assert not delivery_wait(a_build(pending(due_at=NOW)), CircuitBreakers(), NOW, leased=True).is_running


@pytest.mark.parametrize(
    ("values", "breakers", "says"),
    [
        (ASKED, CircuitBreakers(), "CodeArts has not described the build yet (Slow down)"),
        ({"describe_due_at": NOW + 5 * SECOND}, CircuitBreakers(), "CodeArts has not described the build yet"),
        ({}, breakers_opened(CODEARTS), "CodeArts has been away for 2 minutes (It answers 503)"),
    ],
)
def test_the_first_register_waits_for_record_info(values, breakers, says):
    assert delivery_wait(a_build(pending(), **{**FRESH, **values}), breakers, NOW) == DeliveryWait(
        cause=f"{says} and is waited for at most 40 seconds more", until=NOW + 5 * SECOND
    )


def test_record_info_is_waited_for_no_longer_than_the_register_waits():
    build = a_build(pending(), **{**FRESH, **ASKED, "describe_due_at": NOW + 10 * MINUTE})
    assert delivery_wait(build, CircuitBreakers(), NOW).until == NOW + 40 * SECOND


@pytest.mark.parametrize("breakers", [CircuitBreakers(), breakers_opened(CODEARTS)])
@pytest.mark.parametrize(
    "values",
    [
        {"accepted_at": NOW - RECORD_TIMEOUT},  # that was long enough
        {"described_at": NOW - SECOND, "record": BuildRecord()},
        {"run_parameters": PARAMETERS},
    ],
)
def test_once_the_first_register_need_not_wait_testnod_comes_next(values, breakers):
    build = a_build(pending(), **{**FRESH, **ASKED, **values})
    assert delivery_wait(build, breakers, NOW).cause.startswith("nothing has failed so far, TestNod is called next")


def test_if_codearts_was_not_asked_testnod_comes_next():
    assert "TestNod is called next" in delivery_wait(a_build(pending(), **FRESH), CircuitBreakers(), NOW).cause


def test_what_keeps_testnod_away_is_told_before_record_info():
    build = a_build(pending(), **{**FRESH, **ASKED})
    assert delivery_wait(build, breakers_opened(TESTNOD), NOW).cause.startswith("TestNod has been away")


# -- runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "breakers", "says"),
    [
        (a_build(RUN), CircuitBreakers(), "when the build has ended, no end has been reported yet"),
        (a_build(RUN, polled_at=NOW - 20 * SECOND), CircuitBreakers(), "CodeArts was asked 20 seconds ago"),
        (
            a_build(RUN, not_found_since=NOW - MINUTE),
            CircuitBreakers(),
            "CodeArts has answered for 1 minute that there is no such build",
        ),
        (a_build(RUN), breakers_opened(CODEARTS), "CodeArts has been away for 2 minutes (It answers 503)"),
        (
            ended(RUN, ended_at=NOW - 3 * SECOND, build_result="SUCCESS"),
            CircuitBreakers(),
            "the build ended with SUCCESS 3 seconds ago, and the run is finalized in a moment",
        ),
        (ended(RUN), breakers_opened(TESTNOD), "when TestNod can be called, TestNod has been away for 2 minutes"),
        (
            ended(RUN, finalize_failing_since=NOW - MINUTE, last_error="HTTP 500."),
            CircuitBreakers(),
            "finalize has been failing for 1 minute (HTTP 500)",
        ),
    ],
)
def test_a_run_waits_for_the_end_for_testnod_or_for_a_moment(build, breakers, says):
    assert says in finalize_wait(build, breakers, NOW)


@pytest.mark.parametrize(
    ("status", "values", "action"),
    [
        ("processing", {}, "no action is needed"),
        (
            "pending",
            {"confirm_until": NOW + MINUTE, "confirm_due_at": NOW + 8 * SECOND},
            "the next check is in 8 seconds",
        ),
        (
            "pending",
            {"confirm_until": NOW + MINUTE, "confirm_due_at": NOW},
            "the next check is due now",
        ),
    ],
)
def test_the_status_of_a_run_is_what_testnod_answered_last(status, values, action):
    build = finalized(delivered(), stored(), replace(RUN, status=status), finalized_at=NOW - 3 * MINUTE, **values)
    answer = why(job_id="job", build_no=1, build=build, rejections=(), breakers=CircuitBreakers(), now=NOW, polled=None)
    assert answer.status.endswith(", which was finalized 3 minutes ago")
    assert (answer.cause, answer.action) == (f"TestNod last called it {status}", action)


# -- CodeArts Check ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "it is waited for at most 1 minute more"),
        ({"attempts": 1, "summary": "HTTP 503."}, "1 call failed (HTTP 503), and it is waited for at most"),
        ({"attempts": 2, "summary": "HTTP 503."}, "2 calls failed (HTTP 503), and it is waited for at most"),
    ],
)
def test_a_run_that_waits_for_check_says_how_long_at_most(values, says):
    build = ended(delivered(), stored(), code_check=waiting(**values))
    assert finalize_wait(build, CircuitBreakers(), NOW).startswith(
        f"the run is finalized when CodeArts Check has answered, {says}"
    )


@pytest.mark.parametrize(
    ("code_check", "says"),
    [
        (None, ""),
        (waiting(), ""),
        (waiting(CodeCheckStatus.ANSWERED, summary="4 major issues"), "CodeArts Check: 4 major issues"),
        (waiting(CodeCheckStatus.MISSING, summary="no"), "CodeArts Check gave no report in time (no)"),
        (waiting(CodeCheckStatus.OMITTED, summary="no"), "CodeArts Check gave no report in time (no)"),
    ],
)
def test_what_became_of_check_is_said_once_it_is_known(code_check, says):
    assert code_check_note(code_check) == says
