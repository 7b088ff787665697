"""What the bridge asks of CodeArts Build about a build, asked over a guarded session.

It knows neither how often to ask nor what follows from the answer.
"""

from collections.abc import Awaitable

from yarl import URL

from bridge.client.account import Account, Failure, Headers
from bridge.client.session import USER_AGENT, GuardedSession, Request
from bridge.domain.outcomes import DescribeOutcome, NotSent, PollOutcome, Unknown
from bridge.protocols import codearts
from bridge.protocols.answers import Answer
from bridge.protocols.signing import RawRequest


class CodeArts:
    """CodeArts Build at `endpoint`, asked as `account`; every failure is an outcome."""

    def __init__(self, session: GuardedSession, endpoint: str, account: Account) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._account = account
        self._record_paths = (codearts.record_info_path, codearts.record_info_v4_path)  # the one that works first

    async def build_info(self, job_id: str, build_no: int) -> PollOutcome:
        """Ask whether the build runs, and how it ended."""
        return await self._session.observed("build_info", self._build_info(job_id, build_no))

    async def record_info(self, job_id: str, build_no: int) -> DescribeOutcome:
        """Ask for branch, commit and the like; where a region has only one of the two twins, that one is found."""
        return await self._session.observed("record_info", self._record_info(job_id, build_no))

    async def _build_info(self, job_id: str, build_no: int) -> PollOutcome:
        answer = await self._get(codearts.build_info_path(job_id, build_no))
        return codearts.read_build_info(answer) if isinstance(answer, Answer) else answer

    async def _record_info(self, job_id: str, build_no: int) -> DescribeOutcome:
        first, twin = self._record_paths
        answer = await self._get(first(job_id, build_no))
        if isinstance(answer, Answer) and codearts.is_no_such_api(answer):
            answer = await self._get(twin(job_id, build_no))
            if isinstance(answer, Answer) and not codearts.is_no_such_api(answer):
                self._record_paths = (twin, first)
        return codearts.read_record_info(answer) if isinstance(answer, Answer) else answer

    async def _get(self, path: str) -> Answer | Failure:
        url = URL(self._endpoint + path, encoded=True)
        host = ("Host", url.host_port_subcomponent or "")
        raw = RawRequest(method="GET", path=url.raw_path, query=url.raw_query_string, headers=(host,))
        shared = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}

        def send(rights: Headers) -> Awaitable[Answer | NotSent | Unknown]:
            headers = dict((*shared.items(), host, *rights))
            return self._session.send(Request(method="GET", url=url, headers=headers))

        return await self._account.call(raw, send, _judge)


def _judge(outcome: Answer | NotSent | Unknown) -> str | None:
    """Say what an answer tells of the credentials; anything but a refusal of theirs shows that they are taken."""
    if not isinstance(outcome, Answer) or outcome.status >= 500:
        return None
    return codearts.credentials_refused(outcome)
