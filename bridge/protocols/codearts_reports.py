"""CodeArts Build's unit test reports as values: where they are uploaded and read back, and what each answer means.

It follows "Uploading a Unit Test Report", and for full-stages and the report summary the official SDK
(`show_record_full_stages`, `show_report_summary`); it knows neither sessions nor credentials.
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
MAX_STAGES = 1_000  # which are remembered for a while: a build has a few
SUCCESS = "success"
REFUSALS = frozenset({400, 413, 415, 422})
"""Statuses about the request itself: CodeArts would refuse the same upload again."""

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
    """Return what stands before a file called `name` in the upload's form, quoted as browsers do (HTML, 4.10.21.8)."""
    quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{quoted}"\r\n'
    return f"{head}Content-Type: text/xml\r\n\r\n".encode("utf-8", "replace")


def form_end(boundary: str) -> bytes:
    """Return what ends the upload's form."""
    return f"--{boundary}--\r\n".encode("ascii")


PART_END = b"\r\n"


def read_upload(answer: HttpResponse) -> UploadOutcome:
    """Return what an answer to the upload means.

    Taken is what has HTTP 200 and `"status": "success"` (Table 3 of the reference). Refused is what has a status of
    REFUSALS and an error code of CodeArts: pages of a proxy in front have none.
    """
    value = read_json(answer.body)
    if answer.status == 200 and isinstance(value, dict) and _says_success(value):
        return MirrorUploaded()
    outcome = failure(answer, value)
    if isinstance(outcome, Rejected) and outcome.status in REFUSALS and is_own_code(read_error(value)[0]):
        return MirrorRejected(status=outcome.status, message=outcome.message)
    if isinstance(outcome, OutcomeUnknown) and answer.status == 200:
        return replace(outcome, message=f'CodeArts answered the upload with HTTP 200 without "{SUCCESS}".')
    return outcome


def _says_success(value: dict[str, Any]) -> bool:
    status = value.get("status")
    return isinstance(status, str) and status.casefold() == SUCCESS and not any(read_error(value))


def read_full_stages(answer: HttpResponse) -> StagesOutcome:
    """Say what an answer to full-stages means: `build_stages` by id, or a list of them."""
    result = result_of(answer)
    if not isinstance(result, dict | list):
        return result
    return ReportStages(stages=tuple(_stages(result)))


def _stages(result: dict[str, Any] | list[Any]) -> Iterator[ReportStage]:
    found = result.get("build_stages", result) if isinstance(result, dict) else result
    members = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    for place, stage in enumerate(islice(members, MAX_STAGES)):
        if isinstance(stage, dict) and (node_id := scalar(stage.get("node_id"), limit=MAX_NODE_ID_CHARACTERS)):
            status, sequence = stage.get("status"), stage.get("sequence")
            yield ReportStage(
                node_id=node_id,
                running=isinstance(status, str) and status.casefold() in RUNNING,
                sequence=sequence if isinstance(sequence, int) else place,
            )


def read_summary(answer: HttpResponse) -> SummaryOutcome:
    """Say what an answer to the report summary means: `summary` counts all reports of the build together."""
    result = result_of(answer)
    if not isinstance(result, dict | list):
        return result
    counts = result.get("summary") if isinstance(result, dict) else None
    if counts is None:
        return TestTotals()  # nothing was uploaded
    try:
        total, failures, errors, others = (int(counts[name]) for name in ("total", "failures", "errors", "others"))
    except (TypeError, ValueError, OverflowError, LookupError):
        return OutcomeUnknown(status=200, message="The report summary answered HTTP 200 without its totals.")
    return TestTotals(total=total, failures=failures, errors=errors, others=others)
