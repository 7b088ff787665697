"""Uploads that are registered through TestNod's submission API as the bridge serves it.

Source: docs.testnod.com, "Submission API for uploading JUnit XML from CI". The build of such an upload is a submitted
build: its `job_id` is its route, and its `build_no` is `submitted_build_no` of the build_id.
"""

import re
from enum import StrEnum
from hashlib import sha256

from bridge.domain.build import SubmittedRun
from bridge.domain.instants import SECOND, Duration, Instant
from bridge.values import dataclass

URL_LIFETIME = Duration(300 * SECOND)
"""How long a PUT to the URL of a registered upload is accepted, as at TestNod."""

LATE_PUT = Duration(60 * SECOND)
"""A PUT that began before its URL expired may end so much later, unless its handler asks for more time."""

NEVER_UPLOADED = "the file was registered at the bridge, and its PUT did not come before the URL expired"

MAX_BUILD_NO_CHARACTERS = 63
"""The key of a build has 128 characters, and a route's name up to 64."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,62}", re.ASCII)
_OTHER = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_DIGEST_CHARACTERS = 20


class SubmissionState(StrEnum):
    """How far a registered upload is."""

    OPEN = "open"  # its file may still come
    STORED = "stored"  # its file was accepted
    FAILED = "failed"  # its file was rejected or never came, and TestNod is sent that


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSubmission:
    """A registration: the route that its token leads to, the run that it states, and the digest of its URL's secret."""

    route: str
    run: SubmittedRun
    secret_sha256: bytes
    caller: str
    caller_routes: tuple[str, ...] | None  # None: any route
    address: str
    request_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A registered upload. Its ids are those that the client gets as test_run_id and upload_id."""

    id: int
    build_id: int
    state: SubmissionState
    route: str
    build_no: str
    secret_sha256: bytes
    caller: str
    caller_routes: tuple[str, ...] | None
    expires_at: Instant
    file_sha256: str | None = None  # as received, once it was stored


def submitted_build_no(build_id: str) -> str:
    """Return a build_id as part of keys, paths and log lines: itself, or if it is long or odd, with a digest of it.

    The result is returned as it is, so that links and commands may name either.
    """
    if _PLAIN.fullmatch(build_id):
        return build_id
    digest = sha256(build_id.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]
    start = _OTHER.sub("-", build_id).strip("-._")[: MAX_BUILD_NO_CHARACTERS - _DIGEST_CHARACTERS - 1]
    return f"{start or 'build'}~{digest}"


def file_name_of(submission_id: int) -> str:
    """Return the name of the file of an upload; a PUT has none."""
    return f"upload-{submission_id}.xml"
