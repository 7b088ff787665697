"""TestNod's Submission API as values: what to send for each call, and what each answer means.

It follows docs.testnod.com, "Submission API for uploading JUnit XML from CI"; it knows neither sessions nor the ledger.
"""

import hashlib
import re
from urllib.parse import urlencode

from bridge.domain.build import RunParameters
from bridge.domain.instants import Instant
from bridge.domain.outcomes import (
    Conflict,
    FailureRecorded,
    FinalizeOutcome,
    OutcomeUnknown,
    ProjectMissing,
    Registered,
    RegisterOutcome,
    Rejected,
    RunEmpty,
    RunMissing,
    RunStatus,
    UnrecognizedResponse,
    UploadFailedOutcome,
)
from bridge.protocols.http_response import HttpResponse, clean, read_object, retry_after_seconds, say, scalar
from bridge.protocols.s3 import presigned_expiry

REGISTER_PATH = "/integrations/test_runs/upload"
FINALIZE_PATH = "/integrations/test_runs/finalize"
UPLOAD_FAILED_PATH = "/integrations/test_runs/upload_failed"

PROBE_BUILD_ID = "bridge-probe-7c1f0e52-never-a-build"
"""A build_id that no build has: finalizing it proves that TestNod and the token work, and leaves nothing behind."""

MAX_ID_CHARACTERS = 64
OWN_404 = ("project not found", "test run not found", "upload not found")
"""How the sentences of TestNod's own 404s begin; any other 404 comes from a wrong base_url or from a proxy."""

RUN_STATUSES = frozenset({"pending", "processing", "processed", "failed"})
"""All that finalize is documented to answer: any other word ends no run."""

TERMINAL_STATUSES = frozenset({"processed", "failed"})
"""All that upload_failed can answer: `failed`, or the state in which the upload had ended before."""

MAX_URL_CHARACTERS = 8000
"""Below the 8,190 bytes at which common servers refuse a request line."""

_USABLE_URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)

Fields = list[tuple[str, str]]


def register_form(run_parameters: RunParameters) -> Fields:
    """Return the fields of a register call; optional ones that say nothing are left out."""
    optional = {"branch": run_parameters.branch, "commit_sha": run_parameters.commit, "run_url": run_parameters.run_url}
    fields = [("test_run[metadata][build_id]", run_parameters.build_id)]
    fields += [(f"test_run[metadata][{name}]", value) for name, value in optional.items() if value]
    fields += [("tags[][value]", tag) for tag in run_parameters.tags]
    return fields


def finalize_form(build_id: str) -> Fields:
    """Return the fields of a finalize call."""
    return [("build_id", build_id)]


def upload_failed_form(*, test_run_id: str, upload_id: str, failure_message: str) -> Fields:
    """Return the fields of an upload_failed call; the message loses what must not leave the bridge."""
    return [("test_run_id", test_run_id), ("upload_id", upload_id), ("failure_message", clean(failure_message))]


def multipart(fields: Fields) -> tuple[str, bytes]:
    """Return Content-Type and body of `fields` (with ASCII names) as multipart/form-data, as curl's -F writes it.

    The boundary is a digest of the values, so none of them can hold it. No part carries a Content-Type: servers
    of this family take a part that has one for a file.
    """
    values = [(name.encode("ascii"), _octets(value)) for name, value in fields]
    boundary = hashlib.sha256(repr(values).encode()).hexdigest().encode("ascii")
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (boundary, name, value)
        for name, value in values
    ]
    body = b"".join([*parts, b"--%b--\r\n" % boundary])
    return f"multipart/form-data; boundary={boundary.decode('ascii')}", body


def urlencoded(fields: Fields) -> tuple[str, bytes]:
    """Return Content-Type and body of `fields` as a form in one line, as curl's -d writes it."""
    return "application/x-www-form-urlencoded", urlencode([(n, _octets(v)) for n, v in fields]).encode("ascii")


