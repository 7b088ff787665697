"""IAM as values: asking for a token with a password, and asking whether somebody's token is good.

It follows "Obtaining a User Token Through Password Authentication" and "Verifying a Token" of the IAM API reference; it
knows neither sessions nor how long an answer may be relied on.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bridge.domain.outcomes import CredentialsRejected, OutcomeUnknown, Rejected, Throttled
from bridge.protocols.http_response import (
    HttpResponse,
    read_error,
    read_json,
    read_object,
    retry_after_seconds,
    say,
    scalar,
)

TOKENS_PATH = "/v3/auth/tokens"
TOKENS_QUERY = "nocatalog=true"  # without it the answer lists every service of every region, above 100 KB
AUTH_HEADER = "X-Auth-Token"
SUBJECT_HEADER = "X-Subject-Token"

MAX_TOKEN_CHARACTERS = 100_000
"""The longest token that the references allow."""

MAX_NAME_CHARACTERS = 120
"""Of a user, a project or an account: IAM's own limit is 64, and the ledger keeps no name that is much longer."""

_PROJECT_ID = re.compile(r"[0-9a-f]{32}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """Who asks for a token, and for which project: its name (`cn-north-4`) or its id."""

    user: str
    password: str = field(repr=False)
    domain: str
    project: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token, and when it ends on our clock (microseconds UTC)."""

    token: str = field(repr=False)
    expires_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidToken:
    """IAM says that a token is good: until when on our clock (microseconds UTC), and whose it is."""

    expires_at: int
    user_id: str | None
    user: str | None
    domain: str | None
    project_id: str | None  # None for a token of a whole account: CodeArts takes only a project's
    project: str | None  # its name


TokenOutcome = Token | CredentialsRejected | Throttled | OutcomeUnknown
ValidationOutcome = ValidToken | CredentialsRejected | Rejected | Throttled | OutcomeUnknown


def is_project_id(project: str) -> bool:
    """Tell whether `project` is an id, else it is a name."""
    return _PROJECT_ID.fullmatch(project) is not None


def token_request(login: Login) -> bytes:
    """Return the body of POST /v3/auth/tokens for a project-scoped token; others do not serve at CodeArts."""
    user = {"name": login.user, "password": login.password, "domain": {"name": login.domain}}
    project = {"id" if is_project_id(login.project) else "name": login.project}
    identity = {"methods": ["password"], "password": {"user": user}}
    return json.dumps({"auth": {"identity": identity, "scope": {"project": project}}}).encode()


def read_token(answer: HttpResponse) -> TokenOutcome:
    """Say what an answer to POST /v3/auth/tokens means; what only other settings can mend is Unauthorized."""
    if answer.status != 201:
        failure = _failure(answer)
        return CredentialsRejected(message=failure.message) if isinstance(failure, Rejected) else failure
    token = answer.headers.get(SUBJECT_HEADER.lower(), "").strip()
    expires_at = _expires_at(answer)
    if not token or len(token) > MAX_TOKEN_CHARACTERS or expires_at is None:
        return OutcomeUnknown(status=201, message="IAM answered HTTP 201 without a token or without its end.")
    return Token(token=token, expires_at=expires_at)


def read_validation(answer: HttpResponse) -> ValidationOutcome:
    """Say what an answer to GET /v3/auth/tokens means.

    Unauthorized: 401. Rejected with 404: no such token (any more); with 403: the asker may not ask about others'. Who
    asks about a token in its own name learns from each of them that it is not good.
    """
    if answer.status != 200:
        return _failure(answer)
    expires_at = _expires_at(answer)
    if expires_at is None:
        return OutcomeUnknown(status=200, message="IAM answered HTTP 200 without the token's end.")
    token = _object(read_object(answer.body).get("token"))
    user = _object(token.get("user"))
    project = _object(token.get("project"))

    def text(value: object) -> str | None:
        return scalar(value, limit=MAX_NAME_CHARACTERS)

    return ValidToken(
        expires_at=expires_at,
        user_id=text(user.get("id")),
        user=text(user.get("name")),
        domain=text(_object(user.get("domain")).get("name")),
        project_id=text(project.get("id")),
        project=text(project.get("name")),
    )


def _failure(answer: HttpResponse) -> CredentialsRejected | Rejected | Throttled | OutcomeUnknown:
    code, text = read_error(read_json(answer.body))
    message = say(answer, f"{code}: {text}" if code and text else text or code)
    wait = retry_after_seconds(answer)
    if answer.status == 401:
        return CredentialsRejected(message=message)
    if answer.status == 429:
        return Throttled(message=message, retry_after_seconds=wait)
    if 400 <= answer.status < 500:
        return Rejected(status=answer.status, message=message, retry_after_seconds=wait)
    return OutcomeUnknown(status=answer.status, message=message, retry_after_seconds=wait)


def _expires_at(answer: HttpResponse) -> int | None:
    """Return the token's end on our clock: IAM's may be hours off, its Date says by how much."""
    written = _object(read_object(answer.body).get("token")).get("expires_at")
    try:
        ends = datetime.fromisoformat(written) if isinstance(written, str) else None
    except ValueError:
        return None
    if ends is None:
        return None
    aware = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1) - answer.dated_at + answer.received_at


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
