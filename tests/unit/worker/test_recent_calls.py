"""What the calls to TestNod of one gateway have shown of late."""

import pytest

from bridge.domain.circuit_breaker import HealthSignal
from bridge.domain.disturbance import SLOW_US
from bridge.worker.recent_calls import RecentCalls
from tests.support.fake_clock import FakeClock


def test_a_failure_is_remembered_with_its_time():
    calls = RecentCalls()
    assert calls.disturbance_age(5, 1) is None

    calls.record(HealthSignal.FAILURE, 1, 5)
    calls.record(HealthSignal.SUCCESS, 1, 6)

    assert calls.disturbance_age(9, 1) == 4


def test_a_call_counts_while_it_runs_however_it_ends():
    calls, clock = RecentCalls(), FakeClock()

    def call():
        with calls.running(clock):
            clock.advance(SLOW_US)
            with calls.running(clock):
                pass
            raise TimeoutError(calls.disturbance_age(clock.steady(), 1))

    with pytest.raises(TimeoutError, match=r"^0$"):
        call()

    assert calls.disturbance_age(clock.steady(), 1) is None
