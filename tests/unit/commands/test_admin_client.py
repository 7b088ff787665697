"""The address of the admin API, and the size limit of its responses."""

import pytest

from bridge.commands.admin_client import MAX_RESPONSE_BYTES, AdminAddress
from bridge.errors import BridgeError
from bridge.store.restore_pause import LISTED_REPORTS
from bridge.store.schema import NAME_LENGTH


def test_all_uncertain_reports_that_are_listed_fit_into_one_answer_however_long_their_names_are():
    of_a_character, beside_the_name = len("测".encode()), 512
    assert LISTED_REPORTS * (NAME_LENGTH * of_a_character + beside_the_name) < MAX_RESPONSE_BYTES


def test_a_build_of_tens_of_thousands_of_reports_fits_into_one_answer():
    assert MAX_RESPONSE_BYTES > 50_000 * 1024


@pytest.mark.parametrize("url", ["bridge.example:8081", "ftp://bridge.example", "http://user:pw@host", "http://[host"])
def test_what_is_no_address_of_the_admin_api_is_named(url):
    with pytest.raises(BridgeError, match="BRIDGE_ADMIN_URL is not an address"):
        AdminAddress.from_environment({"BRIDGE_ADMIN_URL": url})
