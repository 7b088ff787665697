from ipaddress import ip_network

import pytest

from bridge.server.http.forwarded import MAX_HOPS, client_address

OURS = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.7, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.7", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("fd00::1", ["[2001:db8::5]:4711"], "2001:db8::5"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, " + ", ".join(["10.0.0.2"] * MAX_HOPS)], "10.0.0.2"),
    ],
    ids=[
        "a stranger may write what he likes",
        "no header",
        "one client",
        "what the client wrote himself",
        "the same in two lines",
        "two proxies of ours",
        "a client within",
        "nothing readable",
        "with a port",
        "IPv6",
        "IPv4 in IPv6",
        "empty",
        "too long a way",
    ],
)
def test_the_client_is_whom_the_last_trusted_proxy_vouches_for(peer, forwarded_for, address):
    assert client_address(peer, forwarded_for, OURS) == address
