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

GOOD, BAD, ODD, SHUT = HealthSignal.SUCCESS, HealthSignal.FAILURE, HealthSignal.UNEXPECTED, HealthSignal.TRIP
REGISTERED = Registered(test_run_id="1", upload_id="1", test_run_url="", presigned_url="https://s3", expires_at=None)
NO_URL = replace(REGISTERED, presigned_url="")
PAGE = UnrecognizedResponse(status=404, message="a page")


def told(signals):
    return {gate: signal for gate, signal, _ in signals}


@pytest.mark.parametrize(
    ("outcome", "host", "route"),
    [
        (REGISTERED, GOOD, GOOD),
        (Conflict(message=""), GOOD, GOOD),
        (RunStatus(status="pending"), GOOD, GOOD),
        (RunMissing(message=""), GOOD, GOOD),
        (RunEmpty(message=""), GOOD, GOOD),
        (FailureRecorded(status="failed"), GOOD, GOOD),
        (ProjectMissing(message="gone"), GOOD, SHUT),
        (Rejected(status=422, message=""), GOOD, None),
        (NO_URL, GOOD, GOOD),
        (Rejected(status=429, message="slow"), ODD, None),
        (PAGE, ODD, None),
        (OutcomeUnknown(message="HTTP 503", status=503), ODD, None),
        (NotSent(message="no address"), BAD, None),
        (OutcomeUnknown(message="cut"), BAD, None),
    ],
)
def test_every_answer_of_testnod_tells_of_the_host_and_some_of_the_route(outcome, host, route):
    signals = told(of_testnod(outcome, "shop"))

    assert signals == {TESTNOD: host, **({route_breaker("shop"): route} if route else {})}


@pytest.mark.parametrize(
    ("outcome", "signal"),
    [
        (REGISTERED, GOOD),
        (Conflict(message=""), GOOD),
        (NO_URL, ODD),
        (Rejected(status=422, message=""), ODD),
        (ProjectMissing(message="gone"), None),
        (Rejected(status=429, message="slow"), ODD),
        (PAGE, ODD),
        (OutcomeUnknown(message="HTTP 503", status=503), ODD),
        (NotSent(message="no address"), BAD),
        (OutcomeUnknown(message="cut"), BAD),
    ],
)
def test_a_register_also_tells_whether_testnod_registers(outcome, signal):
    signals = told(of_register(outcome, "shop"))

    assert signals.pop(register_breaker("shop"), None) == signal
    assert signals == told(of_testnod(outcome, "shop"))


def test_what_closes_a_gate_is_kept_to_be_shown():
    assert of_testnod(OutcomeUnknown(message="cut"), "shop") == ((TESTNOD, BAD, "cut"),)
    assert of_testnod(ProjectMissing(message="Project not found."), "shop")[1][2] == "TestNod says: Project not found."


@pytest.mark.parametrize(
    ("outcome", "signal"),
    [
        (Stored(), GOOD),
        (PutRejected(status=400, code="", message=""), ODD),
        (PutRejected(status=403, code="AccessDenied", message=""), ODD),
        (PutRejected(status=404, code="NoSuchBucket", message=""), ODD),
        (PutRejected(status=406, code="", message=""), ODD),
        (PutRejected(status=429, code="", message=""), ODD),
        (PutRejected(status=413, code="", message=""), None),
        (PutRejected(status=400, code="EntityTooLarge", message=""), None),
        (UrlRejected(message=""), ODD),
        (OutcomeUnknown(message="", status=503), ODD),
        (NotSent(message=""), BAD),
        (OutcomeUnknown(message=""), BAD),
        (CorruptBody(message=""), None),
    ],
)
def test_only_what_storage_took_shows_that_it_works(outcome, signal):
    assert told(of_storage(outcome, "shop")) == ({storage_breaker("shop"): signal} if signal else {})


@pytest.mark.parametrize(
    ("outcome", "signal"),
    [
        (BuildInfo(building=True, result=None, region=None), GOOD),
        (RecordFetched(record=BuildRecord()), GOOD),
        (NoSuchBuild(message=""), GOOD),
        (CredentialsRejected(message=""), SHUT),
        (NotSent(message=""), BAD),
        (OutcomeUnknown(message=""), BAD),
        (OutcomeUnknown(message="", status=200), ODD),
        (Rejected(status=400, message=""), None),
        (Throttled(message=""), None),
    ],
)
def test_refused_credentials_close_codearts_at_once(outcome, signal):
    assert told(of_codearts(outcome)) == ({CODEARTS: signal} if signal else {})
