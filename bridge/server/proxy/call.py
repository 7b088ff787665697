"""One call under way: what is known of it so far, for those who carry it and for the line in the log.

It decides nothing.
"""

from dataclasses import dataclass

from aiohttp import web

from bridge.domain.callers import Caller
from bridge.server.http.answers import REQUEST_ID, legible
from bridge.server.proxy.rights import Rights
from bridge.server.proxy.target import Target


@dataclass(kw_only=True, slots=True)
class Call:
    """A request that came, and what has been found out about it."""

    request: web.Request
    began: float  # on the event loop's clock
    target: Target | None = None
    caller: Caller | None = None
    rights: Rights | None = None
    signed_body: bytes | None = None  # read whole, because its signature had to be proven
    status: int | None = None  # None: the caller went away first
    code: str = ""  # of our own answer
    passed_bytes: int = 0

    @property
    def upstream(self) -> str:
        """The service that it is for, as far as that is known."""
        return self.target.upstream.value if self.target else "none"

    def line(self, now: float) -> dict[str, object]:
        """Return what the log says of it at `now` on the event loop's clock: no query, no header, no body."""
        return {
            "method": self.request.method,
            "path": legible(self.target.path if self.target else self.request.raw_path.partition("?")[0]),
            "upstream": self.upstream,
            "status": self.status,
            "code": self.code,
            "rights": self.rights.value if self.rights else None,
            "bytes": self.passed_bytes,
            "seconds": round(now - self.began, 3),
            "caller": self.caller.name if self.caller else None,
            "address": self.request.remote,
            "request_id": self.request[REQUEST_ID],
        }
