"""Reconnection after lost connections; the integration tests use a real PostgreSQL."""

import asyncio

from structlog.testing import capture_logs

from bridge.store.engine import notifications
from bridge.store.engine.notifications import Notifier
from tests.support.fake_clock import FakeClock


class Connection:
    """Listens, and is lost with the first question."""

    def get_server_pid(self):
        return 1

    async def add_listener(self, *_):
        pass

    async def execute(self, _statement):
        raise ConnectionResetError

    def terminate(self):
        pass


async def test_each_lost_connection_is_logged_and_replaced_soon(monkeypatch):
    clock, stopping, pauses = FakeClock(), asyncio.Event(), []

    async def connect(_url):
        return Connection()

    async def wait(event, until):
        if event is stopping:
            pauses.append(until - clock.now())
            if len(pauses) == 5:
                stopping.set()

    monkeypatch.setattr(notifications, "connect", connect)
    monkeypatch.setattr(clock, "wait", wait)
    with capture_logs() as logs:
        await Notifier(url="", clock=clock, notified=lambda: None, stopping=stopping).run(lambda: None)
    assert len(logs) == 5
    assert max(pauses) <= 2 * notifications.FIRST_DELAY_US