def read_register(answer: HttpResponse) -> RegisterOutcome:
    """Say what an answer to register means; expiry is counted on our clock from the answer on."""
    if 200 <= answer.status < 300:
        return _registered(answer)
    if answer.status == 409 and _own_words(answer):
        return Conflict(message=_message(answer))
    return _failure(answer)


def read_finalize(answer: HttpResponse) -> FinalizeOutcome:
    """Say what an answer to finalize means."""
    if answer.status == 200:
        status = _status(answer, RUN_STATUSES)
        return RunStatus(status=status) if status else _not_understood(answer, "a run status that it documents")
    if answer.status == 404 and "test run not found" in _message(answer).casefold():
        return RunMissing(message=_message(answer))
    if answer.status == 422 and "no uploads received" in _message(answer).casefold():
        return RunEmpty(message=_message(answer))
    return _failure(answer)


def read_upload_failed(answer: HttpResponse) -> UploadFailedOutcome:
    """Say what an answer to upload_failed means."""
    if answer.status == 200:
        status = _status(answer, TERMINAL_STATUSES)
        return (
            FailureRecorded(status=status) if status else _not_understood(answer, "an upload status that it documents")
        )
    return _failure(answer)


def _registered(answer: HttpResponse) -> Registered | OutcomeUnknown:
    fields = read_object(answer.body)
    test_run_id = scalar(fields.get("test_run_id"), limit=MAX_ID_CHARACTERS)
    upload_id = scalar(fields.get("upload_id"), limit=MAX_ID_CHARACTERS)
    if not (test_run_id and upload_id):
        return _not_understood(answer, "test_run_id and upload_id")
    presigned_url = _url(fields.get("presigned_url")) if answer.status == 201 else ""
    expires_at = presigned_expiry(presigned_url, now_us=answer.received_at, signed_at=answer.dated_at)
    return Registered(
        test_run_id=test_run_id,
        upload_id=upload_id,
        test_run_url=_url(fields.get("test_run_url")),
        presigned_url=presigned_url,
        expires_at=None if expires_at is None else Instant(expires_at),
        project_id=scalar(fields.get("project_id") or fields.get("project"), limit=MAX_ID_CHARACTERS) or "",
    )


def _failure(answer: HttpResponse) -> ProjectMissing | Rejected | UnrecognizedResponse | OutcomeUnknown:
    message, wait = _message(answer), retry_after_seconds(answer)
    if answer.status == 404 and message.casefold().startswith("project not found"):
        return ProjectMissing(message=message)
    if _own_words(answer):
        return Rejected(status=answer.status, message=message, retry_after_seconds=wait)
    if 300 <= answer.status < 500:
        return UnrecognizedResponse(status=answer.status, message=message, retry_after_seconds=wait)
    return OutcomeUnknown(status=answer.status, message=message, retry_after_seconds=wait)


def _own_words(answer: HttpResponse) -> bool:
    """Return whether a refusal is in TestNod's own words.

    It never answers 401 or 403, because a bad token is a 404, and each 404 has a sentence of its own.
    """
    message = read_object(answer.body).get("error_message")
    if not isinstance(message, str) or not message.strip():
        return False
    if answer.status == 404:
        return message.strip().casefold().startswith(OWN_404)
    return 400 <= answer.status < 500 and answer.status not in (401, 403)


def _not_understood(answer: HttpResponse, missing: str) -> OutcomeUnknown:
    return OutcomeUnknown(status=answer.status, message=f"TestNod answered HTTP {answer.status} without {missing}.")


def _message(answer: HttpResponse) -> str:
    return say(answer, read_object(answer.body).get("error_message"))


def _status(answer: HttpResponse, documented: frozenset[str]) -> str | None:
    status = read_object(answer.body).get("status")
    return status if isinstance(status, str) and status in documented else None


def _url(value: object) -> str:
    # Shown as a link or sent in a request line: no other scheme, nothing that a request line cannot hold.
    usable = isinstance(value, str) and len(value) <= MAX_URL_CHARACTERS and _USABLE_URL.fullmatch(value)
    return str(value) if usable else ""


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
