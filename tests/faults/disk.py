"""The disk under the whole process, as a bad one: full on order, and forgetting what was never synced.

It is installed
in the gateway's process (`wrapped.py`); the test speaks to it through files in a folder of its own.
"""

import ctypes
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.faults.libcalls import replace, set_errno
from tests.faults.replacing import replace_everywhere
from tests.support.children import start_of

FAILING = "failing"  # a file in the control folder: the operations that fail now, one a line
OWNER = "owner-"  # files there: each the number of a process on this disk, with when that one started
OPERATIONS = ("write", "fsync", "rename", "commit", "space")
"""The spool's writes, fsyncs and renames; the ledger's writes; and what the system says of free space."""

PWRITE = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, use_errno=True
)
SYNC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, use_errno=True)


# -- in the test's process --------------------------------------------------------------------------------------------


class DiskControl:
    """The test's hand on the disk of a gateway that runs, or will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def fail(self, *operations: str) -> None:
        """Let these operations fail with ENOSPC from now on, and no others."""
        assert set(operations) <= set(OPERATIONS)
        temporary = self.folder / "failing.tmp"
        temporary.write_text("\n".join(operations), encoding="ascii")
        temporary.replace(self.folder / FAILING)

    def cut_power(self, root: Path) -> None:
        """Leave in `root` only what had been synced when the process died: names by their folder, bytes by their file.

        All processes on this disk end with it. `root` itself is taken to have been there.
        """
        for owner in self.folder.glob(f"{OWNER}*"):
            _end(int(owner.name.removeprefix(OWNER)), owner.read_text(encoding="ascii"))
        shutil.rmtree(root)
        self._restore(root)

    def _restore(self, folder: Path) -> None:
        folder.mkdir()
        for name, kept in _Synced(self.folder).names(folder).items():
            if kept["folder"]:
                self._restore(folder / name)
            else:
                (folder / name).write_bytes(_Synced(self.folder).content(kept["inode"]))


def _end(pid: int, started: str) -> None:
    """Kill a process that this disk was installed in, and wait until it is gone; another one of its number lives on."""
    while start_of(pid) == started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


# -- in the gateway's process -----------------------------------------------------------------------------------------


def install(control: Path, *, remembers: bool) -> None:
    """Take the disk of this process in hand, before anything of the gateway runs.

    One that `remembers` what was synced can be cut off from power. That costs a copy of the file for each fsync.
    """
    join(control)
    failing, note = _Failing(control / FAILING), _Synced(control).note if remembers else _forget
    _take_python(failing, note)
    _take_sqlite(failing, note)


def join(control: Path) -> None:
    """Note that this process is on the disk; a fork of a process on it is on it too."""
    with open(control / f"{OWNER}{os.getpid()}", "w", encoding="ascii") as file:  # noqa: PTH123 -- Path is patched
        file.write(start_of(os.getpid()) or "")


def _forget(_descriptor: int) -> None:
    """Remember nothing of what was synced."""


class _Failing:
    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __contains__(self, operation: str) -> bool:
        try:
            with open(self._path, encoding="ascii") as file:  # noqa: PTH123 -- Path is patched
                return operation in file.read().split()
        except FileNotFoundError:
            return False

    def require(self, operation: str) -> None:
        if operation in self:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _Synced:
    """What would be left after a power cut, kept beside: the bytes of each file, and the names in each folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, descriptor: int) -> None:
        """Remember what an fsync of `descriptor` has made durable."""
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            with os.scandir(path) as entries:
                kept = {entry.name: {"inode": entry.inode(), "folder": entry.is_dir()} for entry in entries}
            self._keep(self._names_file(path), json.dumps(kept).encode())
        else:
            size = os.fstat(descriptor).st_size
            with open(f"/proc/self/fd/{descriptor}", "rb") as file:  # noqa: PTH123 -- Path is patched
                self._keep(self._content_file(os.fstat(descriptor).st_ino), file.read(size))

    def names(self, folder: Path) -> dict[str, Any]:
        """Return the entries of `folder` at its last fsync."""
        path = self._names_file(folder)
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return found

    def content(self, inode: int) -> bytes:
        """Return the bytes of a file at its last fsync."""
        path = self._content_file(inode)
        return path.read_bytes() if path.exists() else b""

    def _names_file(self, folder: Path) -> Path:
        return self._folder / f"names-{hashlib.sha256(os.fsencode(folder)).hexdigest()}"

    def _content_file(self, inode: int) -> Path:
        return self._folder / f"content-{inode}"

    def _keep(self, path: Path, content: bytes) -> None:
        temporary = f"{path}.tmp"
        with open(temporary, "wb") as file:  # noqa: PTH123 -- Path is patched
            file.write(content)
        os.replace(temporary, path)  # noqa: PTH105 -- ditto


def _take_python(failing: _Failing, note: Callable[[int], None]) -> None:
    real_fsync, real_rename, real_statvfs = os.fsync, Path.rename, os.statvfs

    class FullFile(io.FileIO):
        def write(self, data: Any, /) -> int:
            failing.require("write")
            return super().write(data)

    def fsync(descriptor: int) -> None:
        failing.require("fsync")
        real_fsync(descriptor)
        note(descriptor)

    def rename(self: Path, target: Any) -> Path:
        failing.require("rename")
        return real_rename(self, target)

    def statvfs(path: Any) -> os.statvfs_result:
        said = real_statvfs(path)
        return os.statvfs_result((*said[:3], 0, 0, *said[5:])) if "space" in failing else said

    replace_everywhere(io, "FileIO", FullFile)
    os.fsync, os.statvfs = fsync, statvfs  # type: ignore[assignment]
    Path.rename = rename  # type: ignore[method-assign,assignment]


def _take_sqlite(failing: _Failing, note: Callable[[int], None]) -> None:
    import sqlite3  # noqa: F401, PLC0415 -- loads the library

    library = ctypes.CDLL("libsqlite3.so.0")

    def full(original: Any) -> Callable[[int, int, int, int], int]:
        def pwrite(descriptor: int, data: int, size: int, offset: int) -> int:
            if "commit" in failing:
                set_errno(errno.ENOSPC)
                return -1
            return int(original(descriptor, data, size, offset))

        return pwrite

    def noted(original: Any) -> Callable[[int], int]:
        def sync(descriptor: int) -> int:
            status = int(original(descriptor))
            if status == 0:
                note(descriptor)
            return status

        return sync

    taken = [replace(library, name, PWRITE, full) for name in ("pwrite64", "pwrite")]
    synced_calls = [replace(library, name, SYNC, noted) for name in ("fdatasync", "fsync")]
    assert any(taken), "this SQLite writes by another call"
    assert any(synced_calls), "this SQLite syncs by another call"
