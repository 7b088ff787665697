"""Errors of the operating system about files and folders as people read them: what is in the way, and what to do."""

import errno
import os
import pwd
import stat
from pathlib import Path

_DENIED = frozenset({errno.EACCES, errno.EPERM})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def explain_path_error(path: Path, error: OSError) -> str:
    """Return cause and remedy, as two sentences, of an error about the file or folder at `path`."""
    there = _nearest(path.absolute())
    if error.errno == errno.EISDIR:
        return f"{there} is a folder, not a file. Name a file in it."
    if error.errno in (errno.ENOTDIR, errno.EEXIST) and not there.is_dir():
        return f"{there} is a file, not a folder. Move it away, or use another path."
    if error.errno == errno.EROFS:
        return f"{there} is on a read-only file system. Use a writable path, such as one on a volume."
    if error.errno in _FULL:
        return f"The disk of {there} is full. Free some space, or use another path."
    if error.errno in _DENIED:
        return f"{_user()} may not write to {there}{_owner(there)}. Permit that, or use another path."
    return f"{path.absolute()} cannot be used: {error.strerror or type(error).__name__}. Correct the path."


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next((one for one in (path, *path.parents) if os.path.lexists(one)), path)


def _user() -> str:
    return f"User {_name(os.geteuid())}"


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:  # usual in containers
        return str(uid)


def _owner(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f", which has mode {stat.filemode(status.st_mode)} and belongs to user {_name(status.st_uid)}"
