"""What the worker needs of the world outside: the upstreams' calls, and the tokens of the routes.

It knows neither the ledger nor what the answers mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from bridge.client.codearts import CodeArts, CodeArtsCheck, CodeArtsReports
from bridge.client.presigned_put import PresignedUploader
from bridge.client.testnod import TestNod


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamClients:
    """TestNod, its storage, CodeArts Build and Check where they are configured, and each route's project token."""

    testnod: TestNod
    storage: PresignedUploader
    codearts: CodeArts | None
    check: CodeArtsCheck | None
    reports: CodeArtsReports | None  # where CodeArts is
    project_tokens: Mapping[str, SecretStr]

    def token(self, route: str) -> str:
        """Return the project token of `route` for the one call that sends it."""
        return self.project_tokens[route].get_secret_value()
