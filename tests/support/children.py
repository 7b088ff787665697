"""Child processes of a process, and whether one has ended, read from /proc."""

from pathlib import Path

START_FIELD = 18  # in /proc/…/stat, behind the state


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started; none if it has ended, or if the system does not list them."""
    try:
        listed = [(thread / "children").read_text(encoding="ascii") for thread in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for children in listed for child in children.split()]


def command_of(pid: int) -> str:
    """Return the command line of a process, empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def start_of(pid: int) -> str | None:
    """Return when a process started, as the kernel counts; None if none of this number runs."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else fields[START_FIELD]
