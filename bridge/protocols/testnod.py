"""TestNod's Submission API: the request of each call, and the meaning of each response.

Source: docs.testnod.com, "Submission API for uploading JUnit XML from CI".
"""

import hashlib
import re
from functools import lru_cache
from urllib.parse import urlencode

from bridge.domain import outcomes
from bridge.domain.build import RunParameters
from bridge.domain.instants import Instant
from bridge.domain.secret_search import SecretSearch, decode, search_for
from bridge.domain.text_format import page_url
from bridge.protocols.http_response import HttpResponse, clean, describe_error, read_object, retry_after_seconds, scalar
from bridge.protocols.s3 import presigned_expiry, secrets_in_query

REGISTER_PATH = "/integrations/test_runs/upload"
FINALIZE_PATH = "/integrations/test_runs/finalize"
UPLOAD_FAILED_PATH = "/integrations/test_runs/upload_failed"

PROBE_BUILD_ID = "bridge-probe-7c1f0e52-never-a-build"
"""A build_id that no build has: finalizing it shows that TestNod and the token work, without side effects."""

MAX_ID_CHARACTERS = 64
OWN_404_MESSAGES = ("project not found", "test run not found", "upload not found")
"""How messages of TestNod's own 404s begin; other 404s come from a wrong base_url or a proxy."""

FOREIGN = "(not an answer of TestNod: check testnod.base_url)"

RUN_STATUSES = frozenset({"pending", "processing", "processed", "failed"})
"""All statuses that finalize is documented to return; any other leaves the run unfinished."""

TERMINAL_STATUSES = frozenset({"processed", "failed"})
"""All statuses that upload_failed can return: `failed`, or the state in which the upload ended before."""

MAX_URL_CHARACTERS = 8000
"""Below the 8,190 bytes at which common servers reject a request line."""

_USABLE_URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)

Fields = list[tuple[str, str]]


@lru_cache(maxsize=64)
def register_body(run_parameters: RunParameters) -> tuple[str, bytes]:
    """Return Content-Type and body of a register call: the same for all reports of a run."""
    return multipart(register_form(run_parameters))


def register_form(run_parameters: RunParameters) -> Fields:
    """Return the fields of a register call; optional ones that are empty are left out."""
    optional = {"branch": run_parameters.branch, "commit_sha": run_parameters.commit, "run_url": run_parameters.run_url}
    fields = [("test_run[metadata][build_id]", run_parameters.build_id)]
    fields += [(f"test_run[metadata][{name}]", value) for name, value in optional.items() if value]
    fields += [("tags[][value]", tag) for tag in run_parameters.tags]
    return fields


def finalize_form(build_id: str) -> Fields:
    """Return the fields of a finalize call."""
    return [("build_id", build_id)]


def upload_failed_form(*, test_run_id: str, upload_id: str, failure_message: str) -> Fields:
    """Return the fields of an upload_failed call; the message is cleaned of secrets."""
    return [("test_run_id", test_run_id), ("upload_id", upload_id), ("failure_message", clean(failure_message))]


def multipart(fields: Fields) -> tuple[str, bytes]:
    """Return Content-Type and body of `fields` (with ASCII names) as multipart/form-data, like curl's -F.

    The boundary is a digest of the values, so that no value contains it. Parts have no Content-Type, because servers
    such as Rails treat a part with one as a file.
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
    """Return Content-Type and body of `fields` as a form in one line, like curl's -d."""
    return "application/x-www-form-urlencoded", urlencode([(n, _octets(v)) for n, v in fields]).encode("ascii")


def read_register(response: HttpResponse) -> outcomes.RegisterOutcome:
    """Return the outcome of register; the URL's expiry is converted to our clock."""
    if 200 <= response.status < 300:
        return _registered(response)
    if response.status == 409 and _is_own_error(response):
        return outcomes.Conflict(message=_message(response))
    return _failure(response)


def read_finalize(response: HttpResponse) -> outcomes.FinalizeOutcome:
    """Return the outcome of finalize."""
    if response.status == 200:
        status = _status(response, RUN_STATUSES)
        return (
            outcomes.RunStatus(status=status) if status else _unrecognized(response, "a run status that it documents")
        )
    if response.status == 404 and "test run not found" in _message(response).casefold():
        return outcomes.RunMissing(message=_message(response))
    if response.status == 422 and "no uploads received" in _message(response).casefold():
        return outcomes.RunEmpty(message=_message(response))
    return _failure(response)


