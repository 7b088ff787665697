"""Tells when somebody asks the process to stop, or to read its settings again.

It must not know what is to be stopped, nor what is read.
"""

import asyncio
import signal

import structlog

log = structlog.get_logger(__name__)

STOPS = (signal.SIGTERM, signal.SIGINT)


def stop_asked() -> asyncio.Future[signal.Signals]:
    """Return what the first SIGTERM or SIGINT from now on will fulfil; a second one ends the process as a kill would.

    That is safe at any time: what is accepted is in the ledger, and the next start goes on from there.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()

    def ask(number: signal.Signals) -> None:
        for stop in STOPS:
            loop.remove_signal_handler(stop)
            signal.signal(stop, signal.SIG_DFL)
        asked.set_result(number)

    for stop in STOPS:
        loop.add_signal_handler(stop, ask, stop)
    loop.add_signal_handler(signal.SIGHUP, _ignore_reload)
    return asked


def reload_asked() -> asyncio.Event:
    """Return what every SIGHUP from now on will set."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    return asked


def _ignore_reload() -> None:
    """A reload that is asked for in vain must not end the process, as SIGHUP does by itself."""
    log.warning("this command reads its settings at the start only")
