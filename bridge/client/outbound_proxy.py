"""The outbound proxy: through which proxy a call goes, and which certificate authorities are trusted."""

import ssl
from dataclasses import field

from yarl import URL

from bridge.domain.no_proxy import NoProxyEntry
from bridge.values import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class OutboundProxy:
    """How calls leave this network: directly, or through `proxy`, whose URL may contain credentials."""

    proxy: URL | None = field(default=None, repr=False)
    exemptions: tuple[NoProxyEntry, ...] = ()
    trust: ssl.SSLContext | None = None  # None: the certificate authorities of this machine

    def proxy_for(self, url: URL) -> URL | None:
        """Return the proxy for calls to `url`, None if it is called directly."""
        if self.proxy is None:
            return None
        host, port = url.host or "", url.port or 0
        if any(exemption.matches(host, port) for exemption in self.exemptions):
            return None
        return self.proxy


DIRECT = OutboundProxy()
