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

from bridge.commands.configuration import advice_on, read_settings
from bridge.commands.privacy import keep_from_others
from bridge.commands.reload import reload_when_asked
from bridge.commands.signals import reload_asked, stop_asked
from bridge.gateway import Gateway
from bridge.settings import Settings, secret_values, summary
from bridge.telemetry.logs import redact_values, set_up

MOST_FILES = 65_536
"""Open at once: many systems start a process with 1,024, which a thousand connections and their spool files exceed."""

log = structlog.get_logger(__name__)


def serve(path: Path, *, held: bool = False) -> None:
    """Run the gateway until it is asked to stop, its ledger `held` where that is said.

    Raise BridgeError where it cannot start.
    """
    set_up()
    _raise_file_limit()
    keep_from_others()
    settings = read_settings(path)
    redact_values(secret_values(settings))
    log.info("starting", config=str(path), settings=summary(settings))
    for sentence in advice_on(settings):
        log.warning("advice", about=sentence)
    asyncio.run(_serve(settings, partial(read_settings, path), held=held))


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _serve(settings: Settings, read: Callable[[], Settings], *, held: bool) -> None:
    stop, reload = stop_asked(), reload_asked()
    async with Gateway(settings, held=held) as gateway:
        log.info("listening", server=gateway.server_url, admin=gateway.admin_url)
        reloads = asyncio.create_task(reload_when_asked(gateway, read, reload), name="reloads")
        stop.add_done_callback(lambda _: reloads.cancel())
        await run_until_stopped(gateway, stop)
    log.info("stopped")


async def run_until_stopped(gateway: Gateway, stop: asyncio.Future[signal.Signals]) -> None:
    """Wait for the `stop` that signals.stop_asked gave, and let the gateway finish what is under way."""
    asked = await stop
    log.info("draining", signal=asked.name, at_most_seconds=gateway.settings.server.drain.total_seconds())
    await gateway.drain()
