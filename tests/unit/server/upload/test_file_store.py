"""What is returned for a rejected file; the rest is tested through the handler in tests/integration/server."""

import pytest

from bridge.domain.junit.validator import Invalid, validate_bytes
from bridge.domain.routing import Route
from bridge.server.upload.file_store import remedy

HTML = b"<html/>"
BARE = b"<testsuite><testcase name='a & b'/></testsuite>"
WRONG_BYTES = b"<testsuite><testcase name='caf\xe9'/></testsuite>"


@pytest.mark.parametrize(
    ("content", "repair", "says"),
    [
        (WRONG_BYTES, False, ", or set repair = true on route shop."),
        (WRONG_BYTES, True, "or write UTF-8."),
        (HTML, False, "testsuites or testsuite."),
        (BARE, False, "The test runner must write it as &amp;, or set repair = true on route shop."),
        (BARE, True, "The test runner must write it as &amp;."),
    ],
)
def test_a_wrong_encoding_or_a_bare_ampersand_names_the_setting_that_may_repair_it(content, repair, says):
    refused = validate_bytes(content)
    assert isinstance(refused, Invalid)
    assert remedy(refused, Route(name="shop", repair=repair)).endswith(says)
