"""CodeArts Check: how its report is requested, and the meaning of each response.

Source: "Querying the Latest Check Report and Refreshing the Check Report" of the API reference.
"""

import re
from itertools import islice
from typing import Any
from urllib.parse import quote

from bridge.domain import outcomes
from bridge.domain.code_check.models import COUNTERS, CheckReport, CodeCheckRules
from bridge.protocols.codearts_build import failure, is_error
from bridge.protocols.http_response import HttpResponse, read_json, scalar

MAX_NUMBERS = 64  # the reference lists 27; others are numbers too, up to this limit
MAX_NUMBER = 2**53  # larger numbers are not counts, and JSON readers round them
LIMITED = tuple(key for keys in COUNTERS.values() for key in keys)
"""Keys that a limit may apply to."""

_COUNT = re.compile(r"([0-9]{1,16}|[0-9]{1,3}(?:,[0-9]{3}){1,5})(?:\.0{1,2})?")
"""A count as text, with or without commas between thousands. "1.000" is excluded, because it may mean 1 or 1000."""

MAX_KEY_CHARACTERS = 64
MAX_TOOLS = 64
MAX_TOOL_CHARACTERS = 128
MAX_URL_CHARACTERS = 2048


def refresh_target(rules: CodeCheckRules, *, in_background: bool) -> str:
    """Return path and query for the report; if `in_background`, only for starting its refresh.

    The path contains the execution record, or the task if no record is known. With a task in the query, the response is
    the task's latest report.
    """
    record = quote(rules.job_id or rules.task_id, safe="")
    task = quote(rules.task_id, safe="")
    return f"/v1/jobs/{record}/result/refresh?task_id={task}&async={'true' if in_background else 'false'}"


def read_refresh(response: HttpResponse, *, in_background: bool) -> outcomes.CheckOutcome:
    """Return the outcome of a refresh; HTTP 200 may come with an error or with an empty body."""
    value = read_json(response.body)
    if response.status != 200 or (isinstance(value, dict) and is_error(value)):
        failed = failure(response, value)
        if isinstance(failed, outcomes.NoSuchBuild):  # a record of Check, which may appear later
            return outcomes.Rejected(status=response.status, message=failed.message)
        return failed
    if in_background:
        return outcomes.CheckReportPending()
    result = value.get("result") if isinstance(value, dict) else None
    report = _report(result) if isinstance(result, dict) else None
    if report is None:
        what = "without a report" if response.body.strip() else "with an empty body"
        return outcomes.OutcomeUnknown(status=200, message=f"CodeArts Check returned HTTP 200 {what}.")
    return outcomes.CheckReportFetched(report=report)


def _report(result: dict[str, Any]) -> CheckReport | None:
    """Return the report in `result`; None if it has no counts. Keys keep their case."""
    numbers = {key: number for key, value in result.items() if (number := _number(value)) is not None}
    shown = {name: numbers[key] for key in numbers if (name := _name(key))}
    free = MAX_NUMBERS - sum(name in LIMITED for name in shown)
    others = set(islice((name for name in shown if name not in LIMITED), free))
    selected = {name: number for name, number in shown.items() if name in LIMITED or name in others}
    if not selected:
        return None
    tools = result.get("TOOL_LIST")
    names = [scalar(tool, limit=MAX_TOOL_CHARACTERS) for tool in (tools if isinstance(tools, list) else [])[:MAX_TOOLS]]
    return CheckReport(
        numbers=tuple(selected.items()),
        tools=tuple(dict.fromkeys(tool for tool in names if tool)),
        url=scalar(result.get("REPORT_URL"), limit=MAX_URL_CHARACTERS),
        unreadable=tuple(key for key in LIMITED if key in result and _number(result[key]) is None),
    )


def _name(key: str) -> str | None:
    """Return a key fit for display; None if it would then be equal to a counter that it is not."""
    name = scalar(key, limit=MAX_KEY_CHARACTERS)
    return None if name != key and name in LIMITED else name


def _number(value: object) -> int | None:
    """Return a count, also from text or a float; None if the value may mean something else."""
    if isinstance(value, str) and (match := _COUNT.fullmatch(value.strip())):
        value = int(match[1].replace(",", ""))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER:
        return value
    return None
