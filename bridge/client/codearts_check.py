"""What the bridge asks of CodeArts Check about a task, asked over a guarded session.

It knows neither when to ask nor what follows from the answer.
"""

from bridge.client.account import Account
from bridge.client.asking import Asking
from bridge.client.session import GuardedSession
from bridge.domain.outcomes import CheckOutcome
from bridge.domain.quality import QualityRules
from bridge.protocols.answers import Answer
from bridge.protocols.codearts_check import read_refresh, refresh_target


class CodeArtsCheck:
    """CodeArts Check at `endpoint`, asked as `account`; every failure is an outcome."""

    def __init__(self, session: GuardedSession, endpoint: str, account: Account) -> None:
        self._session = session
        self._asking = Asking(session, endpoint, account)

    async def refresh(self, rules: QualityRules, *, in_background: bool) -> CheckOutcome:
        """Ask for the report, or `in_background` only for having it made anew."""
        return await self._session.observed("refresh", self._refresh(rules, in_background=in_background))

    async def _refresh(self, rules: QualityRules, *, in_background: bool) -> CheckOutcome:
        answer = await self._asking.ask("PUT", refresh_target(rules, in_background=in_background))
        return read_refresh(answer, in_background=in_background) if isinstance(answer, Answer) else answer
