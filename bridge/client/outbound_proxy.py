"""The way out: through which proxy a call goes, and which authorities are believed on it.

It knows no upstream; a session asks it for each URL that it calls.
"""

import ssl
from dataclasses import dataclass, field

from yarl import URL

from bridge.domain.no_proxy import NoProxyEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class OutboundProxy:
    """Where calls leave this network: directly, or by `proxy`, whose URL may hold credentials."""

    proxy: URL | None = field(default=None, repr=False)
    exemptions: tuple[NoProxyEntry, ...] = ()
    trust: ssl.SSLContext | None = None  # None: the authorities of this machine

    def proxy_for(self, url: URL) -> URL | None:
        """Return the proxy that `url` is called through, None where it is called directly."""
        host, port = url.host or "", url.port or 0
        if self.proxy is None or any(exemption.holds(host, port) for exemption in self.exemptions):
            return None
        return self.proxy


DIRECT = OutboundProxy()
