"""Reads the settings again while a gateway runs: all of them are put in force, or none.

It must not know what a setting means, nor what the gateway is made of.
"""

import asyncio
from collections.abc import Callable

import structlog

from bridge.commands.configuration import advice_on
from bridge.errors import BridgeError, SettingsError
from bridge.gateway import Gateway
from bridge.settings import Settings, changes, secret_values, until_restart
from bridge.telemetry.logs import redact_values

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
        gateway.metrics.reloaded("refused")
        complaints = error.complaints if isinstance(error, SettingsError) else [str(error)]
        log.error(NOT_TAKEN, complaints=complaints)  # noqa: TRY400 -- a wrong file is no fault of the bridge
    except Exception:
        gateway.metrics.reloaded("refused")
        log.exception(NOT_TAKEN)
    else:
        gateway.metrics.reloaded("done")


async def _reload(gateway: Gateway, read: Callable[[], Settings]) -> None:
    wanted = await asyncio.to_thread(read)  # files, and certificates among them
    redact_values(secret_values(wanted))  # before anything is said; the ones before stay registered
    before = gateway.settings
    settings, needs_restart = until_restart(before, wanted)
    await gateway.put_in_force(settings)
    log.info("settings reloaded", changed=changes(before, settings))
    if needs_restart:
        log.warning("settings that need a restart stay as they were", needs_restart=needs_restart)
    for sentence in advice_on(settings):
        log.warning("advice", about=sentence)
