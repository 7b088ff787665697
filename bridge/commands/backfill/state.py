"""The state file of a backfill: what was found, and how far each build has come, committed before and after each build.

It is a SQLite database, so it holds any number of builds, survives a kill, and is locked by one backfill at a time.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Final, Self

from bridge.commands.backfill.sources import FoundReport
from bridge.domain.outcomes import ListedBuild
from bridge.errors import BridgeError
from bridge.values import dataclass

VERSION: Final = "1"
UNPACKED_SUFFIX: Final = "-unpacked"
MAX_MESSAGES: Final = 20  # of one build

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS builds (
    id INTEGER PRIMARY KEY, job_id TEXT NOT NULL, build_no INTEGER NOT NULL,
    began_at REAL NOT NULL DEFAULT 0, branch TEXT NOT NULL DEFAULT '', commit_id TEXT NOT NULL DEFAULT '',
    listed INTEGER NOT NULL DEFAULT 0, status TEXT NOT NULL DEFAULT 'found',
    message TEXT NOT NULL DEFAULT '', test_run_url TEXT NOT NULL DEFAULT '',
    sent INTEGER NOT NULL DEFAULT 0, rejected INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0, tests INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
    UNIQUE (job_id, build_no)
);
CREATE INDEX IF NOT EXISTS unfinished ON builds (job_id, build_no) WHERE status IN ('found', 'begun');
CREATE TABLE IF NOT EXISTS files (
    build INTEGER NOT NULL, node_id TEXT NOT NULL, place BLOB NOT NULL, name BLOB NOT NULL,
    path BLOB NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (build, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS problems (build INTEGER NOT NULL, name TEXT NOT NULL, message TEXT NOT NULL);
"""


