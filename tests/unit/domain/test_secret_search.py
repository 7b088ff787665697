from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.secret_search import ANCHOR_CHARACTERS, SecretSearch
from tests.support.writings import WRITINGS

SECRET = "k9$/x+Q~z 4f&<7>\"w'é=="
PLAIN = "canary-project-token-91ad"


@pytest.mark.parametrize("secret", [SECRET, PLAIN], ids=["with signs", "plain"])
@pytest.mark.parametrize("writing", list(WRITINGS))
def test_a_secret_is_replaced_in_every_writing(writing, secret):
    written = WRITINGS[writing](secret)
    shown = SecretSearch([secret]).redact(f"rejected: {written} (no such token)", "***")
    words = shown.replace('"', "").replace("'", "").replace("\\", "").split()
    assert "".join(words) == "rejected:***(nosuchtoken)"


@pytest.mark.parametrize("before", ["", "u", "user:"])
@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
def test_a_secret_in_base64_is_replaced_in_both_alphabets(encode, before):
    secret = "?>?>~~" * 10
    written = encode(f"{before}{secret}".encode()).decode()
    assert {"+", "/"} <= set(b64encode(secret.encode()).decode())
    shown = SecretSearch([secret]).redact(f"rejected: {written} (no such token)", "***")
    assert shown.replace("+", "") == "rejected: *** (no such token)"


@pytest.mark.parametrize("cut", [ANCHOR_CHARACTERS, ANCHOR_CHARACTERS + 3])
def test_the_beginning_and_the_end_of_a_long_secret_are_replaced(cut):
    search = SecretSearch([PLAIN])
    assert search.redact(f"token {PLAIN[:cut]}…", "***") == "token ***…"
    assert search.redact(f"token …{PLAIN[-cut:]}", "***") == "token …***"


def test_text_without_a_secret_stays_as_it_is():
    text = 'a &lt;b&gt; is 100 % "sure", see C:\\x\\y and %2F or \\u00e9'
    assert SecretSearch([SECRET, PLAIN, "short"]).redact(text, "***") == text


def test_short_secrets_are_ignored():
    assert SecretSearch(["abc", ""]).redact("abc abcabc", "***") == "abc abcabc"


def test_several_secrets_and_places_are_replaced_once_each():
    text = f"{PLAIN}{PLAIN} and {quote(SECRET)}"
    assert SecretSearch([PLAIN, SECRET]).redact(text, "*") == "** and *"


def test_may_be_in_is_false_for_ordinary_log_lines():
    assert not SecretSearch([PLAIN]).may_be_in('{"event": "upload_accepted", "reports": 3, "result": "3 reports"}')


@given(st.text(), st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=40))
def test_any_text_around_a_secret_keeps_its_own_characters(text, secret):
    shown = SecretSearch([secret]).redact(text + secret + text, "\0")
    assert secret not in shown
    assert SecretSearch([secret]).redact("", "\0") == ""


@given(st.text(), st.sampled_from(list(WRITINGS)), st.text())
def test_a_secret_is_found_between_any_other_text(before, writing, after):
    written = WRITINGS[writing](PLAIN)
    shown = SecretSearch([PLAIN]).redact(f"{before} {written} {after}", "\0")
    assert written not in shown
