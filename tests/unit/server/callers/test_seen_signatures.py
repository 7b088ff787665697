from bridge.server.callers import seen_signatures
from bridge.server.callers.seen_signatures import SeenSignatures
from tests.fake_clock import FakeClock


def test_a_signature_serves_the_body_it_came_with_first_and_no_other():
    clock = FakeClock()
    seen = SeenSignatures(clock.now)
    until = clock.now() + 10
    assert seen.admits("s1", b"one", until=until)
    assert seen.admits("s1", b"one", until=until)
    assert not seen.admits("s1", b"two", until=until)
    assert seen.admits("s2", b"two", until=until)


def test_a_signature_is_remembered_as_long_as_its_date_lets_it_be_used():
    clock = FakeClock()
    seen = SeenSignatures(clock.now)
    seen.admits("s1", b"one", until=clock.now() + 10)
    clock.advance(10)
    assert not seen.admits("s1", b"two", until=clock.now() + 10)
    clock.advance(1)
    assert seen.admits("s1", b"two", until=clock.now() + 10)


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(seen_signatures, "MAX_REMEMBERED", 3)
    clock = FakeClock()
    seen = SeenSignatures(clock.now)
    for number in range(4):
        assert seen.admits(f"s{number}", b"one", until=clock.now() + 10)
    assert seen.admits("s0", b"two", until=clock.now() + 10)  # forgotten, and the next oldest for it
    assert not seen.admits("s3", b"two", until=clock.now() + 10)
