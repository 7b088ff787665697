"""IAM: a token for a password, and whether a token is valid.

Source: "Obtaining a User Token Through Password Authentication" and "Verifying a Token" of the IAM API reference.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta

from bridge.domain.outcomes import CredentialsRejected, OutcomeUnknown, Rejected, Throttled
from bridge.protocols.http_response import (
    HttpResponse,
    describe_error,
    read_error,
    read_json,
    read_object,
    retry_after_seconds,
    scalar,
)
from bridge.values import dataclass

TOKENS_PATH = "/v3/auth/tokens"
TOKENS_QUERY = "nocatalog=true"  # without it the response lists all services of all regions, over 100 KB
AUTH_HEADER = "X-Auth-Token"
SUBJECT_HEADER = "X-Subject-Token"

MAX_TOKEN_CHARACTERS = 100_000
"""The longest token that the references allow."""

MAX_NAME_CHARACTERS = 120
"""Longest name of a user, project or account; IAM's own limit is 64."""

_PROJECT_ID = re.compile(r"[0-9a-f]{32}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """Credentials for a token, and its project: a name (`cn-north-4`) or an id."""

    user: str
    password: str = field(repr=False)
    domain: str
    project: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token and its expiry on our clock (microseconds UTC)."""

    token: str = field(repr=False)
    expires_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidToken:
    """A token that IAM confirmed: its expiry on our clock (microseconds UTC) and its owner."""

    expires_at: int
    user: str | None
    domain: str | None
    project_id: str | None  # None for an account's token; CodeArts accepts only a project's
    project: str | None  # its name


TokenOutcome = Token | CredentialsRejected | Throttled | OutcomeUnknown
ValidationOutcome = ValidToken | CredentialsRejected | Rejected | Throttled | OutcomeUnknown


def is_project_id(project: str) -> bool:
    """Return whether `project` is an id; otherwise it is a name."""
    return _PROJECT_ID.fullmatch(project) is not None


def token_request(login: Login) -> bytes:
    """Return the body of POST /v3/auth/tokens for a project-scoped token; CodeArts accepts no others."""
    user = {"name": login.user, "password": login.password, "domain": {"name": login.domain}}
    project = {"id" if is_project_id(login.project) else "name": login.project}
    identity = {"methods": ["password"], "password": {"user": user}}
    return json.dumps({"auth": {"identity": identity, "scope": {"project": project}}}).encode()


def read_token(response: HttpResponse) -> TokenOutcome:
    """Return the outcome of POST /v3/auth/tokens; CredentialsRejected if only other settings can help."""
    if response.status != 201:
        failure = _failure(response)
        return CredentialsRejected(message=failure.message) if isinstance(failure, Rejected) else failure
    token = response.headers.get(SUBJECT_HEADER.lower(), "").strip()
    expires_at = _expires_at(response)
    if not token or len(token) > MAX_TOKEN_CHARACTERS or expires_at is None:
        return OutcomeUnknown(status=201, message="IAM returned HTTP 201 without a token or its expiry.")
    return Token(token=token, expires_at=expires_at)


def read_validation(response: HttpResponse) -> ValidationOutcome:
    """Return the outcome of GET /v3/auth/tokens.

    CredentialsRejected on 401. Rejected with 404 if the token does not exist or has expired; with 403 if the requester
    may not ask about other users' tokens. For a token that asks about itself, each of them means that it is not valid.
    """
    if response.status != 200:
        return _failure(response)
    expires_at = _expires_at(response)
    if expires_at is None:
        return OutcomeUnknown(status=200, message="IAM returned HTTP 200 without the token's expiry.")
    token = _object(read_object(response.body).get("token"))
    user = _object(token.get("user"))
    project = _object(token.get("project"))

    def text(value: object) -> str | None:
        return scalar(value, limit=MAX_NAME_CHARACTERS)

    return ValidToken(
        expires_at=expires_at,
        user=text(user.get("name")),
        domain=text(_object(user.get("domain")).get("name")),
        project_id=text(project.get("id")),
        project=text(project.get("name")),
    )


def _failure(response: HttpResponse) -> CredentialsRejected | Rejected | Throttled | OutcomeUnknown:
    code, text = read_error(read_json(response.body))
    message = describe_error(response, f"{code}: {text}" if code and text else text or code)
    wait = retry_after_seconds(response)
    if response.status == 401:
        return CredentialsRejected(message=message)
    if response.status == 429:
        return Throttled(message=message, retry_after_seconds=wait)
    if 400 <= response.status < 500:
        return Rejected(status=response.status, message=message, retry_after_seconds=wait)
    return OutcomeUnknown(status=response.status, message=message, retry_after_seconds=wait)


def _expires_at(response: HttpResponse) -> int | None:
    """Return the token's expiry on our clock, corrected by the response's Date: IAM's clock may be hours off."""
    written = _object(read_object(response.body).get("token")).get("expires_at")
    try:
        ends = datetime.fromisoformat(written) if isinstance(written, str) else None
    except ValueError:
        return None
    if ends is None:
        return None
    aware = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1) - response.dated_at + response.received_at


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
