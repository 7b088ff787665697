"""The file of a SQLite ledger: no second gateway by any name, and no "success" into a file that no process finds."""

import asyncio
import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing as closed
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from bridge.domain.intake import ReportReceipt
from bridge.errors import CommitUncertain, LedgerError, LedgerInUse, Unavailable
from bridge.server.health import Readiness
from bridge.store.backup import back_up
from bridge.store.blobs.disk import DiskSpool
from bridge.store.engine import sqlite
from bridge.store.engine.sqlite import SqliteDatabase
from bridge.store.ledger import migrate
from bridge.store.schema import reports
from tests.support.fake_clock import FakeClock
from tests.support.ledger import PATIENCE_SECONDS, Ledger, report

ROOT = __file__.split("/tests/", maxsplit=1)[0]
SECOND = 1_000_000


@contextmanager
def opened(path, clock, *, apart=True):
    database = SqliteDatabase(path, clock, apart=apart)
    try:
        database.lock()
        migrate(database.writing)
        database.open()
        yield database
    finally:
        database.close()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def path(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "bridge.db"


@pytest.fixture(params=[True, False], ids=["writer process", "writer thread"])
def database(request, path, clock):
    with opened(path, clock, apart=request.param) as database:
        yield database


@pytest.fixture
def readiness(database, tmp_path, clock):
    (tmp_path / "spool").mkdir()
    return Readiness(database=database, spool=DiskSpool(tmp_path / "spool"), min_free=1, clock=clock)


def beside(path, suffix):
    return path.with_name(path.name + suffix)


def names_in(path):
    """Return which reports a process finds that opens the file at `path` alone."""
    alone = path.with_name("alone.db")
    shutil.copy(path, alone)
    with closed(sqlite3.connect(alone)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM reports ORDER BY id")]


# -- a file that is not where it was opened: each is done, and undone -----------------------------------------------


@contextmanager
def away(place):
    """Rename a file or folder for a while."""
    elsewhere = place.with_name("elsewhere")
    place.rename(elsewhere)
    yield
    if place.is_dir():
        shutil.rmtree(place)
    elsewhere.rename(place)


@contextmanager
def file_renamed(path):
    with away(path):
        yield


@contextmanager
def folder_renamed(path):
    with away(path.parent):
        yield


@contextmanager
def folder_became_a_file(path):
    with away(path.parent):
        path.parent.touch()
        yield
        path.parent.unlink()


@contextmanager
def folder_replaced_by_a_copy(path):
    with away(path.parent):
        shutil.copytree(path.parent.with_name("elsewhere"), path.parent)
        yield


@contextmanager
def replaced_by_a_copy(path):
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    with away(path):
        copy.rename(path)
        yield


@contextmanager
def replaced_by_an_empty_file(path):
    with away(path):
        path.touch()
        yield


@contextmanager
def log_renamed(path):
    with away(beside(path, "-wal")):
        yield


@contextmanager
def index_renamed(path):
    with away(beside(path, "-shm")):
        yield


@contextmanager
def all_renamed(path):
    with away(path), log_renamed_too(path):
        yield


@contextmanager
def log_renamed_too(path):
    for suffix in ("-wal", "-shm"):
        beside(path, suffix).rename(beside(path, suffix + ".old"))
    yield
    for suffix in ("-wal", "-shm"):
        beside(path, suffix + ".old").rename(beside(path, suffix))


DISPLACED = [
    (file_renamed, "file bridge.db is gone"),
    (folder_renamed, "file bridge.db is gone"),
    (folder_became_a_file, "file bridge.db is gone"),
    (folder_replaced_by_a_copy, "file bridge.db was replaced"),
    (replaced_by_a_copy, "file bridge.db was replaced"),
    (replaced_by_an_empty_file, "file bridge.db was replaced"),
    (all_renamed, "file bridge.db is gone"),
    (log_renamed, "file bridge.db-wal, which belongs to the ledger, is gone"),
    (index_renamed, "file bridge.db-shm, which belongs to the ledger, is gone"),
]


@pytest.mark.parametrize(("displace", "told"), DISPLACED, ids=[displace.__name__ for displace, _ in DISPLACED])
async def test_nothing_is_accepted_while_the_file_is_not_where_it_was_opened(
    database, readiness, path, clock, displace, told
):
    ledger = Ledger(database)
    assert await ledger.accept(report("before.xml")) == (ReportReceipt.NEW,)
    assert await readiness.reasons() == []
    with displace(path):
        for _ in range(3):
            with pytest.raises(Unavailable, match=told) as refused:
                await ledger.accept(report("meanwhile.xml"))
            assert not isinstance(refused.value, CommitUncertain)
            assert "so nothing more is accepted" in str(refused.value)
        clock.advance(2 * SECOND)
        assert str(refused.value) in await readiness.reasons()
    assert await ledger.accept(report("after.xml")) == (ReportReceipt.NEW,)
    clock.advance(2 * SECOND)
    assert await readiness.reasons() == []
    database.close()
    with opened(path, clock) as again:
        rows = await Ledger(again).rows(select(reports.c.name))
    assert rows == [("before.xml",), ("after.xml",)]


def remove_files(_connection, _now, items):
    for name in items:
        Path(name).unlink()
    return items


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
async def test_a_group_whose_file_is_removed_while_it_commits_is_in_doubt(database, path, suffix):
    with pytest.raises(CommitUncertain, match="is gone"):
        await database.write(remove_files, f"{path}{suffix}")
    with pytest.raises(Unavailable, match="is gone") as refused:
        await Ledger(database).accept(report())
    assert not isinstance(refused.value, CommitUncertain)


async def test_a_symlink_that_leads_elsewhere_is_noticed(tmp_path, path, clock):
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with opened(link, clock) as database:
        ledger = Ledger(database)
        assert await ledger.accept(report("before.xml")) == (ReportReceipt.NEW,)
        shutil.copy(path, tmp_path / "other.db")
        link.unlink()
        link.symlink_to(tmp_path / "other.db")
        with pytest.raises(Unavailable, match=r"file link\.db was replaced"):
            await ledger.accept(report("meanwhile.xml"))
        link.unlink()
        link.symlink_to(path)
        assert await ledger.accept(report("after.xml")) == (ReportReceipt.NEW,)


@pytest.mark.parametrize("call", ["pread", "fstat", "stat"])
async def test_a_disk_that_cannot_be_read_is_a_reason_and_ends_nothing(path, clock, monkeypatch, call):
    def broken(*_arguments, **_options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(path, clock, apart=False) as database:
        monkeypatch.setattr(sqlite, "CHECK_SECONDS", 0.01)
        with monkeypatch.context() as disk:
            disk.setattr(os, call, broken)
            with pytest.raises(Unavailable, match=r"cannot be looked at \(Input/output error\)"):
                await Ledger(database).accept(report())
            await asyncio.sleep(0.1)  # it is looked at meanwhile
        assert await Ledger(database).accept(report()) == (ReportReceipt.NEW,)


async def test_what_only_a_removed_log_held_is_in_the_file_before_anything_else_happens(database, path):
    ledger = Ledger(database)
    for number in range(5):
        await ledger.accept(report(f"{number}.xml"))
    beside(path, "-wal").unlink()
    with pytest.raises(Unavailable, match="-wal"):
        await ledger.accept(report("late.xml"))
    assert names_in(path) == [f"{number}.xml" for number in range(5)]  # as after a kill


async def test_a_removed_log_is_saved_though_nothing_is_written(database, path):
    await Ledger(database).accept(report("kept.xml"))
    beside(path, "-wal").unlink()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not names_in(path):  # noqa: ASYNC110 -- no event says that it was written
            await asyncio.sleep(0.05)
    assert names_in(path) == ["kept.xml"]


async def test_a_writer_that_dies_while_the_log_is_gone_is_not_replaced_by_one_with_a_new_log(path, clock):
    with opened(path, clock) as database:
        ledger = Ledger(database)
        await ledger.accept(report("before.xml"))
        beside(path, "-wal").unlink()
        os.kill(database._writer._process.pid, signal.SIGKILL)
        with pytest.raises(Unavailable, match="-wal"):
            await ledger.accept(report("late.xml"))
        assert not beside(path, "-wal").exists()
        assert names_in(path) == ["before.xml"]


# -- a file that was changed in place -------------------------------------------------------------------------------


def emptied(path, _backup):
    os.truncate(path, 0)


def halved(path, _backup):
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def overwritten_by_a_backup(path, backup):
    shutil.copyfile(backup, path)


def overwritten_by_its_older_self(path, backup):
    shutil.copyfile(backup.with_name("older.db"), path)


def overwritten_by_something_else(path, _backup):
    path.write_bytes(b"no ledger" * 100_000)


def header_lost(path, _backup):
    with path.open("r+b") as file:
        file.write(b"\0" * 4096)


OVERWRITTEN = [
    emptied,
    halved,
    overwritten_by_a_backup,
    overwritten_by_its_older_self,
    overwritten_by_something_else,
    header_lost,
]


@pytest.mark.parametrize("spoil", OVERWRITTEN)
async def test_nothing_is_accepted_into_a_file_that_was_cut_or_overwritten(
    database, readiness, path, tmp_path, clock, spoil
):
    ledger = Ledger(database)
    await ledger.accept(report("old.xml"))
    backup = back_up(path, None, tmp_path / "backup", clock.now()).ledger
    shutil.copy(path, backup.with_name("older.db"))
    body = b"<testsuite>" + os.urandom(50_000).hex().encode() + b"</testsuite>"
    for number in range(100):  # more than the log holds before it is copied into the file
        await ledger.accept(report(f"{number}.xml", body=body + str(number).encode()))
    assert await readiness.reasons() == []
    spoil(path, backup)
    for _ in range(3):
        with pytest.raises(Unavailable, match=r"file bridge\.db was cut or overwritten") as refused:
            await ledger.accept(report("late.xml"))
        assert not isinstance(refused.value, CommitUncertain)
    clock.advance(2 * SECOND)
    assert str(refused.value) in await readiness.reasons()


@pytest.mark.parametrize("spoil", [overwritten_by_a_backup, overwritten_by_its_older_self])
async def test_a_small_ledger_that_is_overwritten_by_a_copy_from_before_is_noticed(path, tmp_path, clock, spoil):
    with opened(path, clock) as database:
        await Ledger(database).accept(report("old.xml"))
        if spoil is overwritten_by_a_backup:
            backup = back_up(path, None, tmp_path / "backup", clock.now()).ledger
    if spoil is overwritten_by_its_older_self:
        backup = tmp_path / "bridge.db"
        shutil.copy(path, backup.with_name("older.db"))
    with opened(path, clock) as database:
        await Ledger(database).accept(report("new.xml"))
        spoil(path, backup)
        with pytest.raises(Unavailable, match=r"file bridge\.db was cut or overwritten"):
            await Ledger(database).accept(report("late.xml"))


async def test_a_new_ledger_that_is_overwritten_by_a_backup_of_the_same_run_is_noticed(path, tmp_path, clock):
    with opened(path, clock) as database:
        await Ledger(database).accept(report("old.xml"))
        backup = back_up(path, None, tmp_path / "backup", clock.now()).ledger
        await Ledger(database).accept(report("new.xml"))
        overwritten_by_a_backup(path, backup)
        with pytest.raises(Unavailable, match=r"file bridge\.db was cut or overwritten"):
            await Ledger(database).accept(report("late.xml"))


async def test_what_operators_may_do_beside_a_gateway_is_no_fault(database, path, tmp_path, clock):
    """Backups, another process that reads, writes, copies the log into the file or makes the file smaller."""
    ledger = Ledger(database)
    body = b"<testsuite>" + os.urandom(50_000).hex().encode() + b"</testsuite>"
    for number in range(30):
        await ledger.accept(report(f"{number}.xml", body=body + str(number).encode()))
    back_up(path, None, tmp_path / "backup", clock.now())
    statements = [
        "SELECT count(*) FROM reports",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "UPDATE reports SET body = NULL",
        "VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "ANALYZE",
    ]
    for number, statement in enumerate(statements):
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", SQL, path, statement], check=True, timeout=60)
        assert await ledger.accept(report(f"after {number}.xml")) == (ReportReceipt.NEW,)
    beside(path, ".lock").unlink()
    assert await ledger.accept(report("without a lock file.xml")) == (ReportReceipt.NEW,)


SQL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute(sys.argv[2]).fetchall()
connection.close()
"""


# -- one gateway, whatever the file is called -----------------------------------------------------------------------


LOCKED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bridge.errors import LedgerInUse
from bridge.store.engine import sqlite
from tests.support.fake_clock import FakeClock

sqlite.LOCK_SECONDS = 0.1
database = sqlite.SqliteDatabase(Path(sys.argv[1]), FakeClock())
try:
    database.lock()
except LedgerInUse:
    sys.exit(17)
finally:
    database.close()
"""
IN_USE = 17


def lock_in_another_process(path):
    return subprocess.run([sys.executable, "-c", LOCKED, path, ROOT], check=False, timeout=60).returncode


def the_same_path(path):
    return path


def by_a_way_around(path):
    return path.parent / ".." / path.parent.name / path.name


def by_a_symlink(path):
    link = path.with_name("link.db")
    link.symlink_to(path.name)
    return link


def by_a_symlink_of_its_folder(path):
    link = path.parent.with_name("link")
    link.symlink_to(path.parent)
    return link / path.name


def by_a_hard_link_elsewhere(path):
    """The same file by another folder, as through a bind mount."""
    folder = path.parent.with_name("other")
    folder.mkdir()
    (folder / path.name).hardlink_to(path)
    return folder / path.name


def by_a_hard_link_beside(path):
    link = path.with_name("hard.db")
    link.hardlink_to(path)
    return link


def without_its_lock_file(path):
    beside(path, ".lock").unlink()
    return path


def with_another_lock_file(path):
    beside(path, ".lock").unlink()
    beside(path, ".lock").touch()
    return path


def as_another_file_beside_the_same_log(path):
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").rename(path)
    return path


WAYS = [
    the_same_path,
    by_a_way_around,
    by_a_symlink,
    by_a_symlink_of_its_folder,
    by_a_hard_link_elsewhere,
    by_a_hard_link_beside,
    without_its_lock_file,
    with_another_lock_file,
    as_another_file_beside_the_same_log,
]


@pytest.mark.parametrize("way", WAYS)
async def test_a_second_gateway_is_refused_by_whatever_way_it_comes(path, clock, way):
    with opened(path, clock) as database:
        await Ledger(database).accept(report("kept.xml"))
        other = way(path)
        assert await asyncio.to_thread(lock_in_another_process, other) == IN_USE
    assert await asyncio.to_thread(lock_in_another_process, other) == 0


@pytest.mark.parametrize("way", [by_a_symlink, by_a_hard_link_elsewhere, without_its_lock_file])
def test_a_second_gateway_is_refused_while_the_writer_of_a_killed_one_lives(path, clock, monkeypatch, way):
    killed = subprocess.run([sys.executable, "-c", KILLED, path, ROOT], stdout=subprocess.PIPE, check=False, timeout=60)
    writer = int(killed.stdout)
    other = way(path)
    try:
        assert lock_in_another_process(other) == IN_USE
    finally:
        os.kill(writer, signal.SIGCONT)  # it finds its pipe closed, and ends
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 30.0)  # the machine may be busy
    with opened(other, clock):
        pass


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bridge.store.engine.sqlite import SqliteDatabase
from tests.support.fake_clock import FakeClock
database = SqliteDatabase(Path(sys.argv[1]), FakeClock(), apart=True)
database.lock()
database.open()
writer = database._writer._process
os.kill(writer.pid, signal.SIGSTOP)
print(writer.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_the_lock_holds_when_the_writer_dies(path, clock):
    with opened(path, clock) as database:
        os.kill(database._writer._process.pid, signal.SIGKILL)
        assert await asyncio.to_thread(lock_in_another_process, path) == IN_USE


async def test_a_lock_that_is_refused_leaves_the_first_gateway_its_sqlite_locks(path, clock, monkeypatch):
    """A process that closes any descriptor of a file gives up all its fcntl locks on it."""
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.0)
    with opened(path, clock, apart=False) as database:
        await Ledger(database).accept(report("kept.xml"))
        second = SqliteDatabase(path, clock)
        with pytest.raises(LedgerInUse):
            second.lock()
        second.close()
        # Another process that opens and closes the ledger would take itself for the last, and remove the log.
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", SQL, path, "SELECT 1 FROM reports"], check=True)
        assert beside(path, "-wal").exists()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path)], ids=["folder", "loop"])
def test_a_ledger_that_cannot_be_locked_is_told_in_a_sentence(path, clock, make):
    make(path)
    with pytest.raises(LedgerError, match=r"^store\.url: /.*/bridge\.db .*\. (Name a file in it|Correct the path)\.$"):
        SqliteDatabase(path, clock).lock()
