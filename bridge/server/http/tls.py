"""The certificate of a listener: checked while it runs, and replaced if its files contain another valid pair."""

import asyncio
import ssl
from collections.abc import Callable
from hashlib import sha256
from typing import Protocol

import structlog

from bridge.clock import Clock
from bridge.domain.instants import SECOND, Instant
from bridge.protocols.x509 import certificate_end

CHECK_INTERVAL_US = 10 * SECOND
"""A renewed certificate is used this soon; reading two small files costs nothing."""

_log = structlog.get_logger(__name__)


class CertificateSource(Protocol):
    """A certificate and its key in files. All methods raise ValueError with half a sentence."""

    def mark(self) -> bytes:
        """Return bytes that differ for every pair."""

    def certificate(self) -> bytes:
        """Return the certificate as DER."""

    def load(self) -> ssl.SSLContext:
        """Return a server's context with this pair."""


class Certificate:
    """The certificate of one listener, read from `source`, which must be valid at first (ValueError).

    `fault` is why the pair that the files contain now is not used, or None. `ends_at` is when the pair in use ends, or
    None if that cannot be read, and `fingerprint` is its digest, empty then.
    """

    def __init__(self, source: CertificateSource) -> None:
        self._source = source
        self._mark: bytes | None = source.mark()
        self._current = source.load()
        self.fault: str | None = None
        self.ends_at, self.fingerprint = self._read_end()
        # A listener never replaces its context; the SNI callback of each handshake switches to the current one.
        self.context = source.load()
        self.context.sni_callback = self._use_current

    def _use_current(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read_end(self) -> tuple[Instant | None, str]:
        try:
            der = self._source.certificate()
            return certificate_end(der), sha256(der).hexdigest()[:32]
        except ValueError:  # TLS may work all the same
            return None, ""

    async def watch(self, beat: Callable[[], None], clock: Clock, stopping: asyncio.Event) -> None:
        """Check the files until `stopping`."""
        while not stopping.is_set():
            beat()
            await self.refresh()
            await clock.wait(stopping, clock.now() + CHECK_INTERVAL_US)

    async def refresh(self) -> None:
        """Use the pair that the files contain now; if it is invalid, log that once and keep the former pair."""
        known, self._mark = self._mark, None
        try:
            self._mark = await asyncio.to_thread(self._source.mark)
            if self._mark == known:
                return
            end = await asyncio.to_thread(self._read_end)
            self._current = await asyncio.to_thread(self._source.load)
            self.ends_at, self.fingerprint = end
        except ValueError as error:
            fault = f"{error}. The former certificate stays in use. Put a valid pair there."
            if fault != self.fault:
                _log.error("certificate_rejected", reason=fault)
            self.fault = fault
        else:
            self.fault = None
            _log.info("certificate_renewed")