class BuildProgress(StrEnum):
    """How far a build has come."""

    FOUND = "found"
    BEGUN = "begun"  # its reports may be at the gateway
    SENT = "sent"  # its run is finalized; some of its files may have been rejected
    REJECTED = "rejected"  # all of its files
    KNOWN = "known"  # the gateway had reports of it before the backfill
    EMPTY = "empty"  # none of its files is a report
    RUNNING = "running"  # at CodeArts, when its history was read: its own upload is still to come


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file of a build: `size` bytes at `offset` of the file at `path`."""

    node_id: str
    name: str
    path: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBuild:
    """A build that is not finished."""

    id: int
    job_id: str
    build_no: int
    began_at: float  # seconds since 1970; 0: not known
    branch: str
    commit: str
    begun: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildEnd:
    """How a build ended, with counts of files and tests; `problems` are names of files with messages."""

    progress: BuildProgress
    sent: int = 0
    rejected: int = 0
    skipped: int = 0  # XML of another kind
    tests: int = 0
    failures: int = 0
    message: str = ""
    test_run_url: str = ""
    problems: tuple[tuple[str, str], ...] = ()


@dataclass(kw_only=True, slots=True)
class JobTotals:
    """The sums of a job, or of all jobs: builds by progress, and files."""

    job_id: str = ""
    first_no: int | None = None
    last_no: int | None = None
    builds: dict[str, int] = field(default_factory=dict)
    without_files: int = 0  # in CodeArts' history, and not in the source
    files: int = 0
    bytes: int = 0
    sent: int = 0
    rejected: int = 0
    skipped: int = 0
    tests: int = 0
    failures: int = 0

    @property
    def found(self) -> int:
        return sum(self.builds.values())

    @property
    def left(self) -> int:
        return self.builds.get(BuildProgress.FOUND, 0) + self.builds.get(BuildProgress.BEGUN, 0)


class BackfillState:
    """An open state file. Raises BridgeError if another backfill has it open, or if it is something else."""

    def __init__(self, path: Path, settings: Mapping[str, str]) -> None:
        """Open or create the file; raise BridgeError if it was begun with other `settings`."""
        self.path = path
        self._lock = Lock()  # builds begin in threads
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        except sqlite3.Error as error:
            raise _unusable(path, error) from error
        try:
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("BEGIN EXCLUSIVE")
            self._connection.execute("COMMIT")
            self._connection.executescript(_SCHEMA)
            for name, value in {"version": VERSION, **settings}.items():
                self._require(name, value)
        except sqlite3.Error as error:
            self.close()
            raise _unusable(path, error) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            raise BridgeError(
                f"The state {self.path} cannot be written: {error}. Free space on its disk, then run the command again."
            ) from error

    def close(self) -> None:
        """Release the lock."""
        self._connection.close()

    @property
    def unpacked(self) -> Path:
        """The file with the reports of an archive."""
        return self.path.with_name(f"{self.path.name}{UNPACKED_SUFFIX}")

    def _require(self, name: str, value: str) -> None:
        known = self.note(name)
        if known is None:
            self.set_note(name, value)
        elif known != value:
            raise BridgeError(
                f"{self.path} belongs to a backfill with {name} {known or 'none'}, and this one has {value or 'none'}. "
                "Repeat the same command, or name another file with --state."
            )

    def note(self, name: str) -> str | None:
        """Return a note; None if there is none."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_note(self, name: str, value: str) -> None:
        """Write a note."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # -- what was found ------------------------------------------------------------------------------------------

    def replace_files(self, found: Iterable[FoundReport]) -> None:
        """Write the files of the source in place of those of an earlier scan, all or nothing."""
        with self._transaction():
            self._connection.execute("DELETE FROM files")
            for report in found:
                match = report.match
                # The newest file counts for the time of a build: it is written when the tests have run.
                (build,) = self._connection.execute(
                    "INSERT INTO builds (job_id, build_no, began_at, branch, commit_id) VALUES (?, ?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET"
                    " began_at = CASE WHEN listed THEN began_at ELSE max(began_at, excluded.began_at) END,"
                    " branch = CASE branch WHEN '' THEN excluded.branch ELSE branch END,"
                    " commit_id = CASE commit_id WHEN '' THEN excluded.commit_id ELSE commit_id END RETURNING id",
                    (match.job_id, match.build_no, report.modified_at, match.branch, match.commit),
                ).fetchone()
                names = (os.fsencode(report.place), os.fsencode(match.name), os.fsencode(report.path))
                self._connection.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (build, match.node_id, *names, report.offset, report.size),
                )
            self._connection.execute(
                "DELETE FROM builds WHERE status = 'found' AND NOT listed"
                " AND NOT EXISTS (SELECT 1 FROM files WHERE build = builds.id)"
            )

    def add_history(self, job_id: str, listed: Iterable[ListedBuild]) -> None:
        """Write what CodeArts' history has of the builds of a job: its branch and commit count."""
        with self._transaction():
            for build in listed:
                began_at = 0.0 if build.started_at is None else build.started_at / 1_000_000
                status = BuildProgress.FOUND if build.finished else BuildProgress.RUNNING
                self._connection.execute(
                    "INSERT INTO builds (job_id, build_no, began_at, branch, commit_id, status, listed)"
                    " VALUES (?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET listed = 1, began_at = excluded.began_at,"
                    " branch = CASE excluded.branch WHEN '' THEN branch ELSE excluded.branch END,"
                    " commit_id = CASE excluded.commit_id WHEN '' THEN commit_id ELSE excluded.commit_id END,"
                    " status = CASE status WHEN 'found' THEN excluded.status ELSE status END",
                    (job_id, build.build_no, began_at, build.branch or "", build.commit or "", status),
                )
            self.set_note(f"history {job_id}", "complete")

    def has_history(self, job_id: str) -> bool:
        """Return whether `add_history` was called for a job."""
        return self.note(f"history {job_id}") is not None

    def set_job_name(self, project_id: str, job_id: str, name: str) -> None:
        """Write the name that a job has in a project; empty: none that uploads may state."""
        self.set_note(f"name {project_id} {job_id}", name)

    def has_job_name(self, project_id: str, job_id: str) -> bool:
        """Return whether `set_job_name` was called for a job."""
        return self.note(f"name {project_id} {job_id}") is not None

    def job_name(self, project_id: str, job_id: str) -> str:
        """Return the name of a job; empty if it is not known."""
        with self._lock:
            return self.note(f"name {project_id} {job_id}") or ""

    # -- builds, one after the other -----------------------------------------------------------------------------

    def next_builds(self, *, with_files: bool) -> list[StoredBuild]:
        """Return the first unfinished build of each job, oldest first."""
        files = " AND EXISTS (SELECT 1 FROM files WHERE build = builds.id)" if with_files else ""
        query = (
            "SELECT id, job_id, min(build_no), began_at, branch, commit_id, status FROM builds"  # noqa: S608 -- constants
            f" WHERE status IN ('found', 'begun'){files} GROUP BY job_id ORDER BY began_at, job_id"
        )
        with self._lock:
            rows = self._connection.execute(query).fetchall()
        return [
            StoredBuild(
                id=build,
                job_id=job_id,
                build_no=build_no,
                began_at=began_at,
                branch=branch,
                commit=commit,
                begun=status == BuildProgress.BEGUN,
            )
            for build, job_id, build_no, began_at, branch, commit, status in rows
        ]

    def files_of(self, build: StoredBuild) -> list[StoredFile]:
        """Return the files of a build, by their places in the source."""
        with self._lock:
            rows = self._connection.execute(f"{_FILES} WHERE build = ? ORDER BY place", (build.id,)).fetchall()
        return list(map(_stored_file, rows))

    def files_left(self) -> Iterator[StoredFile]:
        """Yield the files of all builds that are not finished."""
        unfinished = "WHERE build IN (SELECT id FROM builds WHERE status IN ('found', 'begun')) ORDER BY build, place"
        yield from map(_stored_file, self._connection.execute(f"{_FILES} {unfinished}"))

    def begin(self, build: StoredBuild) -> None:
        """Note that reports of a build are being sent; from now on they are its own, also after a kill."""
        with self._lock:
            self._connection.execute("UPDATE builds SET status = 'begun' WHERE id = ?", (build.id,))

    def end(self, build: StoredBuild, end: BuildEnd) -> None:
        """Note how a build ended."""
        with self._lock, self._transaction():
            self._connection.execute(
                "UPDATE builds SET status = ?, message = ?, test_run_url = ?, sent = ?, rejected = ?,"
                " skipped = ?, tests = ?, failures = ? WHERE id = ?",
                (
                    end.progress,
                    end.message,
                    end.test_run_url,
                    end.sent,
                    end.rejected,
                    end.skipped,
                    end.tests,
                    end.failures,
                    build.id,
                ),
            )
            self._connection.execute("DELETE FROM problems WHERE build = ?", (build.id,))
            self._connection.executemany(
                "INSERT INTO problems VALUES (?, ?, ?)",
                [(build.id, name, message) for name, message in end.problems[:MAX_MESSAGES]],
            )

    # -- totals --------------------------------------------------------------------------------------------------

    def totals(self, *, with_files: bool) -> list[JobTotals]:
        """Return the sums of each job."""
        has_files = "EXISTS (SELECT 1 FROM files WHERE build = builds.id) OR status NOT IN ('found', 'begun')"
        counted = has_files if with_files else "1"
        rows = self._connection.execute(
            f"SELECT job_id, status, {counted}, count(*), min(build_no), max(build_no), sum(sent),"  # noqa: S608
            " sum(rejected), sum(skipped), sum(tests), sum(failures),"
            " sum((SELECT count(*) FROM files WHERE build = builds.id)),"
            " coalesce(sum((SELECT sum(size) FROM files WHERE build = builds.id)), 0)"
            " FROM builds GROUP BY 1, 2, 3 ORDER BY 1"
        )
        jobs: dict[str, JobTotals] = {}
        for job_id, status, is_counted, builds, first, last, *sums in rows:
            job = jobs.setdefault(job_id, JobTotals(job_id=job_id))
            if not is_counted:
                job.without_files += builds
                continue
            job.builds[status] = builds
            job.first_no = first if job.first_no is None else min(first, job.first_no)
            job.last_no = last if job.last_no is None else max(last, job.last_no)
            for name, value in zip(_SUMS, sums, strict=True):
                setattr(job, name, getattr(job, name) + value)
        return list(jobs.values())

    def problems(self, limit: int) -> list[tuple[str, int, str, str]]:
        """Return job, number, file and message of the first problems; the file is empty if it is about the build."""
        rows = self._connection.execute(
            "SELECT job_id, build_no, name, problems.message FROM problems JOIN builds ON builds.id = build"
            " UNION ALL SELECT job_id, build_no, '', message FROM builds WHERE message != '' ORDER BY 1, 2, 3 LIMIT ?",
            (limit,),
        )
        return [(job_id, build_no, name, message) for job_id, build_no, name, message in rows]


_SUMS: Final = ("sent", "rejected", "skipped", "tests", "failures", "files", "bytes")
_FILES: Final = "SELECT node_id, name, path, start, size FROM files"


def _unusable(path: Path, error: sqlite3.Error) -> BridgeError:
    match getattr(error, "sqlite_errorname", ""):
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
            return BridgeError(f"{path} is in use by another backfill. Wait for its end.")
        case "SQLITE_NOTADB":
            return BridgeError(f"{path} is not the state of a backfill. Name another file with --state.")
        case _:
            return BridgeError(f"The state {path} cannot be written ({error}). Name a file that can with --state.")


def _stored_file(row: tuple[str, bytes, bytes, int, int]) -> StoredFile:
    node_id, name, path, offset, size = row
    return StoredFile(node_id=node_id, name=os.fsdecode(name), path=os.fsdecode(path), offset=offset, size=size)
