import pytest
from yarl import URL

from bridge.client.outbound_proxy import DIRECT, OutboundProxy
from bridge.domain.no_proxy import read_no_proxy_entry

PROXY = URL("http://user:canary@proxy.example:3128")


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("https://testnod.example/", False),
        ("https://s3.lan/", True),
        ("https://host.example/", False),
        ("https://host.example:8443/", True),
        ("http://[fd00::1]/", True),
    ],
)
def test_each_url_goes_through_the_proxy_unless_it_is_exempt(url, direct):
    exemptions = tuple(read_no_proxy_entry(entry) for entry in (".lan", "host.example:8443", "fd00::/8"))
    outbound_proxy = OutboundProxy(proxy=PROXY, exemptions=exemptions)
    assert outbound_proxy.proxy_for(URL(url)) == (None if direct else PROXY)


def test_without_a_proxy_every_call_is_direct():
    assert DIRECT.proxy_for(URL("https://testnod.example/")) is None


def test_a_outbound_proxy_does_not_show_its_login():
    assert "canary" not in repr(OutboundProxy(proxy=PROXY))
