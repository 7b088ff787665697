"""The hook: whoever knows its secret may say that a build is worth a look. It decides nothing.

It knows neither the ledger's tables nor what a look finds.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from aiohttp import web

from bridge.domain.callers import hash_token
from bridge.errors import NotFound, Unauthenticated
from bridge.protocols.answers import Json
from bridge.server.callers.callers import BEARER
from bridge.server.http.answers import json_answer
from bridge.server.http.body import read_note
from bridge.server.notice import MAX_NOTICE_BYTES, names_in
from bridge.server.notice import read_body as read_notice
from bridge.store.hints import Look

HOOK_PATH: Final = "/hooks/codearts"
HOOK_HEADER: Final = "X-Bridge-Hook"

_log = structlog.get_logger(__name__)

LookNow = Callable[[Look], Awaitable[int]]
"""Lets the open builds that are meant be looked at; returns how many there are."""


class Hook:
    """Answers HOOK_PATH to those who send one of `secrets`; where there are none, there is no hook."""

    def __init__(self, secrets: Sequence[str], look: LookNow) -> None:
        self._hashes = tuple(hash_token(secret) for secret in secrets)
        self._look = look

    async def hear(self, request: web.Request) -> web.Response:
        """Answer 202 to every notice, of builds that nobody knows too; raise NotFound, Unauthenticated, TooLarge."""
        if not self._hashes:
            raise NotFound("This bridge has no hook. Set hook.secret in its settings to have one.")
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        if not self._knows(_presented(request)):
            raise Unauthenticated(
                f"The hook's secret is missing or wrong. Send what hook.secret says in the header {HOOK_HEADER}."
            )
        job_id, build_no = names_in(dict(request.query))
        if (job_id is None or build_no is None) and request.body_exists:
            told = await _read(request)
            job_id, build_no = names_in(dict(request.query), told)
        found = await self._look(Look(job_id=job_id, build_no=build_no)) if job_id else 0
        _log.info("hook", job_id=job_id, build_no=build_no, builds=found, address=request.remote)
        return json_answer({"status": "success", "result": _said(job_id, found), "error": None}, 202)

    def _knows(self, secret: str) -> bool:
        """Tell whether this is one of the secrets; all are compared, whichever matches."""
        presented = hash_token(secret)
        matches = [hmac.compare_digest(presented, known) for known in self._hashes]
        return bool(secret) and any(matches)


def _presented(request: web.Request) -> str:
    secret = request.headers.get(HOOK_HEADER, "")
    authorization = request.headers.get("Authorization", "")
    bearer = authorization[len(BEARER) :].strip() if authorization[: len(BEARER)].lower() == BEARER else ""
    return secret or bearer


async def _read(request: web.Request) -> Json:
    remedy = "Name job_id and build_no in the query instead."
    body = await read_note(request.content, max_bytes=MAX_NOTICE_BYTES, remedy=remedy)
    return read_notice(body, request.headers.get("Content-Type", ""))


def _said(job_id: str | None, found: int) -> str:
    if job_id is None:
        return "The notice names no job_id of 32 letters and digits, so nothing was looked at."
    if not found:
        return "No open build of that name is known here, so nothing was looked at."
    return f"{found} open build{'' if found == 1 else 's'} will be looked at now."
