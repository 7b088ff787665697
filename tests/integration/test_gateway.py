"""What a gateway does with an upload once it is committed."""

import pytest
from sqlalchemy import select

from bridge.domain.circuit_breaker import TESTNOD, HealthSignal
from bridge.domain.instants import HOUR
from bridge.sandbox.sandbox import Sandbox
from bridge.store.circuit_breakers import BreakerSignal, apply_breaker_signals
from bridge.store.schema import builds
from tests.support.whole import running_gateway, until, upload

OTHER = b'<testsuite><testcase name="b"/></testsuite>'


@pytest.fixture
async def sandbox():
    async with Sandbox() as running:
        yield running


async def test_a_report_of_a_build_that_waits_for_testnod_wakes_no_dispatcher(tmp_path, sandbox, monkeypatch):
    async with running_gateway(tmp_path, sandbox) as running:
        trip = BreakerSignal(breaker=TESTNOD, signal=HealthSignal.TRIP, reason="It is away.", probe_delay_us=HOUR)
        await running.database.write(apply_breaker_signals, trip)
        woken = []
        wake = running._dispatcher.wake
        monkeypatch.setattr(running._dispatcher, "wake", lambda: woken.append(wake()))
        await upload(running)
        assert len(woken) == 1

        async def waits():
            waiting_on = select(builds.c.waiting_on)
            return await running.database.read(lambda connection: connection.execute(waiting_on).scalar()) == TESTNOD

        await until(waits)
        await upload(running, 1, OTHER)
        assert len(woken) == 1
        await upload(running, complete=True)
        assert len(woken) == 2
