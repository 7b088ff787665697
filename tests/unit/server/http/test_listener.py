import resource

import pytest
from structlog.testing import capture_logs

from bridge.server.http import listener
from bridge.server.http.connections import MAX_ADMIN_CONNECTIONS, MAX_CONNECTIONS
from bridge.server.http.listener import (
    DESCRIPTORS_OF_CONNECTION,
    MAX_DESCRIPTORS,
    RESERVED_DESCRIPTORS,
    connection_limits,
)

ALL = (MAX_CONNECTIONS, MAX_ADMIN_CONNECTIONS)
NEEDED = sum(ALL) * DESCRIPTORS_OF_CONNECTION + RESERVED_DESCRIPTORS


@pytest.fixture
def limits(monkeypatch):
    """Return the limits of this process as the code finds and leaves them; `set` may be made to fail."""

    class Limits:
        now = (1024, 1024)
        may_be_set = True

        def set(self, _, limits):
            if not self.may_be_set:
                raise ValueError("not allowed to raise maximum limit")
            self.now = limits

    limits = Limits()
    monkeypatch.setattr(listener.resource, "getrlimit", lambda _: limits.now)
    monkeypatch.setattr(listener.resource, "setrlimit", limits.set)
    return limits


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1024, 524_288), (MAX_DESCRIPTORS, 524_288)),
        ((1024, NEEDED), (NEEDED, NEEDED)),
        ((1024, resource.RLIM_INFINITY), (MAX_DESCRIPTORS, resource.RLIM_INFINITY)),
        ((1_000_000, 1_000_000), (1_000_000, 1_000_000)),
        ((resource.RLIM_INFINITY,) * 2, (resource.RLIM_INFINITY,) * 2),
    ],
)
def test_the_soft_limit_is_raised_to_the_hard_one(limits, before, after):
    limits.now = before
    with capture_logs() as lines:
        assert connection_limits() == ALL
    assert (limits.now, lines) == (after, [])


@pytest.mark.parametrize(("soft", "hard", "may_be_set"), [(1024, 1024, True), (1024, 524_288, False), (400, 512, True)])
def test_connections_stay_below_a_limit_that_is_too_low_and_the_start_warns(limits, soft, hard, may_be_set):
    limits.now, limits.may_be_set = (soft, hard), may_be_set
    with capture_logs() as lines:
        server, admin = connection_limits()
    limit = limits.now[0]
    assert 0 < admin < server < MAX_CONNECTIONS
    assert (server + admin) * DESCRIPTORS_OF_CONNECTION + RESERVED_DESCRIPTORS <= limit
    (line,) = lines
    assert line == {
        "event": "descriptor_limit_low",
        "log_level": "warning",
        "limit": limit,
        "needed": NEEDED,
        "connections": server,
    }


def test_a_limit_below_the_reserve_leaves_one_connection_each(limits):
    limits.now = (RESERVED_DESCRIPTORS - 1,) * 2
    assert connection_limits() == (1, 1)
