"""What the spool and the archive need of S3: objects under keys, below a prefix of one bucket.

It knows no call; `bridge.client.bucket` makes them.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol

from bridge.domain.outcomes import PutOutcome
from bridge.protocols.s3_documents import Listing

Source = Callable[[], AsyncGenerator[bytes]]
"""Opens the bytes anew for each try."""


class ObjectStore(Protocol):
    """Methods that return no outcome raise Unavailable where S3 refuses or does not answer."""

    async def put(self, key: str, source: Source, *, size: int, sha256: str, metadata: Mapping[str, str]) -> PutOutcome:
        """Keep `size` bytes of hex digest `sha256` under `key`, with `metadata` (ASCII, at most 2 KB) beside them."""

    def read(self, key: str) -> AsyncGenerator[bytes]:
        """Yield the object in pieces.

        Raises:
            FileNotFoundError: S3 itself says that there is no such key; `strerror` holds its words.
            OddAnswer: The answer is neither the object nor says that it is missing.
            Unavailable: S3 does not answer, or is overloaded.
        """

    async def metadata(self, key: str) -> dict[str, str] | None:
        """Return what stands beside an object, None where it is not there."""

    async def delete(self, key: str) -> None:
        """Remove an object, if it is there."""

    async def move(self, key: str, to: str) -> None:
        """Let what is kept under `key` be kept under `to` instead, with its metadata."""

    async def list(self, below: str, *, following: str | None = None, folders: bool = False) -> Listing:
        """Return one page of the keys that begin with `below`; `folders`: what lies deeper, as one prefix each."""

    async def link(self, key: str, *, disposition: str, seconds: int) -> str:
        """Return a URL by which anybody can download the object for `seconds`, as `disposition` (RFC 6266) says."""
