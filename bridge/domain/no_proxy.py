"""Which hosts are called without the outbound proxy: the entries of `outbound.no_proxy`, as curl reads NO_PROXY.

Not urllib's `proxy_bypass`: that takes entries as they are, and the settings must reject invalid ones. Names are not
resolved, so a network matches only hosts given by address.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from bridge.values import dataclass

_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"[^\s:/@\[\]*?]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class NoProxyEntry:
    """One entry: every host, a name and the names below it, or a network; at one port or at any."""

    name: str = ""
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None

    def matches(self, host: str, port: int) -> bool:
        """Return whether `host` (a name, or an address without brackets) is called directly at `port`."""
        if self.port not in (None, port):
            return False
        host = host.rstrip(".").lower()
        if self.network is not None:
            address = _address(host)
            return address is not None and address in self.network
        return not self.name or host == self.name or host.endswith("." + self.name)


def read_no_proxy_entry(text: str) -> NoProxyEntry:
    """Return the entry for `*`, `host`, `.suffix`, `*.suffix`, an address or a network, with `:port` or without.

    A name, with or without a leading dot, includes the names below it. Raises ValueError if the text is none of these.
    """
    text = text.strip().lower()
    if text == "*":
        return NoProxyEntry()
    if "/" in text or _address(text) is not None:
        return NoProxyEntry(network=ip_network(text, strict=False))
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a host")
    port = int(found["port"]) if found["port"] else None
    host = found["host"].removeprefix("*").removeprefix(".").rstrip(".")
    inner = _address(host.removeprefix("[").removesuffix("]"))
    if inner is not None:
        return NoProxyEntry(network=ip_network(inner), port=port)
    if not _NAME.fullmatch(host) or (port is not None and port > 65_535):
        raise ValueError(f"{text!r} is not a host")
    return NoProxyEntry(name=host, port=port)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None
