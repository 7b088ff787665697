"""The webhook: a client that has its secret can request that a build is polled at once. The notice decides nothing.

CodeArts documents no payload, so job id and build number are searched anywhere in the query and the body.
"""

import hmac
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Final

import structlog
from aiohttp import web
from multipart import parse_form_data  # type: ignore[import-untyped]  # the package has no type marker

from bridge.domain.callers import hash_token
from bridge.domain.routing import canonical_job_id
from bridge.errors import NotFound, Unauthenticated
from bridge.protocols.http_response import Json, read_json
from bridge.server.auth.authenticator import bearer_token
from bridge.server.http.protocol import mark_verified
from bridge.server.http.requests import MAX_BUILD_NO, content_of, network_of, read_small_body
from bridge.server.http.responses import json_response
from bridge.store.leases import PollRequest

WEBHOOK_PATH: Final = "/hooks/codearts"
WEBHOOK_HEADER: Final = "X-Bridge-Hook"

MAX_NOTICE_BYTES: Final = 64 * 1024  # more than an event with a whole list of commits
MAX_DEPTH: Final = 16  # an event in an envelope in an envelope has a depth of 6

_JOB_NAMES: Final = frozenset({"jobid"})
_NUMBER_NAMES: Final = frozenset({"buildno", "buildnumber", "buildnum"})
"""Normalized: job_id, jobId and "job": {"id": …} are one name; the same holds for the number."""

_JOB_ID: Final = re.compile(r"[0-9a-zA-Z]{32}", re.ASCII)
_NUMBER: Final = re.compile(r"0*[1-9][0-9]{0,9}", re.ASCII)

_log = structlog.get_logger(__name__)

RequestPoll = Callable[[PollRequest], Awaitable[int]]
"""Makes the open builds that match due for a poll; returns how many match."""


class WebhookHandler:
    """Answers WEBHOOK_PATH to clients that send one of `secrets`; without secrets there is no webhook."""

    def __init__(self, secrets: Sequence[str], request_poll: RequestPoll) -> None:
        self._hashes = tuple(hash_token(secret) for secret in secrets)
        self._request_poll = request_poll

    async def receive(self, request: web.Request) -> web.Response:
        """Answer 202 to every notice, also of unknown builds; raise NotFound, Unauthenticated or TooLarge."""
        if not self._hashes:
            raise NotFound("This bridge has no webhook. Set webhook.secret in its settings to enable it.")
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        if not self._is_secret(request.headers.get(WEBHOOK_HEADER, "") or bearer_token(request)):
            raise Unauthenticated(
                "The webhook's secret is missing or wrong. "
                f"Send the value of webhook.secret in the header {WEBHOOK_HEADER}."
            )
        mark_verified(request, network_of(request.remote))
        job_id, build_no = find_build_key(dict(request.query))
        if (job_id is None or build_no is None) and request.body_exists:
            job_id, build_no = find_build_key(dict(request.query), await _read_body(request))
        found = await self._request_poll(PollRequest(job_id=job_id, build_no=build_no)) if job_id else 0
        _log.info("webhook_received", job_id=job_id, build_no=build_no, builds=found, address=request.remote)
        return json_response({"status": "success", "result": _result(job_id, found), "error": None}, 202)

    def _is_secret(self, secret: str) -> bool:
        """Return whether this is one of the secrets; all are compared, so that the time reveals nothing."""
        presented = hash_token(secret)
        matches = [hmac.compare_digest(presented, known) for known in self._hashes]
        return bool(secret) and any(matches)


async def _read_body(request: web.Request) -> Json:
    remedy = "Name job_id and build_no in the query instead."
    body = await read_small_body(await content_of(request), max_bytes=MAX_NOTICE_BYTES, remedy=remedy)
    return read_notice(body, request.headers.get("Content-Type", ""))


def _result(job_id: str | None, found: int) -> str:
    if job_id is None:
        return "The notice has no job_id of 32 letters and digits, so no build is polled."
    if not found:
        return "The bridge has no open build that matches, so none is polled."
    return f"{found} open build{'' if found == 1 else 's'} will be polled now."


def read_notice(body: bytes, content_type: str) -> Json:
    """Return a body, JSON or a form whatever its content type, as one JSON value; an empty object if it is neither."""
    value = read_json(body)
    return value if isinstance(value, dict | list) else _read_form(body, content_type)


def find_build_key(*notices: Json) -> tuple[str | None, int | None]:
    """Return the first job id and the first build number in `notices`, outer values first; None if there is none."""
    job_id, build_no = None, None
    for names, value in (entry for notice in notices for entry in _entries(notice)):
        if job_id is None and not names.isdisjoint(_JOB_NAMES):
            job_id = _job_id(value)
        if build_no is None and not names.isdisjoint(_NUMBER_NAMES):
            build_no = _number(value)
    return job_id, build_no


def _read_form(body: bytes, content_type: str) -> dict[str, Json]:
    environ = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}
    try:
        fields, _ = parse_form_data(environ, memory_limit=MAX_NOTICE_BYTES, disk_limit=MAX_NOTICE_BYTES)
    except (ValueError, LookupError):  # malformed bytes, or an unknown charset
        return {}
    return {name: _parse_field(value) for name, value in fields.items()}


def _parse_field(field: str) -> Json:
    """Return the JSON in a form's field (`payload={…}`), or the field unchanged."""
    value = read_json(field.encode("utf-8", "replace")) if field.lstrip()[:1] in ("{", "[") else None
    return field if value is None else value


def _entries(value: Json) -> Iterator[tuple[frozenset[str], Json]]:
    """Yield each value in nested objects with its name, alone and prefixed with its parent's name, outer ones first."""
    queue: deque[tuple[str, Json, int]] = deque([("", value, 0)])
    while queue:
        parent, value, depth = queue.popleft()
        if isinstance(value, list) and depth < MAX_DEPTH:
            queue.extend((parent, member, depth + 1) for member in value)
        elif isinstance(value, Mapping) and depth < MAX_DEPTH:
            for key, member in value.items():
                name = key.replace("_", "").replace("-", "").casefold()
                yield frozenset({name, parent + name}), member
                queue.append((name, member, depth + 1))


def _job_id(value: Json) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return canonical_job_id(text) if _JOB_ID.fullmatch(text) else None


def _number(value: Json) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, str):
        text = value.strip()
        value = int(text) if _NUMBER.fullmatch(text) else 0
    return value if 1 <= value <= MAX_BUILD_NO else None
