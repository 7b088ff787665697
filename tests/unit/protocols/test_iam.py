import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.outcomes import CredentialsRejected, OutcomeUnknown, Rejected, Throttled
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.iam import (
    MAX_TOKEN_CHARACTERS,
    Login,
    Token,
    ValidToken,
    is_project_id,
    read_token,
    read_validation,
    token_request,
)

NOW = int(datetime(2026, 5, 4, 3, 0, tzinfo=UTC).timestamp()) * 1_000_000
DAY = 86_400 * 1_000_000
HOUR = 3_600 * 1_000_000
PROJECT_ID = "0e7e5c1b6f800f2a2f4dc0098e5b7d5f"
BODY = {
    "token": {
        "expires_at": "2026-05-05T03:00:00.000000Z",
        "issued_at": "2026-05-04T03:00:00.000000Z",
        "methods": ["password"],
        "project": {"domain": {"id": "d", "name": "firm"}, "id": PROJECT_ID, "name": "cn-north-4"},
        "user": {"domain": {"id": "d", "name": "firm"}, "id": "u1", "name": "ci"},
    }
}


def answer(status, body=None, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(status=status, headers=named, body=json.dumps(body).encode(), received_at=NOW)


@pytest.mark.parametrize(
    ("project", "scope"), [("cn-north-4", {"name": "cn-north-4"}), (PROJECT_ID, {"id": PROJECT_ID})]
)
def test_a_token_is_asked_for_as_the_reference_says(project, scope):
    body = json.loads(token_request(Login(user="ci", password="pw", domain="firm", project=project)))

    assert body == {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": "ci", "password": "pw", "domain": {"name": "firm"}}},
            },
            "scope": {"project": scope},
        }
    }


def test_a_token_comes_in_a_header_and_its_end_in_the_body():
    assert read_token(answer(201, BODY, x_subject_token="t0ken")) == Token(token="t0ken", expires_at=NOW + DAY)


def test_the_end_of_a_token_is_read_on_our_clock():
    an_hour_ahead = answer(201, BODY, x_subject_token="t", date="Mon, 04 May 2026 04:00:00 GMT")

    assert read_token(an_hour_ahead).expires_at == NOW + DAY - HOUR


@pytest.mark.parametrize(
    ("body", "token"),
    [
        (BODY, ""),
        (BODY, "t" * (MAX_TOKEN_CHARACTERS + 1)),
        ({"token": {}}, "t"),
        ({"token": {"expires_at": "soon"}}, "t"),
        ({"token": {"expires_at": 12}}, "t"),
        ([], "t"),
    ],
)
def test_half_a_token_is_none(body, token):
    assert isinstance(read_token(answer(201, body, x_subject_token=token)), OutcomeUnknown)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_rejected_login_is_one_of_credentials_whatever_the_status(status):
    body = {"error": {"code": status, "message": "The username or password is wrong.", "title": "Unauthorized"}}

    assert read_token(answer(status, body)) == CredentialsRejected(message="The username or password is wrong.")


def test_a_busy_iam_and_a_broken_one_say_nothing_of_the_credentials():
    assert read_token(answer(429, {}, retry_after="7")) == Throttled(
        message="HTTP 429 without a readable message", retry_after_seconds=7.0
    )
    assert read_token(answer(503)).status == 503
    assert read_token(answer(200, BODY, x_subject_token="t")).status == 200


def test_a_good_token_says_until_when_and_whose_it_is():
    assert read_validation(answer(200, BODY)) == ValidToken(
        expires_at=NOW + DAY, user="ci", domain="firm", project_id=PROJECT_ID, project="cn-north-4"
    )


def test_a_token_of_a_whole_account_names_no_project():
    body = {"token": {key: value for key, value in BODY["token"].items() if key != "project"}}

    assert read_validation(answer(200, body)).project_id is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, CredentialsRejected),
        (403, Rejected),
        (404, Rejected),
        (429, Throttled),
        (500, OutcomeUnknown),
        (204, OutcomeUnknown),
    ],
)
def test_what_iam_says_of_other_tokens_keeps_its_kind(status, kind):
    assert isinstance(read_validation(answer(status, {"error_msg": "no"})), kind)


def test_a_validation_without_an_end_is_not_understood():
    assert isinstance(read_validation(answer(200, {"token": {}})), OutcomeUnknown)


@pytest.mark.parametrize(("project", "is_id"), [(PROJECT_ID, True), ("cn-north-4", False), (PROJECT_ID.upper(), False)])
def test_ids_of_projects_are_told_from_names(project, is_id):
    assert is_project_id(project) is is_id


def test_neither_a_login_nor_a_token_shows_its_secret():
    login = Login(user="ci", password="pw-canary", domain="firm", project="p")

    assert "canary" not in repr(login) + repr(Token(token="t-canary", expires_at=1))


_ENDS = [
    "2026-05-05T03:00:00.000000Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "2026-W01",
    "",
    "x" * 99,
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(_ENDS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(sorted(BODY["token"])), inner),
    max_leaves=8,
)
_BODIES = st.binary(max_size=50) | st.builds(lambda body: json.dumps({"token": body}).encode(), _JSON)
_HEADERS = st.dictionaries(st.sampled_from(["x-subject-token", "date", "retry-after"]), st.text(max_size=30))


@pytest.mark.parametrize("read", [read_token, read_validation])
@given(status=st.integers(0, 999), body=_BODIES, headers=_HEADERS)
def test_whatever_iam_answers_comes_to_an_outcome(read, status, body, headers):
    outcome = read(HttpResponse(status=status, headers=headers, body=body, received_at=NOW))
    assert isinstance(outcome, Token | ValidToken | CredentialsRejected | Rejected | Throttled | OutcomeUnknown)
