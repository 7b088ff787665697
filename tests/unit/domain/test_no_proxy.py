import pytest

from bridge.domain.no_proxy import read_no_proxy_entry


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("*", "anything.example", 443),
        ("example.com", "example.com", 443),
        ("example.com", "a.b.example.com", 80),
        ("Example.COM", "example.com.", 80),
        (".example.com", "a.example.com", 443),
        (".example.com", "example.com", 443),
        ("*.example.com", "a.example.com", 443),
        ("example.com:8443", "example.com", 8443),
        ("10.0.0.0/8", "10.1.2.3", 443),
        ("10.1.2.3/8", "10.9.9.9", 443),
        ("10.1.2.3", "10.1.2.3", 443),
        ("10.1.2.3:80", "10.1.2.3", 80),
        ("::1", "::1", 443),
        ("[::1]", "::1", 443),
        ("[::1]:8080", "::1", 8080),
        ("fd00::/8", "fd00::1", 443),
        (" localhost ", "localhost", 80),
    ],
)
def test_hosts_that_an_entry_names_are_reached_directly(entry, host, port):
    assert read_no_proxy_entry(entry).matches(host, port)


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("example.com", "evil-example.com", 443),
        ("example.com", "example.com.evil.test", 443),
        ("a.example.com", "example.com", 443),
        ("example.com:8443", "example.com", 443),
        ("10.0.0.0/8", "11.0.0.1", 443),
        ("10.0.0.0/8", "10.example.com", 443),
        ("10.1.2.3", "10.1.2.30", 443),
        ("10.1.2.3:80", "10.1.2.3", 443),
        ("::1", "127.0.0.1", 443),
        ("fd00::/8", "10.0.0.1", 443),
    ],
)
def test_other_hosts_are_not(entry, host, port):
    assert not read_no_proxy_entry(entry).matches(host, port)


@pytest.mark.parametrize(
    "entry",
    ["", "   ", "http://x", "10.0.0.0/33", "a b", "x:", "x:y", "x:65536", "u@x", ".", "*.", "a*b", "[::1", "x/y"],
)
def test_what_is_no_entry_is_refused(entry):
    with pytest.raises(ValueError, match=r"host|network"):
        read_no_proxy_entry(entry)
