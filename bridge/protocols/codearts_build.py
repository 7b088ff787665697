"""CodeArts Build: the paths that the bridge calls, and the meaning of each response.

Source: "Obtaining the Status … for a Named Build" and "Obtaining Build Record Information" (also version 4) of the API
reference.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from bridge.domain import outcomes
from bridge.domain.build import BuildRecord
from bridge.domain.instants import Instant
from bridge.protocols.http_response import (
    HttpResponse,
    Json,
    describe_error,
    read_error,
    read_json,
    retry_after_seconds,
    scalar,
    whole_number,
)

CREDENTIAL_CODES = frozenset({"APIGW.0301", "APIGW.0307", "CC.00000003"})
THROTTLE_CODES = frozenset({"APIGW.0308", "CB.00060211"})
DELETED_CODES = frozenset({"CB.00031059"})
NO_SUCH_API_CODE = "APIGW.0101"
NO_SUCH_BUILD_SUFFIX = "00031006"  # DEVCB.00031006 and CB.00031006

MAX_FIELD_CHARACTERS = 512
MAX_RESULT_CHARACTERS = 64

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OWN_CODE = re.compile(r"(?!APIGW)[A-Z]+\.[0-9]+")  # of a CodeArts service, not of the API gateway
_ERROR_STATUSES = frozenset({"error", "fail", "failed"})

Failure = (
    outcomes.NoSuchBuild
    | outcomes.CredentialsRejected
    | outcomes.Throttled
    | outcomes.Rejected
    | outcomes.OutcomeUnknown
)


def build_info_path(job_id: str, build_no: int) -> str:
    """Return the path of build-info."""
    return f"/v1/job/{quote(job_id, safe='')}/{build_no}/build-info"


def record_info_path(job_id: str, build_no: int) -> str:
    """Return the path of record-info."""
    return f"/v1/record/{quote(job_id, safe='')}/{build_no}/record-info"


def record_info_v4_path(job_id: str, build_no: int) -> str:
    """Return the older path of record-info, the only one in some regions; the response is the same."""
    return f"/v4/jobs/{quote(job_id, safe='')}/{build_no}/record-info"


def is_no_such_api(response: HttpResponse) -> bool:
    """Return whether the API gateway does not have this path, so that the other path is worth a try."""
    return response.status == 404 and read_error(read_json(response.body))[0] == NO_SUCH_API_CODE


def credentials_rejected(response: HttpResponse) -> str:
    """Return why the credentials were rejected, empty if they were not."""
    value = read_json(response.body)
    if response.status == 200 and not (isinstance(value, dict) and is_error(value)):
        return ""
    failed = failure(response, value)
    return failed.message if isinstance(failed, outcomes.CredentialsRejected) else ""


def read_build_info(response: HttpResponse) -> outcomes.PollOutcome:
    """Return the outcome of build-info; `result` is an array in the reference and an object in practice."""
    result = result_of(response)
    if not isinstance(result, dict | list):
        return result
    entries = result if isinstance(result, list) else [result]
    states = [flag(entry.get("building")) if isinstance(entry, dict) else None for entry in entries]
    if not states or None in states:
        return outcomes.OutcomeUnknown(status=200, message="build-info returned HTTP 200 without the field building.")
    return outcomes.BuildInfo(
        # Several entries are not documented; if one still runs, the run must not be finalized yet.
        building=True in states,
        result=scalar(entries[0].get("build_result"), limit=MAX_RESULT_CHARACTERS),
        region=scalar(entries[0].get("region"), limit=MAX_FIELD_CHARACTERS),
    )


def read_record_info(response: HttpResponse) -> outcomes.RecordOutcome:
    """Return the outcome of record-info; each of its fields may be null."""
    result = result_of(response)
    if not isinstance(result, dict | list):
        return result
    record = result[0] if isinstance(result, list) and result else result
    if not isinstance(record, dict) or not record:
        return outcomes.OutcomeUnknown(status=200, message="record-info returned HTTP 200 without a record.")
    return outcomes.RecordFetched(record=_record(record), started_at=_time(record.get("start_time")))


def _record(fields: dict[str, Any]) -> BuildRecord:
    def text(name: str) -> str | None:
        return scalar(fields.get(name), limit=MAX_FIELD_CHARACTERS)

    return BuildRecord(
        devcloud_project_id=text("devcloud_project_id"),
        repo_name=text("repo_name"),
        branch=text("branch"),
        tag=text("tag"),
        commit=text("commit"),
        daily_build_num=text("daily_build_num"),
        trigger_type=text("trigger_type"),
        region=text("region"),
        build_record_id=text("build_record_id"),
    )


def _time(value: object) -> Instant | None:
    """Return a time of a record: text with a time zone in the reference, milliseconds since 1970 in the lists."""
    if (milliseconds := whole_number(value)) is not None:
        return Instant(milliseconds * 1000)
    try:
        read = datetime.fromisoformat(value) if isinstance(value, str) else None
        return None if read is None else Instant(max(0, (read - _EPOCH) // timedelta(microseconds=1)))
    except (ValueError, TypeError, OverflowError):  # TypeError: it has no time zone
        return None


def result_of(response: HttpResponse) -> dict[str, Any] | list[Any] | Failure:
    """Return `result` if status and body show success, else the outcome of the failure."""
    value = read_json(response.body)
    if response.status != 200 or not isinstance(value, dict) or is_error(value):
        return failure(response, value)
    result = value.get("result")
    if isinstance(result, dict | list):
        return result
    return outcomes.OutcomeUnknown(status=200, message="CodeArts returned HTTP 200 without a result.")


def is_own_code(code: str) -> bool:
    """Return whether an error code is of a CodeArts service, not of the API gateway or a proxy before it."""
    return _OWN_CODE.fullmatch(code) is not None


def is_error(value: dict[str, Any]) -> bool:
    """Return whether a body reports an error, whatever its HTTP status."""
    status = value.get("status")
    failed = isinstance(status, str) and status.casefold() in _ERROR_STATUSES
    return failed or bool(value.get("error_code")) or (bool(value.get("error")) and not value.get("result"))


def failure(response: HttpResponse, value: Json) -> Failure:
    """Return the outcome of a failed call; the error code takes precedence over the status."""
    code, text = read_error(value)
    message = describe_error(response, f"{code}: {text}" if code and text else text or code)
    wait = retry_after_seconds(response)
    if response.status == 401 or code in CREDENTIAL_CODES:
        return outcomes.CredentialsRejected(message=message)
    if response.status == 429 or code in THROTTLE_CODES:
        return outcomes.Throttled(message=message, retry_after_seconds=wait)
    if response.status < 500 and _no_such_build(response.status, code):
        return outcomes.NoSuchBuild(message=message)
    if 400 <= response.status < 500 or (response.status == 200 and (code or text)):
        return outcomes.Rejected(status=response.status, message=message, retry_after_seconds=wait)
    return outcomes.OutcomeUnknown(status=response.status, message=message, retry_after_seconds=wait)


def _no_such_build(status: int, code: str) -> bool:
    named = code in DELETED_CODES or code.endswith(f".{NO_SUCH_BUILD_SUFFIX}")
    return named or (status == 404 and is_own_code(code))


def flag(value: object) -> bool | None:
    """Return a boolean from JSON, which may be written as a string; None if it is something else."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.casefold())
    return value if isinstance(value, bool) else None
