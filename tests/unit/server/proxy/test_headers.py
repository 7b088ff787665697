import pytest

from bridge.errors import BadGateway, BadParameter
from bridge.server.proxy.headers import Via, require_forwardable


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("TRACE", []),
        ("GET", [(b"Upgrade", b"websocket")]),
        ("GET", [(b"upgrade", b"h2c, websocket")]),
        ("POST", [(b"Transfer-Encoding", b"gzip, chunked")]),
        ("POST", [(b"transfer-encoding", b"identity")]),
        ("POST", [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"gzip")]),
    ],
)
def test_what_would_change_the_exchange_itself_is_rejected(method, headers):
    with pytest.raises(BadParameter):
        require_forwardable(method, headers)


@pytest.mark.parametrize(
    "headers", [[], [(b"Upgrade", b"h2c")], [(b"Transfer-Encoding", b" Chunked ")], [(b"TE", b"trailers")]]
)
def test_what_every_client_may_say_is_passed_on(headers):
    require_forwardable("POST", headers)


def test_a_call_that_came_back_is_known_by_its_name_and_no_other_is():
    ours, another = Via(), Via()
    passed = [(b"Via", b"1.1 elsewhere, " + ours.header[1])]
    with pytest.raises(BadGateway, match="come back"):
        ours.require_no_loop(passed)
    another.require_no_loop(passed)
