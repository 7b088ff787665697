"""The size limit of responses from the admin API."""

from bridge.commands.admin_client import MAX_RESPONSE_BYTES
from bridge.store.restore_pause import LISTED_REPORTS
from bridge.store.schema import NAME_LENGTH


def test_all_uncertain_reports_that_are_listed_fit_into_one_answer_however_long_their_names_are():
    of_a_character, beside_the_name = len("测".encode()), 512
    assert LISTED_REPORTS * (NAME_LENGTH * of_a_character + beside_the_name) < MAX_RESPONSE_BYTES


def test_a_build_of_tens_of_thousands_of_reports_fits_into_one_answer():
    assert MAX_RESPONSE_BYTES > 50_000 * 1024
