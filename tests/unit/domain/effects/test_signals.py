from dataclasses import replace

import pytest

from bridge.domain.build import Record
from bridge.domain.effects.signals import of_codearts, of_register, of_storage, of_testnod
from bridge.domain.gates import CODEARTS, TESTNOD, Signal, register_gate, route_gate, storage_gate
from bridge.domain.outcomes import (
    BuildInfo,
    Conflict,
    Damaged,
    Described,
    FailureNoted,
    Foreign,
    NoSuchBuild,
    NotSent,
    ProjectMissing,
    PutRefused,
    Registered,
    Rejected,
    RunEmpty,
    RunMissing,
    RunStatus,
    SlowDown,
    Stored,
    Unauthorized,
    Unknown,
    UrlRefused,
)

GOOD, BAD, ODD, SHUT = Signal.GOOD, Signal.BAD, Signal.ODD, Signal.SHUT
REGISTERED = Registered(test_run_id="1", upload_id="1", test_run_url="", presigned_url="https://s3", expires_at=None)
NO_URL = replace(REGISTERED, presigned_url="")
PAGE = Foreign(status=404, message="a page")


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
        (FailureNoted(status="failed"), GOOD, GOOD),
        (ProjectMissing(message="gone"), GOOD, SHUT),
        (Rejected(status=422, message=""), GOOD, None),
        (NO_URL, GOOD, GOOD),
        (Rejected(status=429, message="slow"), ODD, None),
        (PAGE, ODD, None),
        (Unknown(message="HTTP 503", status=503), ODD, None),
        (NotSent(message="no address"), BAD, None),
        (Unknown(message="cut"), BAD, None),
    ],
)
def test_every_answer_of_testnod_tells_of_the_host_and_some_of_the_route(outcome, host, route):
    signals = told(of_testnod(outcome, "shop"))

    assert signals == {TESTNOD: host, **({route_gate("shop"): route} if route else {})}


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
        (Unknown(message="HTTP 503", status=503), ODD),
        (NotSent(message="no address"), BAD),
        (Unknown(message="cut"), BAD),
    ],
)
def test_a_register_also_tells_whether_testnod_registers(outcome, signal):
    signals = told(of_register(outcome, "shop"))

    assert signals.pop(register_gate("shop"), None) == signal
    assert signals == told(of_testnod(outcome, "shop"))


def test_what_closes_a_gate_is_kept_to_be_shown():
    assert of_testnod(Unknown(message="cut"), "shop") == ((TESTNOD, BAD, "cut"),)
    assert of_testnod(ProjectMissing(message="Project not found."), "shop")[1][2] == "TestNod says: Project not found."


@pytest.mark.parametrize(
    ("outcome", "signal"),
    [
        (Stored(), GOOD),
        (PutRefused(status=400, code="", message=""), ODD),
        (PutRefused(status=403, code="AccessDenied", message=""), ODD),
        (PutRefused(status=404, code="NoSuchBucket", message=""), ODD),
        (PutRefused(status=406, code="", message=""), ODD),
        (PutRefused(status=429, code="", message=""), ODD),
        (PutRefused(status=413, code="", message=""), None),
        (PutRefused(status=400, code="EntityTooLarge", message=""), None),
        (UrlRefused(message=""), ODD),
        (Unknown(message="", status=503), ODD),
        (NotSent(message=""), BAD),
        (Unknown(message=""), BAD),
        (Damaged(message=""), None),
    ],
)
def test_only_what_storage_took_shows_that_it_works(outcome, signal):
    assert told(of_storage(outcome, "shop")) == ({storage_gate("shop"): signal} if signal else {})


@pytest.mark.parametrize(
    ("outcome", "signal"),
    [
        (BuildInfo(building=True, result=None, region=None), GOOD),
        (Described(record=Record()), GOOD),
        (NoSuchBuild(message=""), GOOD),
        (Unauthorized(message=""), SHUT),
        (NotSent(message=""), BAD),
        (Unknown(message=""), BAD),
        (Unknown(message="", status=200), ODD),
        (Rejected(status=400, message=""), None),
        (SlowDown(message=""), None),
    ],
)
def test_refused_credentials_close_codearts_at_once(outcome, signal):
    assert told(of_codearts(outcome)) == ({CODEARTS: signal} if signal else {})
