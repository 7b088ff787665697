"""Where a presigned URL may lead: it is foreign input, and must not make the bridge call into its own network.

It knows neither requests nor answers; names are judged before a connection is tried, addresses as it is made.
"""

import ipaddress
import socket
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aiohttp import AddrInfoType
from yarl import URL

IPV4_IN_IPV6 = tuple(ipaddress.IPv6Network(net) for net in ("::/96", "64:ff9b::/96"))
"""IPv4-compatible and NAT64 addresses: their last 32 bits are the IPv4 address that is reached."""

BLOCKED_NETWORKS = tuple(ipaddress.IPv6Network(net) for net in ("64:ff9b:1::/48", "fec0::/10"))
"""Local-use NAT64 and site-local: `ipaddress` holds both for global."""


class AddressBlocked(OSError):
    """A name led to an address that is not public; an OSError, so that the next address of the name is tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageUrlPolicy:
    """Where reports may be stored: `hosts` are exact names or `*.suffix`, none meaning any public host."""

    hosts: tuple[str, ...] = ()
    allow_private: bool = False  # also allows http

    def refusal(self, url: URL) -> str | None:
        """Return why `url` may not be called, None when it may; addresses are judged later, by `guarded_socket`."""
        host = (url.host or "").rstrip(".").casefold()
        if url.scheme != "https" and not (self.allow_private and url.scheme == "http"):
            return "The storage URL is not https. Set testnod.allow_private_storage if your storage speaks http."
        if not host or url.user or url.password:
            return "The storage URL names no host, or a user. TestNod must hand out plain presigned URLs."
        if self.hosts and not any(fnmatchcase(host, pattern.casefold()) for pattern in self.hosts):
            return f"The storage host {host} is not in testnod.storage_hosts. Add it there if it is TestNod's."
        return None


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the public internet, also when it is an IPv4 address inside an IPv6 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _inner(ip)
        if inner is not None:
            return is_public(str(inner))
        if any(ip in network for network in BLOCKED_NETWORKS):
            return False
    return ip.is_global and not ip.is_multicast


def guarded_socket(addr_info: AddrInfoType) -> socket.socket:
    """Return a new socket for `addr_info`; raise AddressRefused for an address that is not public.

    Judged here, with the very address that is connected to, a name cannot change its mind in between.
    """
    family, kind, protocol, _, sockaddr = addr_info
    if not is_public(str(sockaddr[0])):
        raise AddressBlocked(
            "the storage host has an address that is not public; set testnod.allow_private_storage if it is yours"
        )
    return socket.socket(family=family, type=kind, proto=protocol)


def _inner(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip.ipv4_mapped or ip.sixtofour:
        return ip.ipv4_mapped or ip.sixtofour
    if any(ip in network for network in IPV4_IN_IPV6):
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return None
