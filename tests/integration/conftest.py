"""The contract suite of the ledger: every test here takes `database` and so runs over every backend."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from bridge.store.migrate import migrate
from bridge.store.sqlite import SqliteDatabase, closing, sqlite_engine
from tests.fake_clock import FakeClock
from tests.integration.store.ledger import Ledger


class SqliteBackend:
    """Makes SQLite ledgers: each a copy of one that was migrated once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count()
        self._migrated = folder / "migrated.db"
        engine = sqlite_engine(self._migrated, begin="BEGIN IMMEDIATE")
        migrate(engine)
        engine.dispose()

    @contextmanager
    def fresh(self, clock: FakeClock, observe_group: Callable[[int], None] | None = None) -> Iterator[SqliteDatabase]:
        """Open a new empty ledger for a block."""
        path = self.folder / f"ledger-{next(self._numbers)}.db"
        shutil.copy(self._migrated, path)
        with closing(SqliteDatabase(path, clock, observe_group or (lambda _: None))) as database:
            yield database


@pytest.fixture(scope="session", params=[SqliteBackend], ids=["sqlite"])
def backend(request, tmp_path_factory):
    """Whatever a ledger can live in."""
    return request.param(tmp_path_factory.mktemp("ledgers"))


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def database(backend, clock):
    """An empty ledger, open for one test."""
    with backend.fresh(clock) as database:
        yield database


@pytest.fixture
def ledger(database):
    """The same ledger with the words that these tests use."""
    return Ledger(database)
