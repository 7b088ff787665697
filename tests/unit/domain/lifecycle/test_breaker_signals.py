from dataclasses import replace

import pytest

from bridge.domain.build import BuildRecord
from bridge.domain.circuit_breaker import (
    CODEARTS,
    TESTNOD,
    HealthSignal,
    register_breaker,
    route_breaker,
    storage_breaker,
)
from bridge.domain.lifecycle.breaker_signals import of_codearts, of_register, of_storage, of_testnod
from bridge.domain.outcomes import (
    BuildInfo,
    Conflict,
    CorruptBody,
    CredentialsRejected,
    FailureRecorded,
    NoSuchBuild,
    NotSent,
    OutcomeUnknown,
    ProjectMissing,
    PutRejected,
    RecordFetched,
    Registered,
    Rejected,
    RunEmpty,
    RunMissing,
    RunStatus,
    Stored,
    Throttled,
    UnrecognizedResponse,
    UrlRejected,
)

SUCCESS, FAILURE, UNEXPECTED, TRIP = HealthSignal
REGISTERED = Registered(test_run_id="1", upload_id="1", test_run_url="", presigned_url="https://s3", expires_at=None)
NO_URL = replace(REGISTERED, presigned_url="")
PAGE = UnrecognizedResponse(status=404, message="a page")


def told(signals):
    return {breaker: signal for breaker, signal, _ in signals}


@pytest.mark.parametrize(
    ("outcome", "host", "route"),
    [
        (REGISTERED, SUCCESS, SUCCESS),
        (Conflict(message=""), SUCCESS, SUCCESS),
        (RunStatus(status="pending"), SUCCESS, SUCCESS),
        (RunMissing(message=""), SUCCESS, SUCCESS),
        (RunEmpty(message=""), SUCCESS, SUCCESS),
        (FailureRecorded(status="failed"), SUCCESS, SUCCESS),
        (ProjectMissing(message="gone"), SUCCESS, TRIP),
        (Rejected(status=422, message=""), SUCCESS, None),
        (NO_URL, SUCCESS, SUCCESS),
        (Rejected(status=429, message="slow"), UNEXPECTED, None),
        (PAGE, UNEXPECTED, None),
        (OutcomeUnknown(message="HTTP 503", status=503), UNEXPECTED, None),
        (NotSent(message="no address"), FAILURE, None),
        (OutcomeUnknown(message="cut"), FAILURE, None),
    ],
)
def test_every_answer_of_testnod_tells_of_the_host_and_some_of_the_route(outcome, host, route):
    signals = told(of_testnod(outcome, "shop"))

    assert signals == {TESTNOD: host, **({route_breaker("shop"): route} if route else {})}


@pytest.mark.parametrize(
    ("outcome", "signal"),
    [
        (REGISTERED, SUCCESS),
        (Conflict(message=""), SUCCESS),
        (NO_URL, UNEXPECTED),
        (Rejected(status=422, message=""), UNEXPECTED),
        (ProjectMissing(message="gone"), None),
        (Rejected(status=429, message="slow"), UNEXPECTED),
        (PAGE, UNEXPECTED),
        (OutcomeUnknown(message="HTTP 503", status=503), UNEXPECTED),
        (NotSent(message="no address"), FAILURE),
        (OutcomeUnknown(message="cut"), FAILURE),
    ],
)
def test_a_register_also_tells_whether_testnod_registers(outcome, signal):
    signals = told(of_register(outcome, "shop"))

    assert signals.pop(register_breaker("shop"), None) == signal
    assert signals == told(of_testnod(outcome, "shop"))


def test_the_reason_why_a_breaker_opened_is_kept():
    assert of_testnod(OutcomeUnknown(message="cut"), "shop") == ((TESTNOD, FAILURE, "cut"),)
    assert (
        of_testnod(ProjectMissing(message="Project not found."), "shop")[1][2]
        == "TestNod responded: Project not found."
    )


@pytest.mark.parametrize(
    ("outcome", "signal"),
    [
        (Stored(), SUCCESS),
        (PutRejected(status=400, code="", message=""), UNEXPECTED),
        (PutRejected(status=403, code="AccessDenied", message=""), UNEXPECTED),
        (PutRejected(status=404, code="NoSuchBucket", message=""), UNEXPECTED),
        (PutRejected(status=406, code="", message=""), UNEXPECTED),
        (PutRejected(status=429, code="", message=""), UNEXPECTED),
        (PutRejected(status=413, code="", message=""), None),
        (PutRejected(status=400, code="EntityTooLarge", message=""), None),
        (UrlRejected(message=""), UNEXPECTED),
        (OutcomeUnknown(message="", status=503), UNEXPECTED),
        (NotSent(message=""), FAILURE),
        (OutcomeUnknown(message=""), FAILURE),
        (CorruptBody(message=""), None),
    ],
)
def test_only_what_storage_took_shows_that_it_works(outcome, signal):
    assert told(of_storage(outcome, "shop")) == ({storage_breaker("shop"): signal} if signal else {})


@pytest.mark.parametrize(
    ("outcome", "signal"),
    [
        (BuildInfo(building=True, result=None, region=None), SUCCESS),
        (RecordFetched(record=BuildRecord()), SUCCESS),
        (NoSuchBuild(message=""), SUCCESS),
        (CredentialsRejected(message=""), TRIP),
        (NotSent(message=""), FAILURE),
        (OutcomeUnknown(message=""), FAILURE),
        (OutcomeUnknown(message="", status=200), UNEXPECTED),
        (Rejected(status=400, message=""), None),
        (Throttled(message=""), None),
    ],
)
def test_refused_credentials_close_codearts_at_once(outcome, signal):
    assert told(of_codearts(outcome)) == ({CODEARTS: signal} if signal else {})
