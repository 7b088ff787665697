"""`bridge serve`: the gateway as a process, from its settings to its last log line.

It must not know what the gateway is made of.
"""

import asyncio
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from bridge.app.gateway import Gateway
from bridge.commands.config import advice_on, read_settings, restrict_umask
from bridge.errors import BridgeError, SettingsError
from bridge.settings import Settings, apply_without_restart, diff, secret_values, summary
from bridge.telemetry.logs import redact_values, set_up

# Reads the settings again while a gateway runs: all of them are put in force, or none.
#
# It must not know what a setting means, nor what the gateway is made of.


NOT_TAKEN = "settings not taken, those before stay in force"

log = structlog.get_logger(__name__)


async def reload_when_asked(gateway: Gateway, read: Callable[[], Settings], asked: asyncio.Event) -> None:
    """Reload once for each time that `asked` was set; several while one is under way are one."""
    while True:
        await asked.wait()
        asked.clear()
        await reload(gateway, read)


async def reload(gateway: Gateway, read: Callable[[], Settings]) -> None:
    """Put in force what `read` returns, and say what has changed; where that cannot be, say all that is wrong."""
    try:
        await _reload(gateway, read)
    except BridgeError as error:
        gateway.metrics.count_reload("rejected")
        complaints = error.problems if isinstance(error, SettingsError) else [str(error)]
        log.error(NOT_TAKEN, complaints=complaints)  # noqa: TRY400 -- a wrong file is no fault of the bridge
    except Exception:
        gateway.metrics.count_reload("rejected")
        log.exception(NOT_TAKEN)
    else:
        gateway.metrics.count_reload("success")


async def _reload(gateway: Gateway, read: Callable[[], Settings]) -> None:
    wanted = await asyncio.to_thread(read)  # files, and certificates among them
    redact_values(secret_values(wanted))  # before anything is said; the ones before stay registered
    before = gateway.settings
    settings, needs_restart = apply_without_restart(before, wanted)
    await gateway.apply_settings(settings)
    log.info("settings reloaded", changed=diff(before, settings))
    if needs_restart:
        log.warning("settings that need a restart stay as they were", needs_restart=needs_restart)
    for sentence in advice_on(settings):
        log.warning("advice", about=sentence)


# Tells when somebody asks the process to stop, or to read its settings again.
#
# It must not know what is to be stopped, nor what is read.


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


MOST_FILES = 65_536
"""Open at once: many systems start a process with 1,024, which a thousand connections and their spool files exceed."""


def serve(path: Path, *, paused: bool = False) -> None:
    """Run the gateway until it is asked to stop, its ledger `paused` where that is said.

    Raise BridgeError where it cannot start.
    """
    set_up()
    _raise_file_limit()
    restrict_umask()
    settings = read_settings(path)
    redact_values(secret_values(settings))
    log.info("starting", config=str(path), settings=summary(settings))
    for sentence in advice_on(settings):
        log.warning("advice", about=sentence)
    asyncio.run(_serve(settings, partial(read_settings, path), paused=paused))


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _serve(settings: Settings, read: Callable[[], Settings], *, paused: bool) -> None:
    stop, reload = stop_asked(), reload_asked()
    async with Gateway(settings, paused=paused) as gateway:
        log.info("listening", server=gateway.server_url, admin=gateway.admin_url)
        reloads = asyncio.create_task(reload_when_asked(gateway, read, reload), name="reloads")
        stop.add_done_callback(lambda _: reloads.cancel())
        await run_until_stopped(gateway, stop)
    log.info("stopped")


async def run_until_stopped(gateway: Gateway, stop: asyncio.Future[signal.Signals]) -> None:
    """Wait for the `stop` that signals.stop_asked gave, and let the gateway finish what is under way."""
    asked = await stop
    log.info("draining", signal=asked.name, at_most_seconds=gateway.settings.server.shutdown_timeout.total_seconds())
    await gateway.drain()
