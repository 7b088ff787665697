import time

import pytest

from tests.faults import clock


@pytest.fixture
def control(tmp_path, monkeypatch):
    """Let the time of this process be set by a file until the test ends."""
    monkeypatch.setattr(clock, "READ_NS", 0)
    for name in ("time", "time_ns"):
        monkeypatch.setattr(time, name, getattr(time, name))
    control = clock.ClockControl(tmp_path / "clock")
    clock.install(control.file)
    return control


def test_a_clock_is_right_until_it_is_set_and_right_again_afterwards(control):
    def ahead(since, steady):
        return time.time() - since - (time.monotonic() - steady)

    since, steady = time.time(), time.monotonic()
    for seconds in (3600, -90, 0):
        control.set_ahead(seconds)
        assert ahead(since, steady) == pytest.approx(seconds, abs=1)
        assert time.time_ns() / 1e9 == pytest.approx(time.time(), abs=1)
