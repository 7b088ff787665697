from bridge.sandbox.calls import KEPT_CALLS, CallLog, RecordedCall


def call(where, at=0):
    return RecordedCall(where=where, at=at, method="GET", path="/", headers={})


def test_calls_are_found_by_place_and_by_pattern():
    calls = CallLog()
    for where in ("s3.put", "testnod.register", "testnod.finalize"):
        calls.note(call(where))
    assert [found.where for found in calls.at("testnod.*")] == ["testnod.register", "testnod.finalize"]
    assert [found.where for found in calls.at("s3.put")] == ["s3.put"]
    assert len(calls.at()) == 3


def test_only_the_last_calls_are_kept():
    calls = CallLog()
    for number in range(KEPT_CALLS + 5):
        calls.note(call("s3.put", number))
    assert [found.at for found in calls.at()] == list(range(5, KEPT_CALLS + 5))
