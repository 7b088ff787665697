from dataclasses import replace

import pytest

from bridge.domain.build import SECOND, BuildRecord
from bridge.domain.circuit_breaker import CODEARTS, TESTNOD, CircuitBreakers, storage_breaker
from bridge.domain.code_check.models import CodeCheckStatus
from bridge.domain.policy import RECORD_TIMEOUT
from bridge.domain.why import away, delivery_wait, finalize_wait, last_status, quality_said
from tests.support.builders import (
    MINUTE,
    NOW,
    PIN,
    ROUTE,
    RUN,
    a_build,
    delivered,
    ended,
    finalized,
    named,
    opened,
    owed,
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
        (TESTNOD, PIN, "TestNod has been away for 2 minutes (It answers 503); the next try is in 5 seconds"),
        (storage_breaker(ROUTE), PIN, "TestNod's storage has been away for 2 minutes (It answers 503); the next try"),
        (storage_breaker("other"), PIN, "nothing has failed so far, TestNod comes next; the next try is in 30 seconds"),
        (CODEARTS, PIN, "nothing has failed so far, TestNod comes next"),
    ],
)
def test_a_delivery_waits_for_the_upstream_that_is_away_and_needed(breaker, run_parameters, says):
    build = a_build(owed(due_at=NOW + 30 * SECOND), run_parameters=run_parameters)
    assert delivery_wait(build, breakers_opened(breaker), NOW).startswith(says)


def test_one_that_stands_in_the_line_of_its_job_says_so():
    build = a_build(owed(due_at=NOW), line_until=NOW + 30 * MINUTE)
    first = "an earlier build of the same job opens its run first, as TestNod compares runs in their order"
    assert delivery_wait(build, CircuitBreakers(), NOW) == f"{first}; the next try is in 30 minutes"
    assert delivery_wait(build, breakers_opened(TESTNOD), NOW).startswith("TestNod has been away for 2 minutes")


def test_a_named_registration_means_that_storage_comes_next():
    build = a_build(owed(last_error="storage answered 503."), named(due_at=NOW))
    assert delivery_wait(build, CircuitBreakers(), NOW) == (
        "TestNod's storage comes next after a failure (storage answered 503); the next try is due now"
    )


def test_the_delivery_that_is_due_first_is_told():
    build = a_build(
        owed(1, due_at=NOW + MINUTE), owed(2, due_at=NOW + SECOND, last_error="HTTP 500."), run_parameters=PIN
    )
    assert delivery_wait(build, CircuitBreakers(), NOW) == (
        "TestNod comes next after a failure (HTTP 500); the next try is in 1 second"
    )


@pytest.mark.parametrize(
    ("values", "breakers", "says"),
    [
        (ASKED, CircuitBreakers(), "CodeArts has not described the build yet (Slow down)"),
        ({"describe_due_at": NOW + 5 * SECOND}, CircuitBreakers(), "CodeArts has not described the build yet"),
        ({}, breakers_opened(CODEARTS), "CodeArts has been away for 2 minutes (It answers 503)"),
    ],
)
def test_the_first_register_waits_for_record_info(values, breakers, says):
    assert delivery_wait(a_build(owed(), **{**FRESH, **values}), breakers, NOW) == (
        f"{says} and is waited for at most 40 seconds more; the next try is in 5 seconds"
    )


def test_record_info_is_waited_for_no_longer_than_the_register_waits():
    build = a_build(owed(), **{**FRESH, **ASKED, "describe_due_at": NOW + 10 * MINUTE})
    assert delivery_wait(build, CircuitBreakers(), NOW).endswith("; the next try is in 40 seconds")


@pytest.mark.parametrize("breakers", [CircuitBreakers(), breakers_opened(CODEARTS)])
@pytest.mark.parametrize(
    "values",
    [
        {"accepted_at": NOW - RECORD_TIMEOUT},  # that was long enough
        {"described_at": NOW - SECOND, "record": BuildRecord()},
        {"run_parameters": PIN},
    ],
)
def test_once_the_first_register_need_not_wait_testnod_comes_next(values, breakers):
    build = a_build(owed(), **{**FRESH, **ASKED, **values})
    assert delivery_wait(build, breakers, NOW).startswith("nothing has failed so far, TestNod comes next")