def read_upload_failed(response: HttpResponse) -> outcomes.UploadFailedOutcome:
    """Return the outcome of upload_failed."""
    if response.status == 200:
        status = _status(response, TERMINAL_STATUSES)
        return (
            outcomes.FailureRecorded(status=status)
            if status
            else _unrecognized(response, "an upload status that it documents")
        )
    return _failure(response)


def _registered(response: HttpResponse) -> outcomes.Registered | outcomes.OutcomeUnknown:
    fields = read_object(response.body)
    test_run_id = scalar(fields.get("test_run_id"), limit=MAX_ID_CHARACTERS)
    upload_id = scalar(fields.get("upload_id"), limit=MAX_ID_CHARACTERS)
    if not (test_run_id and upload_id) or _holds_secret(response, f"{test_run_id} {upload_id}"):
        return _unrecognized(response, "test_run_id and upload_id")
    project_id = scalar(fields.get("project_id") or fields.get("project"), limit=MAX_ID_CHARACTERS) or ""
    presigned_url = _url(fields.get("presigned_url")) if response.status == 201 else ""
    expires_at = presigned_expiry(presigned_url, now_us=response.received_at, signed_at=response.dated_at)
    return outcomes.Registered(
        test_run_id=test_run_id,
        upload_id=upload_id,
        test_run_url=_page(response, fields.get("test_run_url"), presigned_url),
        presigned_url=presigned_url,
        expires_at=None if expires_at is None else Instant(expires_at),
        project_id="" if _holds_secret(response, project_id) else project_id,
    )


def _failure(
    response: HttpResponse,
) -> outcomes.ProjectMissing | outcomes.Rejected | outcomes.UnrecognizedResponse | outcomes.OutcomeUnknown:
    message, wait = _message(response), retry_after_seconds(response)
    if response.status == 404 and message.casefold().startswith("project not found"):
        return outcomes.ProjectMissing(message=message)
    if _is_own_error(response):
        return outcomes.Rejected(status=response.status, message=message, retry_after_seconds=wait)
    if 300 <= response.status < 500:
        message = (
            f"{message.rstrip('.')}. This is not an answer of TestNod. Check testnod.base_url, and what answers there."
        )
        return outcomes.UnrecognizedResponse(status=response.status, message=message, retry_after_seconds=wait)
    return outcomes.OutcomeUnknown(status=response.status, message=message, retry_after_seconds=wait)


def _is_own_error(response: HttpResponse) -> bool:
    """Return whether an error is TestNod's own.

    TestNod never returns 401 or 403, because a bad token is a 404, and each 404 has its own message.
    """
    message = read_object(response.body).get("error_message")
    if not isinstance(message, str) or not message.strip():
        return False
    if response.status == 404:
        return message.strip().casefold().startswith(OWN_404_MESSAGES)
    return 400 <= response.status < 500 and response.status not in (401, 403)


def _unrecognized(response: HttpResponse, missing: str) -> outcomes.OutcomeUnknown:
    return outcomes.OutcomeUnknown(
        status=response.status, message=f"TestNod returned HTTP {response.status} without {missing}."
    )


def _message(response: HttpResponse) -> str:
    return describe_error(response, read_object(response.body).get("error_message"))


def _status(response: HttpResponse, documented: frozenset[str]) -> str | None:
    status = read_object(response.body).get("status")
    return status if isinstance(status, str) and status in documented else None


def _url(value: object) -> str:
    # Only http(s), and only characters that a request line allows.
    usable = isinstance(value, str) and len(value) <= MAX_URL_CHARACTERS and _USABLE_URL.fullmatch(value)
    return str(value) if usable else ""


def _page(response: HttpResponse, value: object, presigned_url: str) -> str:
    """Return the URL of a run's page, which people see; empty if it holds a secret."""
    url = _page_without(response.secrets, page_url(_url(value)))
    signed = SecretSearch(secrets_in_query(presigned_url.partition("?")[2]))
    return url if signed.redact(url, "…") == url else ""


@lru_cache(maxsize=64)
def _page_without(secrets: tuple[str, ...], url: str) -> str:
    """Return the URL of a page, which all registers of a run return; empty if it holds a secret."""
    decoded = decode(url)
    is_clean = clean(decoded, limit=MAX_URL_CHARACTERS) == decoded
    return url if is_clean and search_for(*secrets).redact(url, "…") == url else ""


def _holds_secret(response: HttpResponse, text: str) -> bool:
    """Return whether a text of the response holds a secret of its request."""
    return search_for(*response.secrets).redact(text, "…") != text


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
