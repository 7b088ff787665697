"""Protection against SSRF: a presigned URL is foreign input and must not reach the bridge's own network.

Hosts are checked before a connection is tried, addresses when it is made.
"""

import ipaddress
import socket
from fnmatch import fnmatchcase

from aiohttp import AddrInfoType
from yarl import URL

from bridge.values import dataclass

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is assigned for the internet (RFC 4291, section 2.4). `ipaddress` takes reserved blocks for global, and the
IPv4-translated addresses of SIIT, `::ffff:0:0:0/96`."""

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The last 32 bits are the IPv4 address (RFC 6052)."""

ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""Before the IPv4 address in the last 32 bits of an IPv6 address with any prefix (RFC 5214, section 6.1)."""

BLOCKED_NETWORKS = tuple(
    ipaddress.ip_network(net)
    for net in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")
)
"""Azure's metadata service, addresses for protocols (also Teredo and ORCHID), relays of 6to4, documentation:
`ipaddress` takes them for global, all or some."""


class AddressBlocked(OSError):
    """A name resolved to an address that is not public; an OSError, so that the name's next address is tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageUrlPolicy:
    """Where reports may be stored. `hosts` are exact names or `*.suffix`; if there are none, any public host."""

    hosts: tuple[str, ...] = ()
    allow_private: bool = False  # also allows http

    def rejection(self, url: URL) -> str | None:
        """Return why `url` may not be called, None if it may. `guarded_socket` checks the addresses later."""
        host = (url.host or "").rstrip(".").casefold()
        if url.scheme != "https" and not (self.allow_private and url.scheme == "http"):
            return "The storage URL is not https. If your storage uses http, set testnod.allow_private_storage."
        if not host or url.user or url.password:
            return "The storage URL has no host, or contains credentials. TestNod must return plain presigned URLs."
        if self.hosts and not any(fnmatchcase(host, pattern.casefold()) for pattern in self.hosts):
            return f"The storage host {host} is not in testnod.storage_hosts. If it is TestNod's, add it there."
        return None


def is_public(address: str) -> bool:
    """Return whether an IP address is public; if it is IPv6 and contains an IPv4 address, whether that is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if (inner := _inner(ip)) is not None:
            return is_public(str(inner))
        if ip not in GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in BLOCKED_NETWORKS)


STORAGE_BLOCKED = "the storage host has an address that is not public; set testnod.allow_private_storage if it is yours"


def guarded_socket(addr_info: AddrInfoType, blocked: str = STORAGE_BLOCKED) -> socket.socket:
    """Return a new socket for `addr_info`; raise AddressBlocked with the text `blocked` if its address is not public.

    The address checked is the one connected to, so that the name cannot resolve to another in between.
    """
    family, kind, protocol, _, sockaddr = addr_info
    if not is_public(str(sockaddr[0])):
        raise AddressBlocked(blocked)
    return socket.socket(family=family, type=kind, proto=protocol)


def _inner(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip.ipv4_mapped or ip.sixtofour:
        return ip.ipv4_mapped or ip.sixtofour
    if ip in NAT64 or (int(ip) >> 32 & 0xFFFF_FFFF) in ISATAP:
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return None
