import asyncpg
import pytest
from sqlalchemy.exc import PendingRollbackError

from bridge.store.engine.postgres import is_away


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"),
        PendingRollbackError("the transaction is gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_lost_connection_raises_means_that_the_server_is_away(error):
    assert is_away(error)


def test_what_a_write_raises_by_itself_does_not():
    assert not is_away(ValueError("no such build"))
