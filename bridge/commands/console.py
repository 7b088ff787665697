"""The terminal of a command: results on stdout, everything else on stderr, and signals.

Text wraps on a terminal. In a file or a pipe each sentence stays on one line.
"""

import asyncio
import signal

import structlog
from rich.console import Console
from rich.text import Text

from bridge.errors import BridgeError, SettingsError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger(__name__)


def print_result(text: str | Text) -> None:
    """Print a result to stdout."""
    _print(Console(highlight=False), text)


def print_note(text: str | Text) -> None:
    """Print anything beside the result to stderr."""
    _print(Console(stderr=True, highlight=False), text)


def print_failure(error: BridgeError | OSError) -> None:
    """Print the cause and the remedy of an error; each problem of the settings on a line of its own."""
    match error:
        case SettingsError():
            for problem in error.problems:
                print_note(highlight_key(problem, "red"))
        case OSError():
            subject = f" ({error.filename})" if error.filename else ""
            reason = error.strerror or error
            print_note(f"The operating system reported: {reason}{subject}. Correct the address, the path, or the file.")
        case _:
            print_note(str(error))


def highlight_key(sentence: str, color: str) -> Text:
    """Return `key: sentence` with the key in bold and in `color`."""
    key, colon, rest = sentence.partition(": ")
    return Text.assemble((key, f"bold {color}"), colon, rest)


def stop_requested() -> asyncio.Future[signal.Signals]:
    """Return a future that the next SIGTERM or SIGINT completes. A second signal kills the process.

    That is safe at any time: accepted reports are in the ledger, and the next start continues from there.
    """
    loop = asyncio.get_running_loop()
    requested: asyncio.Future[signal.Signals] = loop.create_future()

    def handle(number: signal.Signals) -> None:
        for stop in STOP_SIGNALS:
            loop.remove_signal_handler(stop)
            signal.signal(stop, signal.SIG_DFL)
        requested.set_result(number)

    for stop in STOP_SIGNALS:
        loop.add_signal_handler(stop, handle, stop)
    # By default SIGHUP ends a process.
    loop.add_signal_handler(signal.SIGHUP, lambda: log.warning("reload_ignored"))
    return requested


def reload_requested() -> asyncio.Event:
    """Return an event that every SIGHUP from now on sets."""
    requested = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, requested.set)
    return requested


def _print(console: Console, text: str | Text) -> None:
    console.print(text, markup=False, soft_wrap=not console.is_terminal)
