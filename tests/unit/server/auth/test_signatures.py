from bridge.server.auth import signatures
from bridge.server.auth.signatures import LOCKOUT_US, MAX_FAILURES, MAX_PAIRS, Lockout, ReplayCache
from tests.fake_clock import FakeClock


def test_a_signature_serves_the_body_it_came_with_first_and_no_other():
    clock = FakeClock()
    seen = ReplayCache(clock.now)
    until = clock.now() + 10
    assert seen.add("s1", b"one", until=until)
    assert seen.add("s1", b"one", until=until)
    assert not seen.add("s1", b"two", until=until)
    assert seen.add("s2", b"two", until=until)


def test_a_signature_is_remembered_as_long_as_its_date_lets_it_be_used():
    clock = FakeClock()
    seen = ReplayCache(clock.now)
    seen.add("s1", b"one", until=clock.now() + 10)
    clock.advance(10)
    assert not seen.add("s1", b"two", until=clock.now() + 10)
    clock.advance(1)
    assert seen.add("s1", b"two", until=clock.now() + 10)


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(signatures, "MAX_SIGNATURES", 3)
    clock = FakeClock()
    seen = ReplayCache(clock.now)
    for number in range(4):
        assert seen.add(f"s{number}", b"one", until=clock.now() + 10)
    assert seen.add("s0", b"two", until=clock.now() + 10)  # forgotten, and the next oldest for it
    assert not seen.add("s3", b"two", until=clock.now() + 10)


HERE, THERE = "192.0.2.1", "192.0.2.2"


def failing(lockout, times, *, key="AK", address=HERE):
    for _ in range(times):
        lockout.count_failure(key, address)


def test_a_key_is_locked_after_more_than_five_failures_and_only_for_the_address_that_failed():
    lockout = Lockout(FakeClock().now)
    failing(lockout, MAX_FAILURES)
    assert not lockout.is_locked("AK", HERE)

    failing(lockout, 1)

    assert lockout.is_locked("AK", HERE)
    assert not lockout.is_locked("AK", THERE)
    assert not lockout.is_locked("OTHER", HERE)


def test_a_lock_ends_by_itself_and_what_came_before_is_forgotten():
    clock = FakeClock()
    lockout = Lockout(clock.now)
    failing(lockout, MAX_FAILURES + 1)
    clock.advance(LOCKOUT_US)
    assert not lockout.is_locked("AK", HERE)

    failing(lockout, 1)

    assert not lockout.is_locked("AK", HERE)


def test_a_success_forgets_failures():
    lockout = Lockout(FakeClock().now)
    failing(lockout, MAX_FAILURES)
    lockout.clear("AK", HERE)
    failing(lockout, MAX_FAILURES)
    assert not lockout.is_locked("AK", HERE)


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first():
    lockout = Lockout(FakeClock().now)
    failing(lockout, MAX_FAILURES + 1)
    for number in range(MAX_PAIRS):
        assert lockout.is_locked("AK", HERE)
        lockout.count_failure(f"AK{number}", THERE)
    assert not lockout.is_locked("AK", HERE)
