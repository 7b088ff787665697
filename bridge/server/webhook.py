"""The hook: whoever knows its secret may say that a build is worth a look. It decides nothing.

It knows neither the ledger's tables nor what a look finds.
"""

import hmac
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Final

import structlog
from aiohttp import web
from multipart import parse_form_data  # type: ignore[import-untyped]  # the package brings no type marker

from bridge.domain.callers import hash_token
from bridge.errors import NotFound, Unauthenticated
from bridge.protocols.http_response import Json, read_json
from bridge.server.auth.authenticator import BEARER
from bridge.server.http.body import read_note
from bridge.server.http.parameters import MAX_BUILD_NO
from bridge.server.http.responses import json_answer
from bridge.store.leases import PollRequest

# What a notice from CodeArts names: a job and the number of a build, wherever in a query or body they stand.
#
# It knows neither HTTP nor the ledger. No payload is documented (facts: Notifications), so names are met, not specified.


MAX_NOTICE_BYTES: Final = 64 * 1024  # a notice of one build; an event with a whole commit list stays below
MAX_DEPTH: Final = 16  # an event in an envelope in an envelope is 6 deep

_JOB_NAMES: Final = frozenset({"jobid"})
_NUMBER_NAMES: Final = frozenset({"buildno", "buildnumber", "buildnum"})
"""job_id, jobId, "job": {"id": …} and their kin are one name; so are those of the number."""

_JOB_ID: Final = re.compile(r"[0-9a-zA-Z]{32}", re.ASCII)
_NUMBER: Final = re.compile(r"0*[1-9][0-9]{0,9}", re.ASCII)


def read_notice(body: bytes, content_type: str) -> Json:
    """Return what a body says, a form or JSON whatever it is called, as one JSON value; None where it is neither."""
    value = read_json(body)
    return value if isinstance(value, dict | list) else _read_form(body, content_type)


def names_in(*told: Json) -> tuple[str | None, int | None]:
    """Return the first job id and the first build number in `told`, outer values before inner ones; None for none."""
    job_id, build_no = None, None
    for name, value in (entry for one in told for entry in _entries(one)):
        if job_id is None and not name.isdisjoint(_JOB_NAMES):
            job_id = _job_id(value)
        if build_no is None and not name.isdisjoint(_NUMBER_NAMES):
            build_no = _number(value)
    return job_id, build_no


def _read_form(body: bytes, content_type: str) -> dict[str, Json]:
    environ = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}
    try:
        fields, _ = parse_form_data(environ, memory_limit=MAX_NOTICE_BYTES, disk_limit=MAX_NOTICE_BYTES)
    except (ValueError, LookupError):  # bytes or a charset that are none
        return {}
    return {name: _unpacked(value) for name, value in fields.items()}


def _unpacked(field: str) -> Json:
    """Return the JSON object in a form's field (`payload={…}`), or the field as it is."""
    value = read_json(field.encode("utf-8", "replace")) if field.lstrip()[:1] in ("{", "[") else None
    return field if value is None else value


def _entries(value: Json) -> Iterator[tuple[frozenset[str], Json]]:
    """Yield every value of objects in `value` with its own name, and with its parent's before it, outer ones first."""
    waiting: deque[tuple[str, Json, int]] = deque([("", value, 0)])
    while waiting:
        parent, value, depth = waiting.popleft()
        if isinstance(value, list) and depth < MAX_DEPTH:
            waiting.extend((parent, member, depth + 1) for member in value)
        elif isinstance(value, Mapping) and depth < MAX_DEPTH:
            for key, member in value.items():
                name = _folded(key)
                yield frozenset({name, parent + name}), member
                waiting.append((name, member, depth + 1))


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


def _job_id(value: Json) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text if _JOB_ID.fullmatch(text) else None


def _number(value: Json) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, str):
        text = value.strip()
        value = int(text) if _NUMBER.fullmatch(text) else 0
    return value if 1 <= value <= MAX_BUILD_NO else None


WEBHOOK_PATH: Final = "/hooks/codearts"
WEBHOOK_HEADER: Final = "X-Bridge-Hook"

_log = structlog.get_logger(__name__)

PollNow = Callable[[PollRequest], Awaitable[int]]
"""Lets the open builds that are meant be looked at; returns how many there are."""


class WebhookHandler:
    """Answers HOOK_PATH to those who send one of `secrets`; where there are none, there is no hook."""

    def __init__(self, secrets: Sequence[str], look: PollNow) -> None:
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
                f"The hook's secret is missing or wrong. Send what hook.secret says in the header {WEBHOOK_HEADER}."
            )
        job_id, build_no = names_in(dict(request.query))
        if (job_id is None or build_no is None) and request.body_exists:
            told = await _read(request)
            job_id, build_no = names_in(dict(request.query), told)
        found = await self._look(PollRequest(job_id=job_id, build_no=build_no)) if job_id else 0
        _log.info("hook", job_id=job_id, build_no=build_no, builds=found, address=request.remote)
        return json_answer({"status": "success", "result": _said(job_id, found), "error": None}, 202)

    def _knows(self, secret: str) -> bool:
        """Tell whether this is one of the secrets; all are compared, whichever matches."""
        presented = hash_token(secret)
        matches = [hmac.compare_digest(presented, known) for known in self._hashes]
        return bool(secret) and any(matches)


def _presented(request: web.Request) -> str:
    secret = request.headers.get(WEBHOOK_HEADER, "")
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
