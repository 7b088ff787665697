"""What nudges do about connections that are lost, one after the other; PostgreSQL's own part is in the integration."""

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


async def test_each_connection_that_is_lost_is_said_and_the_next_is_made_soon(monkeypatch):
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
    with capture_logs() as said:
        await Notifier(url="", clock=clock, hear=lambda: None, stopping=stopping).run(lambda: None)
    assert len(said) == 5
    assert max(pauses) <= 2 * notifications.FIRST_DELAY_US