def test_where_nobody_has_asked_codearts_there_may_be_nobody_to_ask():
    assert "TestNod comes next" in delivery_wait(a_build(owed(), **FRESH), CircuitBreakers(), NOW)


def test_what_keeps_testnod_away_is_told_before_record_info():
    build = a_build(owed(), **{**FRESH, **ASKED})
    assert delivery_wait(build, breakers_opened(TESTNOD), NOW).startswith("TestNod has been away")


# -- runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "breakers", "says"),
    [
        (a_build(RUN), CircuitBreakers(), "when the build has ended: nobody has said so yet"),
        (a_build(RUN, polled_at=NOW - 20 * SECOND), CircuitBreakers(), "CodeArts was asked 20 seconds ago"),
        (
            a_build(RUN, not_found_since=NOW - MINUTE),
            CircuitBreakers(),
            "CodeArts has known no such build for 1 minute",
        ),
        (a_build(RUN), breakers_opened(CODEARTS), "CodeArts has been away for 2 minutes (It answers 503)"),
        (
            ended(RUN, ended_at=NOW - 3 * SECOND, build_result="SUCCESS"),
            CircuitBreakers(),
            "in a moment: the build ended with SUCCESS 3 seconds ago",
        ),
        (ended(RUN), breakers_opened(TESTNOD), "when TestNod can be asked: TestNod has been away for 2 minutes"),
        (
            ended(RUN, finalize_failing_since=NOW - MINUTE, last_error="HTTP 500."),
            CircuitBreakers(),
            "as soon as TestNod takes it: finalize has been failing for 1 minute (HTTP 500)",
        ),
    ],
)
def test_a_run_waits_for_the_end_for_testnod_or_for_a_moment(build, breakers, says):
    assert says in finalize_wait(build, breakers, NOW)


@pytest.mark.parametrize(
    ("status", "values", "says"),
    [
        ("processing", {}, "TestNod last called it processing and is asked no more"),
        (
            "pending",
            {"confirm_until": NOW + MINUTE, "confirm_due_at": NOW + 8 * SECOND},
            "TestNod last called it pending and the next look is in 8 seconds",
        ),
        (
            "pending",
            {"confirm_until": NOW + MINUTE, "confirm_due_at": NOW},
            "TestNod last called it pending and the next look is due now",
        ),
    ],
)
def test_a_status_is_what_testnod_said_last_and_not_what_it_is_now(status, values, says):
    build = finalized(replace(RUN, status=status), finalized_at=NOW - 3 * MINUTE, **values)
    assert last_status(build, NOW) == f"was finalized 3 minutes ago; {says}"


# -- CodeArts Check ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "it is waited for at most 1 minute more"),
        ({"attempts": 1, "summary": "HTTP 503."}, "1 call came to nothing (HTTP 503), and it is waited for at most"),
        ({"attempts": 2, "summary": "HTTP 503."}, "2 calls came to nothing (HTTP 503), and it is waited for at most"),
    ],
)
def test_a_run_that_waits_for_check_says_how_long_at_most(values, says):
    build = ended(delivered(), stored(), code_check=waiting(**values))
    assert finalize_wait(build, CircuitBreakers(), NOW).startswith(f"when CodeArts Check has answered: {says}")


@pytest.mark.parametrize(
    ("code_check", "says"),
    [
        (None, ""),
        (waiting(), ""),
        (waiting(CodeCheckStatus.ANSWERED, summary="4 major issues"), "; CodeArts Check: 4 major issues"),
        (waiting(CodeCheckStatus.MISSING, summary="no"), "; CodeArts Check gave no report in time: no"),
        (waiting(CodeCheckStatus.OMITTED, summary="no"), "; CodeArts Check gave no report in time: no"),
    ],
)
def test_what_became_of_check_is_said_once_it_is_known(code_check, says):
    assert quality_said(code_check) == says
