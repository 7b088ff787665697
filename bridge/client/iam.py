"""IAM's two calls, asked over a guarded session: a token for a password, and whether a token is good.

It knows neither how long an answer may be relied on nor whose tokens these are.
"""

from yarl import URL

from bridge.client.session import USER_AGENT, GuardedSession, Request
from bridge.domain.outcomes import NotSent, OutcomeUnknown
from bridge.protocols import iam
from bridge.protocols.http_response import HttpResponse

IAM_HEADER_BYTES = 128 * 1024
"""What the session with IAM must take in one header line: tokens are documented up to 100,000 characters."""

JSON_TYPE = "application/json;charset=utf8"  # as the references write it


class Iam:
    """IAM at `endpoint`; the session must take headers of IAM_HEADER_BYTES."""

    def __init__(self, session: GuardedSession, endpoint: str) -> None:
        self._session = session
        self._url = URL(f"{endpoint.rstrip('/')}{iam.TOKENS_PATH}?{iam.TOKENS_QUERY}", encoded=True)

    async def log_in(self, login: iam.Login) -> iam.TokenOutcome | NotSent:
        """Ask for a token with a password."""
        return await self._session.observed("log_in", self._log_in(login))

    async def validate(self, token: str, *, asker: str) -> iam.ValidationOutcome | NotSent:
        """Ask whether `token` is good, in the name of whoever holds the token `asker`; both may be the same."""
        return await self._session.observed("validate", self._validate(token, asker))

    async def _log_in(self, login: iam.Login) -> iam.TokenOutcome | NotSent:
        headers = {"Content-Type": JSON_TYPE}
        answer = await self._send("POST", headers, iam.token_request(login), secrets=(login.password,))
        return iam.read_token(answer) if isinstance(answer, HttpResponse) else answer

    async def _validate(self, token: str, asker: str) -> iam.ValidationOutcome | NotSent:
        headers = {"Content-Type": JSON_TYPE, iam.AUTH_HEADER: asker, iam.SUBJECT_HEADER: token}
        answer = await self._send("GET", headers, None)
        return iam.read_validation(answer) if isinstance(answer, HttpResponse) else answer

    async def _send(
        self, method: str, headers: dict[str, str], body: bytes | None, secrets: tuple[str, ...] = ()
    ) -> HttpResponse | NotSent | OutcomeUnknown:
        shared = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        headers = {**shared, **headers}
        request = Request(method=method, url=self._url, headers=headers, body=body, secrets=secrets)
        return await self._session.send(request)
