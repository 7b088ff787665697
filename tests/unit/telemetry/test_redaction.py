import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.telemetry.redaction import MAX_TEXT_CHARACTERS, REDACTED, Redactor

CANARY = "canary4711"


@pytest.mark.parametrize(
    "text",
    [
        f"PUT https://s3.example/b/k?X-Amz-Signature={CANARY}&X-Amz-Date=1",
        f"https://s3.example/b/k?a=1&x-amz-credential={CANARY}%2F2024",
        f"https://s3.example/k?X-Amz-Security-Token={CANARY}",
        f"X-Amz-Signature%3D{CANARY}",
        f"Project-Token: {CANARY}",
        f"project-token={CANARY}",
        f"{{'Project-Token': '{CANARY}', 'Host': 'x'}}",
        f"('X-Auth-Token', '{CANARY}')",
        f"X-Amz-Signature%253D{CANARY}",
        f"X-Amz-Signature%2525253D{CANARY}",
        f"project-token&#61;{CANARY}&amp;x=1",
        f"X-Auth-Token%3A%20{CANARY}",
        f'{{"X-Auth-Token": "ab"{CANARY}"cd", "Host": "x"}}',
        f"https%3A%2F%2Fuser%3A{CANARY}%40host%2Fdb",
        f"Authorization: SDK-HMAC-SHA256 Access=AK, SignedHeaders=a;b, Signature={CANARY}",
        f"sent Bearer {CANARY}",
        f"postgresql://user:{CANARY}@host/db",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text):
    cleaned = Redactor().text(text)
    assert CANARY not in cleaned
    assert REDACTED in cleaned


def test_the_rest_of_a_url_stays():
    cleaned = Redactor().text(f"PUT https://s3.example/b/k?X-Amz-Signature={CANARY}&X-Amz-Date=1 failed")
    assert cleaned == f"PUT https://s3.example/b/k?X-Amz-Signature={REDACTED}&X-Amz-Date=1 failed"


@pytest.mark.parametrize("key", ["token", "project_token", "X-Auth-Token", "secret_key", "presigned_url", "password"])
def test_a_value_under_a_secret_key_is_taken_out(key):
    assert Redactor().value(key, CANARY) == REDACTED
    assert Redactor().value("call", {"headers": [{key: CANARY}]}) == {"headers": [{key: REDACTED}]}


@pytest.mark.parametrize("key", ["tokens_known", "secretary", "signature_count"])
def test_words_that_only_resemble_a_secret_key_are_left(key):
    assert Redactor().value(key, "plain") == "plain"


def test_registered_secrets_are_taken_out_wherever_they_stand():
    redactor = Redactor()
    redactor.register([CANARY, CANARY + "-longer", "short"])
    assert redactor.text(f"a{CANARY}b{CANARY}-longer") == f"a{REDACTED}b{REDACTED}"
    assert redactor.text("short") == "short"
    assert redactor.value("x", ValueError(CANARY)) == REDACTED


def test_a_registered_secret_is_taken_out_of_text_in_which_its_control_characters_are_escaped():
    redactor = Redactor()
    redactor.register(["canary\tof\ntwo lines"])
    assert redactor.text(r"not canary\tof\ntwo lines") == f"not {REDACTED}"


def test_a_secret_that_is_registered_later_is_taken_out_of_text_that_was_shown_before():
    redactor = Redactor()
    assert redactor.text(f"no {CANARY}") == f"no {CANARY}"
    redactor.register([CANARY])
    assert redactor.text(f"no {CANARY}") == f"no {REDACTED}"


def test_what_was_taken_out_once_is_not_mangled_by_the_next_look():
    redactor = Redactor()
    redactor.register([CANARY])
    assert redactor.text(f"Project-Token: {CANARY}, Host: x") == f"Project-Token: {REDACTED}, Host: x"


def test_numbers_stay_numbers():
    assert Redactor().value("size", {"a": 1, "b": 1.5, "c": True, "d": None}) == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
    }


def test_a_very_long_text_is_cut():
    assert len(Redactor().text("x" * 10 * MAX_TEXT_CHARACTERS)) == MAX_TEXT_CHARACTERS + 1


def test_control_characters_cannot_reach_a_terminal():
    assert Redactor().text("a\nb\x1b[31m\u202ec\ud800") == "a\\nb\\x1b[31m\\u202ec\\ud800"


@given(st.text(), st.text(alphabet="abcdef0123456789", min_size=8, max_size=20))
def test_any_text_becomes_one_line_that_can_be_written(text, secret):
    redactor = Redactor()
    redactor.register([secret])
    cleaned = redactor.text(text + secret + text)
    assert len(cleaned.splitlines()) <= 1
    cleaned.encode()
    assert secret not in cleaned


@pytest.mark.parametrize(
    ("line", "is_clean"),
    [
        ('{"build_no": 7, "fencing_token": 12}', True),
        ('{"build_no": 7, "fencing_token": "abc"}', False),
        ('{"fencing_token": 12, "token": "abc"}', False),
    ],
)
def test_a_number_of_a_lease_makes_no_line_suspicious(line, is_clean):
    assert Redactor().is_clean(line) is is_clean
