import pytest

from bridge.protocols.huawei_errors import read_error


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"error_code": "APIGW.0301", "error_msg": "bad token", "request_id": "r"}, ("APIGW.0301", "bad token")),
        ({"error": {"code": "CB.1", "message": "no"}, "status": "error"}, ("CB.1", "no")),
        ({"error": {"code": "CB.1", "reason": "why"}}, ("CB.1", "why")),
        ({"error": {"code": 401, "message": "The username or password is wrong.", "title": "Unauthorized"}},
         ("", "The username or password is wrong.")),
        ({"error": "plain"}, ("", "plain")),
        ('{"error_code": "A.1", "error_msg": "inside"}', ("A.1", "inside")),
        ("only words", ("", "only words")),
        (None, ("", "")),
        ([], ("", "")),
    ],
)  # fmt: skip
def test_every_shape_of_an_error_is_read(value, expected):
    assert read_error(value) == expected
