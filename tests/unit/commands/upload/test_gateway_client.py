"""Addresses that a build's environment names: what cannot be used is named before anything is sent."""

import pytest

from bridge.commands.upload.gateway_client import GatewayClient
from bridge.errors import BridgeError


@pytest.fixture(autouse=True)
def _environ(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("url", ["ftp://host", "http://user:secret@host", "http://", "http://[host"])
def test_what_is_no_address_of_a_gateway_is_named(url):
    with pytest.raises(BridgeError, match="BRIDGE_URL is not the address of a gateway") as raised:
        GatewayClient(url, "")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("proxy", ["http://[proxy", "http://proxy:port", "http://user:secret@", "http://"])
def test_what_is_no_address_of_a_proxy_is_named(proxy, monkeypatch):
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(BridgeError, match="https_proxy is not the address of a proxy") as raised:
        GatewayClient("https://bridge.example", "")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("proxy", ["http://user:pw@proxy:3128", "user:pw@proxy:3128"])
def test_a_proxy_may_lack_its_scheme(proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", proxy)
    found = GatewayClient("http://bridge.example", "")._proxy
    assert (found.hostname, found.port, found.username, found.password) == ("proxy", 3128, "user", "pw")
