"""The terminal of a command: results on stdout, everything else on stderr, and signals.

Text wraps on a terminal. In a file or a pipe each sentence stays on one line.
"""
# ruff: noqa: PLC0415 -- a gateway does not print, so it does not import rich

import asyncio
import errno
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from bridge.errors import BridgeError, SettingsError
from bridge.store.engine.path_errors import explain_path_error

if TYPE_CHECKING:
    from rich.text import Text

STYLE_VARIABLES = frozenset({"FORCE_COLOR", "TTY_COMPATIBLE"})
"""Variables by which rich takes a pipe for a terminal."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

UNPRINTED = dict.fromkeys((7, 8, 11, 12, 13))  # as rich has it: bell, backspace, vertical tab, form feed, return


def print_result(text: "str | Text") -> None:
    """Print a result to stdout."""
    _print(sys.stdout, text)


def print_note(text: "str | Text") -> None:
    """Print anything beside the result to stderr."""
    _print(sys.stderr, text)


def print_failure(error: BridgeError | OSError) -> None:
    """Print the cause and the remedy of an error; each problem of the settings on a line of its own."""
    match error:
        case SettingsError():
            for problem in error.problems:
                print_note(highlight_key(problem, "red"))
        case OSError():
            print_note(_os_failure(error))
        case _:
            print_note(str(error))


def _os_failure(error: OSError) -> str:
    reason = str(error.strerror or error)
    if "temporary directory" in reason:  # of tempfile, which tried several folders
        tried = ", ".join(re.findall(r"'([^']*)'", reason))
        return f"TMPDIR: no temporary folder can be written ({tried}). Set TMPDIR to a folder that can."
    if error.filename:
        return explain_path_error(Path(os.fsdecode(error.filename)), error)
    if error.errno == errno.EADDRINUSE:
        address = re.search(r"\('([^']*)', (\d+)", reason)
        shown = f"Port {address[2]} on {address[1]}" if address else "The port"
        return f"{shown} is in use by another program. Stop that program (`ss -ltnp` lists it), or use another port."
    return f"The operating system reported: {reason}. Correct the address, the path, or the file."


def highlight_key(sentence: str, color: str) -> "Text":
    """Return `key: sentence` with the key in bold and in `color`."""
    from rich.text import Text

    key, colon, rest = sentence.partition(": ")
    return Text.assemble((key, f"bold {color}"), colon, rest)


def stop_requested() -> asyncio.Future[signal.Signals]:
    """Return a future that the next SIGTERM or SIGINT completes. A second signal kills the process.

    In a terminal, SIGHUP completes it too, because it is sent when the terminal is closed. To kill is safe at any time:
    accepted reports are in the ledger, and the next start continues from there.
    """
    loop = asyncio.get_running_loop()
    requested: asyncio.Future[signal.Signals] = loop.create_future()
    terminals = _terminals()
    stops = (*STOP_SIGNALS, signal.SIGHUP) if terminals else STOP_SIGNALS

    def handle(number: signal.Signals) -> None:
        _detach(terminals)
        for stop in STOP_SIGNALS:
            loop.remove_signal_handler(stop)
            signal.signal(stop, signal.SIG_DFL)
        if terminals:  # the shell sends a second one when it ends
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        requested.set_result(number)

    for stop in stops:
        loop.add_signal_handler(stop, handle, stop)
    if signal.SIGHUP not in stops:  # by default it ends a process
        loop.add_signal_handler(signal.SIGHUP, _ignore_reload)
    return requested


def _ignore_reload() -> None:
    import structlog

    structlog.get_logger(__name__).warning("reload_ignored")


def reload_requested() -> asyncio.Event:
    """Return an event that every SIGHUP from now on sets; in a terminal it is never set (`stop_requested`)."""
    requested = asyncio.Event()
    if not _terminals():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, requested.set)
    return requested


def _terminals() -> list[int]:
    """Return the descriptors among stdin, stdout and stderr that are terminals, if stdin or stderr is one."""
    found = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]
    return found if {0, 2} & set(found) else []


def _detach(terminals: list[int]) -> None:
    """Discard what is written to terminals that have been closed: such a write fails and would abort the drain."""
    for descriptor in terminals:
        if not os.isatty(descriptor):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor)
            os.close(null)


def _print(stream: TextIO, text: "str | Text") -> None:
    if isinstance(text, str) and not stream.isatty() and not STYLE_VARIABLES & os.environ.keys():
        print(text.translate(UNPRINTED), file=stream)
        return
    from rich.console import Console

    console = Console(file=stream, highlight=False)
    console.print(text, markup=False, soft_wrap=not console.is_terminal)
