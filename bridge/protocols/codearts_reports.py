"""CodeArts Build's unit test reports: how they are uploaded and read back, and the meaning of each response.

Source: "Uploading a Unit Test Report"; for full-stages and the report summary the official SDK
(`show_record_full_stages`, `show_report_summary`).
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any
from urllib.parse import quote

from bridge.domain.lifecycle.mirror import (
    MirrorRejected,
    MirrorUploaded,
    ReportStage,
    ReportStages,
    StagesOutcome,
    SummaryOutcome,
    TestTotals,
    UploadOutcome,
)
from bridge.domain.outcomes import OutcomeUnknown, Rejected
from bridge.protocols.codearts_build import failure, is_own_code, result_of
from bridge.protocols.http_response import HttpResponse, read_error, read_json, scalar

UPLOAD_PATH = "/v1/report/junit/report/upload"
MAX_NODE_ID_CHARACTERS = 32
MAX_STAGES = 1_000  # a build has a few
SUCCESS = "success"
REJECTION_STATUSES = frozenset({400, 413, 415, 422})
"""Statuses about the request itself: CodeArts would reject the same upload again."""

RUNNING = frozenset({"running", "building", "in_progress", "executing"})


def upload_target(job_id: str, build_no: int, node_id: str) -> str:
    """Return path and query of the upload."""
    return f"{UPLOAD_PATH}?job_id={quote(job_id, safe='')}&build_no={build_no}&node_id={quote(node_id, safe='')}"


def full_stages_path(record_id: str) -> str:
    """Return the path of full-stages; `record_id` is `build_record_id` of record-info."""
    return f"/v1/record/{quote(record_id, safe='')}/full-stages"


def summary_target(job_id: str, build_no: int) -> str:
    """Return path and query of the report summary."""
    return f"/v1/report/{quote(job_id, safe='')}/summary?build_no={build_no}"


def part_head(boundary: str, name: str) -> bytes:
    """Return the head of a file's part in the upload form, with the name quoted as browsers do (HTML, 4.10.21.8)."""
    quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{quoted}"\r\n'
    return f"{head}Content-Type: text/xml\r\n\r\n".encode("utf-8", "replace")


def form_end(boundary: str) -> bytes:
    """Return the end of the upload form."""
    return f"--{boundary}--\r\n".encode("ascii")


PART_END = b"\r\n"


def read_upload(response: HttpResponse) -> UploadOutcome:
    """Return the outcome of an upload.

    It is accepted if the response is HTTP 200 with `"status": "success"` (table 3 of the reference). It is rejected if
    the status is one of REJECTION_STATUSES and the error code is of CodeArts: error pages of a proxy have none.
    """
    value = read_json(response.body)
    if response.status == 200 and isinstance(value, dict) and _is_success(value):
        return MirrorUploaded()
    outcome = failure(response, value)
    if isinstance(outcome, Rejected) and outcome.status in REJECTION_STATUSES and is_own_code(read_error(value)[0]):
        return MirrorRejected(status=outcome.status, message=outcome.message)
    if isinstance(outcome, OutcomeUnknown) and response.status == 200:
        return replace(outcome, message=f'CodeArts returned HTTP 200 for the upload without "{SUCCESS}".')
    return outcome


def _is_success(value: dict[str, Any]) -> bool:
    status = value.get("status")
    return isinstance(status, str) and status.casefold() == SUCCESS and not any(read_error(value))


def read_full_stages(response: HttpResponse) -> StagesOutcome:
    """Return the outcome of full-stages: `build_stages` by id, or a list of them."""
    result = result_of(response)
    if not isinstance(result, dict | list):
        return result
    return ReportStages(stages=tuple(_stages(result)))


def _stages(result: dict[str, Any] | list[Any]) -> Iterator[ReportStage]:
    found = result.get("build_stages", result) if isinstance(result, dict) else result
    members = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    for index, stage in enumerate(islice(members, MAX_STAGES)):
        if isinstance(stage, dict) and (node_id := scalar(stage.get("node_id"), limit=MAX_NODE_ID_CHARACTERS)):
            status, sequence = stage.get("status"), stage.get("sequence")
            yield ReportStage(
                node_id=node_id,
                running=isinstance(status, str) and status.casefold() in RUNNING,
                sequence=sequence if isinstance(sequence, int) else index,
            )


def read_summary(response: HttpResponse) -> SummaryOutcome:
    """Return the outcome of the report summary; `summary` has the totals over all reports of the build."""
    result = result_of(response)
    if not isinstance(result, dict | list):
        return result
    counts = result.get("summary") if isinstance(result, dict) else None
    if counts is None:
        return TestTotals()  # nothing was uploaded
    try:
        total, failures, errors, others = (int(counts[name]) for name in ("total", "failures", "errors", "others"))
    except (TypeError, ValueError, OverflowError, LookupError):
        return OutcomeUnknown(status=200, message="The report summary returned HTTP 200 without its totals.")
    return TestTotals(total=total, failures=failures, errors=errors, others=others)
