"""What the bridge asks of CodeArts Build about a build, asked over a guarded session.

It knows neither how often to ask nor what follows from the answer.
"""

from bridge.client.account import Account
from bridge.client.asking import Asking
from bridge.client.session import GuardedSession
from bridge.domain.outcomes import DescribeOutcome, PollOutcome
from bridge.protocols import codearts
from bridge.protocols.answers import Answer


class CodeArts:
    """CodeArts Build at `endpoint`, asked as `account`; every failure is an outcome."""

    def __init__(self, session: GuardedSession, endpoint: str, account: Account) -> None:
        self._session = session
        self._asking = Asking(session, endpoint, account)
        self._record_paths = (codearts.record_info_path, codearts.record_info_v4_path)  # the one that works first

    async def build_info(self, job_id: str, build_no: int) -> PollOutcome:
        """Ask whether the build runs, and how it ended."""
        return await self._session.observed("build_info", self._build_info(job_id, build_no))

    async def record_info(self, job_id: str, build_no: int) -> DescribeOutcome:
        """Ask for branch, commit and the like; where a region has only one of the two twins, that one is found."""
        return await self._session.observed("record_info", self._record_info(job_id, build_no))

    async def _build_info(self, job_id: str, build_no: int) -> PollOutcome:
        answer = await self._asking.ask("GET", codearts.build_info_path(job_id, build_no))
        return codearts.read_build_info(answer) if isinstance(answer, Answer) else answer

    async def _record_info(self, job_id: str, build_no: int) -> DescribeOutcome:
        first, twin = self._record_paths
        answer = await self._asking.ask("GET", first(job_id, build_no))
        if isinstance(answer, Answer) and codearts.is_no_such_api(answer):
            answer = await self._asking.ask("GET", twin(job_id, build_no))
            if isinstance(answer, Answer) and not codearts.is_no_such_api(answer):
                self._record_paths = (twin, first)
        return codearts.read_record_info(answer) if isinstance(answer, Answer) else answer
