"""The address of the admin API, and the size limit of its responses."""

import pytest

from bridge.commands.admin_client import MAX_RESPONSE_BYTES, AdminAddress
from bridge.errors import BridgeError
from bridge.settings.model import AdminSettings
from bridge.store.restore_pause import LISTED_REPORTS
from bridge.store.schema import NAME_LENGTH


def test_all_uncertain_reports_that_are_listed_fit_into_one_answer_however_long_their_names_are():
    of_a_character, beside_the_name = len("测".encode()), 512
    assert LISTED_REPORTS * (NAME_LENGTH * of_a_character + beside_the_name) < MAX_RESPONSE_BYTES


def test_a_build_of_tens_of_thousands_of_reports_fits_into_one_answer():
    assert MAX_RESPONSE_BYTES > 50_000 * 1024


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8081"),
        ("::", "http://[::1]:8081"),
        ("10.0.0.7", "http://10.0.0.7:8081"),
        ("fd00::7", "http://[fd00::7]:8081"),
    ],
)
def test_a_listener_at_all_addresses_is_called_at_this_machine(host, url):
    assert AdminAddress.of(AdminSettings(host=host, port=8081)) == AdminAddress(url=url)


@pytest.mark.parametrize("url", ["bridge.example:8081", "ftp://bridge.example", "http://user:pw@host", "http://[host"])
def test_what_is_no_address_of_the_admin_api_is_named(url):
    with pytest.raises(BridgeError, match="BRIDGE_ADMIN_URL is not an address"):
        AdminAddress.from_environment({"BRIDGE_ADMIN_URL": url})
