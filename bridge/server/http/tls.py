"""The certificate that a listener shows: looked at while it runs, and replaced once its files hold another good pair.

It knows neither the files nor what goes over the connections. A pair that cannot be used changes nothing.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol

import structlog

from bridge.clock import Clock
from bridge.domain.build import SECOND

LOOK_EVERY_US = 10 * SECOND
"""A renewed certificate is shown this soon; reading two small files costs nothing."""

_log = structlog.get_logger(__name__)


class CertificateSource(Protocol):
    """A certificate and its key as they lie in files; both methods raise ValueError, in half a sentence."""

    def mark(self) -> bytes:
        """Return what tells this pair from any other one."""

    def load(self) -> ssl.SSLContext:
        """Return a server's context with this pair."""


class Certificate:
    """What one listener shows of `pair`, which must be good to begin with (ValueError).

    `fault` says why what the files hold now is not what is shown.
    """

    def __init__(self, pair: CertificateSource) -> None:
        self._pair = pair
        self._mark: bytes | None = pair.mark()
        self._shown = pair.load()
        self.fault: str | None = None
        # A listener keeps its context for ever; each handshake, with a name or without, takes the newest one's pair.
        self.context = pair.load()
        self.context.sni_callback = self._show

    def _show(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._shown

    async def watch(self, beat: Callable[[], None], clock: Clock, stopping: asyncio.Event) -> None:
        """Look at the files until `stopping`."""
        while not stopping.is_set():
            beat()
            await self.look()
            await clock.wait(stopping, clock.now() + LOOK_EVERY_US)

    async def look(self) -> None:
        """Show what the files hold now, or say why not: once for each thing that is wrong with them."""
        known, self._mark = self._mark, None
        try:
            self._mark = await asyncio.to_thread(self._pair.mark)
            if self._mark == known:
                return
            self._shown = await asyncio.to_thread(self._pair.load)
        except ValueError as error:
            self._refuse(f"{error}. The certificate before it is shown on: put a good pair there.")
        else:
            self.fault = None
            _log.info("certificate renewed")

    def _refuse(self, fault: str) -> None:
        if fault != self.fault:
            _log.error("certificate not taken", reason=fault)
        self.fault = fault
