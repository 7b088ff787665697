"""Scripted and random faults, and the call log."""

import pytest

from bridge.sandbox.faults import MAX_CALLS, CallLog, FaultKind, FaultResponse, Faults, RecordedCall, read_answer


def kinds(faults, place, times):
    return [str(faults.draw(place).kind) for _ in range(times)]


def test_a_script_is_used_up_one_answer_a_call():
    faults = Faults()
    faults.script("s3.put", {"status": 503}, "pass", {"hang": True})
    assert kinds(faults, "s3.put", 4) == ["status", "pass", "hang", "pass"]


def test_scripts_for_one_place_follow_each_other():
    faults = Faults()
    faults.script("s3.put", {"cut": True})
    faults.script("s3.put", {"garbled": True})
    assert kinds(faults, "s3.put", 2) == ["cut", "garbled"]


def test_a_script_for_another_place_is_left_alone():
    faults = Faults()
    faults.script("testnod.*", {"cut": True})
    assert kinds(faults, "s3.put", 1) == ["pass"]
    assert kinds(faults, "testnod.finalize", 1) == ["cut"]


def test_the_script_that_names_the_place_most_closely_comes_first():
    faults = Faults()
    faults.script("*", {"cut": True})
    faults.script("testnod.*", {"garbled": True})
    faults.script("testnod.finalize", {"hang": True})
    assert kinds(faults, "testnod.finalize", 4) == ["hang", "garbled", "cut", "pass"]


def test_chance_is_repeatable_by_its_seed_and_close_to_its_rate():
    drawn = []
    for _ in range(2):
        faults = Faults()
        faults.at_random("*", rate=0.05, answer={"status": 500}, seed=7)
        drawn.append(kinds(faults, "s3.put", 2000))
    assert drawn[0] == drawn[1]
    assert 60 <= drawn[0].count("status") <= 140


def test_clearing_ends_scripts_and_chances():
    faults = Faults()
    faults.script("s3.put", {"cut": True})
    faults.at_random("*", rate=1, answer={"cut": True}, seed=1)
    faults.clear()
    assert faults.draw("s3.put") == FaultResponse()


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("pass", FaultResponse()),
        ({"pass": True, "delay_seconds": 2}, FaultResponse(delay_seconds=2.0)),
        ({"delay_seconds": 2}, FaultResponse(delay_seconds=2.0)),
        ({"status": 503}, FaultResponse(kind=FaultKind.STATUS, status=503)),
        ({"status": 422, "body": {"a": 1}}, FaultResponse(kind=FaultKind.STATUS, status=422, body='{"a": 1}')),
        ({"cut": True, "after": True}, FaultResponse(kind=FaultKind.CUT, after=True)),
        (
            {"status": 429, "headers": {"Retry-After": 3}},
            FaultResponse(kind=FaultKind.STATUS, status=429, headers={"Retry-After": "3"}),
        ),
    ],
)
def test_a_response_is_read_as_the_control_api_takes_it(spec, answer):
    assert read_answer(spec) == answer


@pytest.mark.parametrize(
    "spec", ["hang", 503, None, {"hangs": True}, {"status": "503"}, {"hang": True, "cut": True}, {"delay_seconds": "1"}]
)
def test_a_response_that_means_nothing_is_rejected(spec):
    with pytest.raises(ValueError, match=r"\."):
        Faults().script("s3.put", spec)


@pytest.mark.parametrize("where", ["s3.get", "testnod", ""])
def test_a_place_where_no_call_comes_is_rejected(where):
    with pytest.raises(ValueError, match="No call has the name"):
        Faults().script(where, "pass")


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_that_is_no_probability_is_rejected(rate):
    with pytest.raises(ValueError, match="probability"):
        Faults().at_random("*", rate=rate, answer="pass", seed=1)


def call(where, at=0):
    return RecordedCall(where=where, at=at, method="GET", path="/", headers={})


def test_calls_are_found_by_place_and_by_pattern():
    calls = CallLog()
    for where in ("s3.put", "testnod.register", "testnod.finalize"):
        calls.add(call(where))
    assert [found.where for found in calls.at("testnod.*")] == ["testnod.register", "testnod.finalize"]
    assert [found.where for found in calls.at("s3.put")] == ["s3.put"]
    assert len(calls.at()) == 3


def test_only_the_last_calls_are_kept():
    calls = CallLog()
    for number in range(MAX_CALLS + 5):
        calls.add(call("s3.put", number))
    assert [found.at for found in calls.at()] == list(range(5, MAX_CALLS + 5))
