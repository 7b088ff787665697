"""Who is really calling where proxies of our own stand in front: the address that the last of them vouches for.

It knows neither callers nor what they ask. A header that anybody can write is believed of trusted proxies only.
"""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

HEADER = "X-Forwarded-For"

MAX_HOPS = 32
"""Addresses that are read of the header, from its end: nobody has more proxies in a row."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def read_networks(trusted: Sequence[str]) -> tuple[Network, ...]:
    """Return what `server.trusted_proxies` names."""
    return tuple(ip_network(network) for network in trusted)


def forwarded(trusted: Callable[[], Sequence[Network]]) -> Middleware:
    """Return the middleware that sets `request.remote` to the client's address; `trusted` are our proxies now."""

    @web.middleware
    async def believe(request: web.Request, handler: Handler) -> web.StreamResponse:
        networks = trusted()
        if networks and request.remote is not None:
            client = client_address(request.remote, request.headers.getall(HEADER, []), networks)
            if client != request.remote:
                request = request.clone(remote=client)
        return await handler(request)

    return believe


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the last address on the way that is not one of `trusted`, or the first of all where each is.

    What cannot be read ends the way: the proxy that passed it on stands for whoever is behind it.
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
    """Read an address, with or without a port; an IPv4 address inside an IPv6 one is the IPv4 address."""
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
