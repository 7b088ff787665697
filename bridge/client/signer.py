"""Signs the URLs by which the bridge reaches its own bucket; nothing is sent from here but to whoever hands out keys.

It knows no bytes: what a URL is called with, bucket.py knows. aiobotocore finds the keys (settings, environment,
profile, the role of a container or an instance), renews those that run out and carries session tokens.
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import get_session  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from bridge.errors import Unavailable

URL_SECONDS = 900
"""How long a URL lives that the bridge calls itself: longer than the longest PUT may last."""

FALLBACK_REGION = "us-east-1"
"""What S3-compatible servers without regions sign with."""


LOOK_AGAIN_SECONDS = 10.0  # for keys that were not there: whoever hands them out may have started later


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Account:
    """`[s3]`: where the bucket is and who the bridge is there; empty is what the surroundings say."""

    endpoint_url: str = ""
    region: str = ""
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)


class Signer:
    """Presigns S3's operations while it is entered."""

    def __init__(self, account: S3Account) -> None:
        self._account = account
        self._ends = AsyncExitStack()
        self._client: Any = None
        self._opened_at = 0.0

    async def __aenter__(self) -> Self:
        self._opened_at = asyncio.get_running_loop().time()
        await self._open()
        return self

    async def _open(self) -> None:
        account, session = self._account, get_session()
        region = account.region or session.get_config_variable("region") or os.environ.get("AWS_REGION")
        config = AioConfig(
            signature_version="s3v4",
            # Whoever runs a server of its own seldom has a name for each bucket.
            s3={"addressing_style": "path" if account.endpoint_url else "virtual"},
            # The digest is checked before the last byte leaves; checksums of botocore's would have to be sent along.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = session.create_client(
            "s3",
            region_name=region or FALLBACK_REGION,
            endpoint_url=account.endpoint_url or None,
            aws_access_key_id=account.access_key_id or None,
            aws_secret_access_key=account.secret_access_key or None,
            config=config,
        )
        self._client = await self._ends.enter_async_context(client)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._ends.aclose()

    async def sign(self, operation: str, parameters: Mapping[str, object], *, seconds: int = URL_SECONDS) -> str:
        """Return a URL that does `operation` (its name and `parameters` as botocore has them) for `seconds`.

        Metadata and a copy's source are signed as headers, which must then be sent along. Raise Unavailable where
        there are no keys to sign with.
        """
        try:
            url: str = await self._client.generate_presigned_url(operation, Params=dict(parameters), ExpiresIn=seconds)
        except (BotoCoreError, ClientError) as error:
            await self._look_for_keys_again()
            raise Unavailable(
                f"No keys for S3 were found ({type(error).__name__}). Set [s3], or give the machine a role."
            ) from None
        return url

    async def _look_for_keys_again(self) -> None:
        """Open the client anew for the next call: one that began without keys would never have any."""
        now = asyncio.get_running_loop().time()
        if now - self._opened_at >= LOOK_AGAIN_SECONDS:
            self._opened_at = now  # of all who find no keys one looks
            await self._ends.aclose()
            await self._open()
