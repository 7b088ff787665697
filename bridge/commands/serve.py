"""`bridge serve`: runs the gateway as a process, and reloads its settings on SIGHUP."""

import asyncio
import gc
import importlib
import os
import resource
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, closing, nullcontext
from functools import partial
from pathlib import Path

import structlog

from bridge.app.gateway import Gateway
from bridge.commands.config import read_settings, restrict_umask, warnings_of
from bridge.commands.console import reload_requested, stop_requested
from bridge.errors import BridgeError, SettingsError
from bridge.server.http.passed_sockets import take_sockets
from bridge.settings import Settings, apply_without_restart, diff, secret_values, summary
from bridge.store.engine.forked_writer import fork_writer
from bridge.store.engine.postgres_url import is_postgres
from bridge.telemetry.instance import new_instance
from bridge.telemetry.logs import choose, redact_values, set_up

MAX_OPEN_FILES = 65_536
"""Many systems start a process with 1,024, too few for a thousand connections and their spool files."""

COLLECT_AFTER = 10_000
"""New objects before Python looks for cycles among them; a request of an upload creates few, but keeps some hundred."""

CLOSE_SECONDS = 4.0
"""For closing connections after `server.shutdown_timeout`; with its default, less than orchestrators wait in all."""

log = structlog.get_logger(__name__)


def serve(path: Path, *, paused: bool = False) -> None:
    """Run the gateway until SIGTERM or SIGINT; with `paused` pause the ledger first.

    Raise BridgeError if the gateway cannot start.
    """
    instance = new_instance()
    set_up(instance=instance)
    _raise_file_limit()
    restrict_umask()
    sockets = take_sockets(os.environ)  # before any other process is forked
    settings = read_settings(path)
    redact_values(secret_values(settings))
    choose(level=settings.log.level, style=settings.log.format)
    log.info("gateway_starting", config=str(path), settings=summary(settings))
    _log_warnings(settings)
    with (
        nullcontext() if is_postgres(settings.store.url) else closing(fork_writer()) as spare,
        asyncio.Runner(loop_factory=partial(_new_event_loop, settings)) as runner,
    ):
        gateway = Gateway(settings, paused=paused, spare=spare, instance=instance, sockets=sockets)
        runner.run(_serve(gateway, settings, partial(read_settings, path)))


def _new_event_loop(settings: Settings) -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop; that of the standard library for TLS, or where uvloop is not installed.

    On a socket that was accepted, uvloop reads the client's first message before its `start_tls` begins.
    """
    if settings.server.tls_cert_file:
        return asyncio.new_event_loop()
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _serve(gateway: Gateway, settings: Settings, read: Callable[[], Settings]) -> None:
    stop, reload_event = stop_requested(), reload_requested()
    async with AsyncExitStack() as stack:
        start = asyncio.create_task(stack.enter_async_context(gateway), name="start")
        await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
        if not start.done():  # it may wait for the database, or for a migration
            _end_after(settings.server.shutdown_timeout.total_seconds() + CLOSE_SECONDS)
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            log.info("gateway_stopped")
            return
        await start
        gc.freeze()  # what the start created stays, so no collection needs to look at it
        gc.set_threshold(COLLECT_AFTER)
        gc.enable()
        await gateway.readiness.reasons()  # logs them: a gateway may listen and accept no upload
        log.info("gateway_listening", server=gateway.server_url, admin=gateway.admin_url)
        reloads = asyncio.create_task(_reload_on_request(gateway, read, reload_event), name="reloads")
        stop.add_done_callback(lambda _: reloads.cancel())
        number = await stop
        seconds = gateway.settings.server.shutdown_timeout.total_seconds()
        _end_after(seconds + CLOSE_SECONDS)
        log.info("gateway_draining", signal=number.name, at_most_seconds=seconds)
        await gateway.drain()
    log.info("gateway_stopped")


def _end_after(seconds: float) -> None:
    """End this process after `seconds` if it still runs then, whatever it waits for.

    That is safe at any time: accepted reports are in the ledger, and the next start continues from there.
    """

    def end() -> None:
        log.warning("stop_forced", after_seconds=seconds)
        os._exit(0)

    watchdog = threading.Timer(seconds, end)
    watchdog.daemon = True
    watchdog.start()


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _log_warnings(settings: Settings) -> None:
    for sentence in warnings_of(settings):
        log.warning("settings_warning", warning=sentence)


async def _reload_on_request(gateway: Gateway, read: Callable[[], Settings], requested: asyncio.Event) -> None:
    while True:
        await requested.wait()
        requested.clear()  # requests during a reload cause one more
        await reload(gateway, read)


async def reload(gateway: Gateway, read: Callable[[], Settings]) -> None:
    """Apply the settings that `read` returns and log what changed; if there is a problem, apply nothing and log it."""
    try:
        await _reload(gateway, read)
    except BridgeError as error:
        gateway.metrics.count_reload("rejected")
        problems = error.problems if isinstance(error, SettingsError) else [str(error)]
        log.error("settings_rejected", problems=problems)  # noqa: TRY400 -- the file is wrong, not the bridge
    except Exception:
        gateway.metrics.count_reload("rejected")
        log.exception("settings_rejected")
    else:
        gateway.metrics.count_reload("success")


async def _reload(gateway: Gateway, read: Callable[[], Settings]) -> None:
    wanted = await asyncio.to_thread(read)  # opens files
    redact_values(secret_values(wanted))  # before anything is logged; earlier secrets stay redacted
    before = gateway.settings
    settings, waiting = apply_without_restart(before, wanted)
    await gateway.apply_settings(settings)
    choose(level=settings.log.level, style=settings.log.format)
    changed = diff(before, settings)
    log.info("settings_reloaded", changed=changed)
    if changed:
        await gateway.record_reload(changed)
    if waiting:
        log.warning("restart_required", changed=waiting)
    _log_warnings(settings)
