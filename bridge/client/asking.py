"""One call without a body to a service of CodeArts, made with the bridge's rights.

It knows no service: what is asked, and what the answer means, is said elsewhere.
"""

from collections.abc import Awaitable

from yarl import URL

from bridge.client.account import Account, Failure, Headers
from bridge.client.session import USER_AGENT, GuardedSession, Request
from bridge.domain.outcomes import NotSent, Unknown
from bridge.protocols.answers import Answer
from bridge.protocols.codearts import credentials_refused
from bridge.protocols.signing import RawRequest


class Asking:
    """The service at `endpoint`, asked as `account`."""

    def __init__(self, session: GuardedSession, endpoint: str, account: Account) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._account = account

    async def ask(self, method: str, target: str) -> Answer | Failure:
        """Return the answer to `method` at `target`, a path and perhaps a query, quoted as they are sent."""
        url = URL(self._endpoint + target, encoded=True)
        host = ("Host", url.host_port_subcomponent or "")
        raw = RawRequest(method=method, path=url.raw_path, query=url.raw_query_string, headers=(host,))
        shared = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}

        def send(rights: Headers) -> Awaitable[Answer | NotSent | Unknown]:
            headers = dict((*shared.items(), host, *rights))
            return self._session.send(Request(method=method, url=url, headers=headers))

        return await self._account.call(raw, send, _judge)


def _judge(outcome: Answer | NotSent | Unknown) -> str | None:
    """Say what an answer tells of the credentials; anything but a refusal of theirs shows that they are taken."""
    if not isinstance(outcome, Answer) or outcome.status >= 500:
        return None
    return credentials_refused(outcome)
