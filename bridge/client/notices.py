"""Send notices to webhooks over guarded sessions: no redirects, addresses of the own network only if they are named."""

from dataclasses import field
from typing import Final

from pydantic import SecretStr
from yarl import URL

from bridge.client.session import USER_AGENT, GuardedSession, Request, Timeouts
from bridge.domain.instants import Instant
from bridge.domain.notices import Notice, secret_parts
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.notices import NoticeArrived, NoticeFormat, NoticeRejected, read_answer, to_request
from bridge.values import dataclass

LIMITS: Final = Timeouts(connect_seconds=5, read_seconds=10, total_seconds=15)
"""Chats answer in a second. The lease of a notice (SEND_LEASE) is longer than these limits."""

BLOCKED: Final = (
    "the host has an address that is not public; if it is yours, add it to outbound.no_proxy, or set its address as url"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeSink:
    """A webhook: `label` names it where people read, because its URL is a secret."""

    id: str
    label: str  # such as "notices[0] (oapi.dingtalk.com)"
    url: SecretStr
    format: NoticeFormat
    secret: SecretStr
    inside: bool = field(default=False)  # its address may be private


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeClient:
    """Two sessions: one for hosts of the own network, one that refuses addresses that are not public."""

    public: GuardedSession
    inside: GuardedSession

    async def send(self, sink: NoticeSink, notice: Notice, now: Instant) -> NoticeArrived | NoticeRejected:
        """Send one notice, signed at `now`; every failure is an outcome, and nothing is retried here."""
        url, secret = sink.url.get_secret_value(), sink.secret.get_secret_value()
        message = to_request(sink.format, notice, url=url, secret=secret, now=now)
        request = Request(
            method="POST",
            url=URL(message.url, encoded=True),
            headers={**message.headers, "User-Agent": USER_AGENT, "Accept": "application/json"},
            body=message.body,
            limits=LIMITS,
            secrets=(*secret_parts(message.url), *([secret] if secret else [])),
        )
        session = self.inside if sink.inside else self.public
        response = await session.send(request)
        if isinstance(response, HttpResponse):
            return read_answer(sink.format, response)
        return NoticeRejected(message=response.message)
