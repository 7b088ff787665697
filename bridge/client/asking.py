"""One call to a service of CodeArts, made with the bridge's rights.

It knows no service: what is asked, and what the answer means, is said elsewhere.
"""

from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass

from yarl import URL

from bridge.client.account import Account, Failure, Headers
from bridge.client.session import MAX_ANSWER_BYTES, USER_AGENT, GuardedSession, Limits, Request
from bridge.domain.outcomes import NotSent, Unknown
from bridge.protocols.answers import Answer
from bridge.protocols.codearts import credentials_refused
from bridge.protocols.signing import EMPTY_SHA256, UNSIGNED_PAYLOAD, RawRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """What is sent along, and no JSON: `read` yields its `size` bytes anew for every try."""

    content_type: str
    size: int
    read: Callable[[], AsyncIterable[bytes]]
    limits: Limits


class Asking:
    """The service at `endpoint`, asked as `account`."""

    def __init__(self, session: GuardedSession, endpoint: str, account: Account) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._account = account

    @property
    def max_body_bytes(self) -> int | None:
        """The largest body that a call may have; None: nothing is known of a limit."""
        return self._account.max_body_bytes

    async def ask(
        self, method: str, target: str, body: Body | None = None, *, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> Answer | Failure:
        """Return the answer to `method` at `target`, a path and perhaps a query, quoted as they are sent."""
        url = URL(self._endpoint + target, encoded=True)
        host = ("Host", url.host_port_subcomponent or "")
        raw = RawRequest(method=method, path=url.raw_path, query=url.raw_query_string, headers=(host,))
        shared = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        if body is not None:
            shared |= {"Content-Type": body.content_type, "Content-Length": str(body.size)}

        def send(rights: Headers) -> Awaitable[Answer | NotSent | Unknown]:
            headers = dict((*shared.items(), host, *rights))
            pieces, limits = (body.read(), body.limits) if body is not None else (None, None)
            return self._session.send(
                Request(
                    method=method,
                    url=url,
                    headers=headers,
                    body=pieces,
                    limits=limits,
                    max_answer_bytes=max_answer_bytes,
                )
            )

        digest = EMPTY_SHA256 if body is None else UNSIGNED_PAYLOAD
        return await self._account.call(raw, send, _judge, payload_sha256=digest)


def _judge(outcome: Answer | NotSent | Unknown) -> str | None:
    """Say what an answer tells of the credentials; anything but a refusal of theirs shows that they are taken."""
    if not isinstance(outcome, Answer) or outcome.status >= 500:
        return None
    return credentials_refused(outcome)
