"""Find the client's address behind trusted proxies. X-Forwarded-For of any other peer is ignored."""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

HEADER = "X-Forwarded-For"

MAX_HOPS = 32
"""Addresses read from the end of the header; a longer chain of proxies is not plausible."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def read_networks(trusted: Sequence[str]) -> tuple[Network, ...]:
    """Return the networks of `server.trusted_proxies`."""
    return tuple(ip_network(network) for network in trusted)


def forwarded(trusted: Callable[[], Sequence[Network]]) -> Middleware:
    """Return a middleware that sets `request.remote` to the client's address; `trusted` returns the current proxies."""

    @web.middleware
    async def set_remote(request: web.Request, handler: Handler) -> web.StreamResponse:
        networks = trusted()
        if networks and request.remote is not None:
            client = client_address(request.remote, request.headers.getall(HEADER, []), networks)
            if client != request.remote:
                request = request.clone(remote=client)
        return await handler(request)

    return set_remote


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the last address in the chain that is not in `trusted`, or the first one if all are.

    If an entry cannot be read, the address of the proxy that added it is returned.
    """
    address = peer
    hops = [hop for line in forwarded_for for hop in line.split(",")]
    for hop in reversed(hops[-MAX_HOPS:]):
        if not _is_trusted(address, trusted) or (next_address := _read(hop)) is None:
            break
        address = str(next_address)
    return address


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    read = _read(address)
    return read is not None and any(read in network for network in trusted)


def _read(text: str) -> Address | None:
    """Return the address in `text`, with or without a port; an IPv4-mapped IPv6 address becomes the IPv4 address."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
