"""Who somebody turned out to be, and what the body must still prove of it.

It knows neither how callers are recognised nor what they ask.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from bridge.domain.callers import Caller


class BodySignatureCheck(Protocol):
    """What is learned from the body of a request: whether it is the one that was signed."""

    @property
    def certain(self) -> bool:
        """Whether the caller is known already; where not, `finish` decides, and nothing may be told or noted before."""

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body, as it came over the wire."""

    def finish(self) -> None:
        """Take note that the body has ended; raise Unauthenticated where it is not the one that was signed."""


class UnsignedBody:
    """The proof of callers that sign nothing: any body is theirs."""

    certain = True

    def feed(self, piece: bytes) -> None:
        """Take any piece."""

    def finish(self) -> None:
        """Take any body."""


UNSIGNED_BODY = UnsignedBody()


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthResult:
    """A caller, and the proof that every body must pass before anything of it counts."""

    caller: Caller
    body: BodySignatureCheck = UNSIGNED_BODY

    def heard(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Return the pieces of a body, each fed to the proof; whoever has read them all calls `body.finish`."""
        return pieces if self.body is UNSIGNED_BODY else self._fed(pieces)

    async def _fed(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self.body.feed(piece)
            yield piece
