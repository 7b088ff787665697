"""IAM's two calls over a guarded session: a token for a password, and whether a token is valid."""

from yarl import URL

from bridge.client.session import USER_AGENT, GuardedSession, Request
from bridge.domain.outcomes import NotSent, OutcomeUnknown
from bridge.protocols import iam
from bridge.protocols.http_response import HttpResponse

IAM_HEADER_BYTES = 128 * 1024
"""Limit of a header line for sessions with IAM, whose tokens are documented up to 100,000 characters."""

JSON_TYPE = "application/json;charset=utf8"  # as in the API reference


class Iam:
    """IAM at `endpoint`; its session must accept headers of IAM_HEADER_BYTES."""

    def __init__(self, session: GuardedSession, endpoint: str) -> None:
        self._session = session
        self._url = URL(f"{endpoint.rstrip('/')}{iam.TOKENS_PATH}?{iam.TOKENS_QUERY}", encoded=True)

    async def log_in(self, login: iam.Login) -> iam.TokenOutcome | NotSent:
        """Return a token for a user's password."""
        return await self._session.observed("log_in", self._log_in(login))

    async def validate(self, token: str, *, requester: str) -> iam.ValidationOutcome | NotSent:
        """Return whether `token` is valid, asked with the rights of the token `requester`; both may be the same."""
        return await self._session.observed("validate", self._validate(token, requester))

    async def _log_in(self, login: iam.Login) -> iam.TokenOutcome | NotSent:
        headers = {"Content-Type": JSON_TYPE}
        response = await self._send("POST", headers, iam.token_request(login), secrets=(login.password,))
        return iam.read_token(response) if isinstance(response, HttpResponse) else response

    async def _validate(self, token: str, requester: str) -> iam.ValidationOutcome | NotSent:
        headers = {"Content-Type": JSON_TYPE, iam.AUTH_HEADER: requester, iam.SUBJECT_HEADER: token}
        response = await self._send("GET", headers, None)
        return iam.read_validation(response) if isinstance(response, HttpResponse) else response

    async def _send(
        self, method: str, headers: dict[str, str], body: bytes | None, secrets: tuple[str, ...] = ()
    ) -> HttpResponse | NotSent | OutcomeUnknown:
        shared = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        headers = {**shared, **headers}
        request = Request(method=method, url=self._url, headers=headers, body=body, secrets=secrets)
        return await self._session.send(request)
