import pytest

from bridge.server.admin.app import host_name


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:8081", "localhost"),
        ("LocalHost.", "localhost"),
        ("127.0.0.1:8081", "127.0.0.1"),
        ("[::1]:8081", "::1"),
        ("[::1]", "::1"),
        ("", ""),
    ],
)
def test_a_host_header_is_read_without_its_port(header, name):
    assert host_name(header) == name
