"""Tells when somebody asks the process to stop.

It must not know what is to be stopped.
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
    loop.add_signal_handler(signal.SIGHUP, _refuse_to_reload)
    return asked


def _refuse_to_reload() -> None:
    """A reload that is asked for in vain must not end the gateway, as SIGHUP does by itself."""
    log.warning("settings are read at the start only: restart the gateway to have them read again")
