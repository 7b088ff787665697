"""What operators reach until the settings change.

It knows no handler.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.domain.outcomes import PollOutcome
from bridge.server.upload.resend import QuarantineResender


class BuildInfoClient(Protocol):
    """Who can ask CodeArts whether a build runs (`bridge.client.codearts.CodeArts`)."""

    def build_info(self, job_id: str, build_no: int) -> Awaitable[PollOutcome]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminConfig:
    """Who may ask (`tokens`; without any, this machine), and what is asked; `codearts` None: there is nobody to ask."""

    tokens: Sequence[str]
    codearts: BuildInfoClient | None
    sending: QuarantineResender
    max_finalize_delay_us: int  # the longest that builds wait for earlier ones of their job
