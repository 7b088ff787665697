"""CodeArts Check as values: how its report is asked for, and what each answer means.

It follows "Querying the Latest Check Report and Refreshing the Check Report" of the API reference; it knows neither
sessions nor credentials.
"""

import re
from itertools import islice
from typing import Any
from urllib.parse import quote

from bridge.domain.code_check.models import COUNTERS, CheckReport, CodeCheckRules
from bridge.domain.outcomes import (
    CheckOutcome,
    CheckReportFetched,
    CheckReportPending,
    NoSuchBuild,
    OutcomeUnknown,
    Rejected,
)
from bridge.protocols.codearts_build import failure, says_error
from bridge.protocols.http_response import HttpResponse, read_json, scalar

MAX_NUMBERS = 64  # the reference names 27; whatever else comes is told too, within bounds
MAX_NUMBER = 2**53  # what passes through JSON unchanged, and is no count beyond
LIMITED = tuple(key for keys in COUNTERS.values() for key in keys)
"""Keys that a limit may be held against."""

_COUNT = re.compile(r"([0-9]{1,16}|[0-9]{1,3}(?:,[0-9]{3}){1,5})(?:\.0{1,2})?")
"""A count as text, perhaps with commas between thousands. "1.000" is left out: it is 1 here and 1000 elsewhere."""

MAX_KEY_CHARACTERS = 64
MAX_TOOLS = 64
MAX_TOOL_CHARACTERS = 128
MAX_URL_CHARACTERS = 2048


def refresh_target(rules: CodeCheckRules, *, in_background: bool) -> str:
    """Return path and query that ask for the report, or `in_background` only for having it made anew.

    The path holds the execution record, and the task where no record is known; with a task in the query it is the
    task's latest report that comes.
    """
    record = quote(rules.job_id or rules.task_id, safe="")
    task = quote(rules.task_id, safe="")
    return f"/v1/jobs/{record}/result/refresh?task_id={task}&async={'true' if in_background else 'false'}"


def read_refresh(answer: HttpResponse, *, in_background: bool) -> CheckOutcome:
    """Say what an answer means: it may be HTTP 200 with an error inside, or with nothing inside."""
    value = read_json(answer.body)
    if answer.status != 200 or (isinstance(value, dict) and says_error(value)):
        failed = failure(answer, value)
        if isinstance(failed, NoSuchBuild):  # of a record of Check, which may come yet
            return Rejected(status=answer.status, message=failed.message)
        return failed
    if in_background:
        return CheckReportPending()
    result = value.get("result") if isinstance(value, dict) else None
    report = _report(result) if isinstance(result, dict) else None
    if report is None:
        what = "an answer that holds no report" if answer.body.strip() else "nothing"
        return OutcomeUnknown(status=200, message=f"CodeArts Check answered HTTP 200 with {what}.")
    return CheckReportFetched(report=report)


def _report(result: dict[str, Any]) -> CheckReport | None:
    """Return the report in `result`; None if it counts nothing at all. Keys are kept as they are, case and all."""
    numbers = {key: number for key, value in result.items() if (number := _number(value)) is not None}
    shown = {name: numbers[key] for key in numbers if (name := _name(key))}
    room = MAX_NUMBERS - sum(name in LIMITED for name in shown)
    others = set(islice((name for name in shown if name not in LIMITED), room))
    kept = {name: number for name, number in shown.items() if name in LIMITED or name in others}
    if not kept:
        return None
    tools = result.get("TOOL_LIST")
    named = [scalar(tool, limit=MAX_TOOL_CHARACTERS) for tool in (tools if isinstance(tools, list) else [])[:MAX_TOOLS]]
    return CheckReport(
        numbers=tuple(kept.items()),
        tools=tuple(dict.fromkeys(tool for tool in named if tool)),
        url=scalar(result.get("REPORT_URL"), limit=MAX_URL_CHARACTERS),
        unreadable=tuple(key for key in LIMITED if key in result and _number(result[key]) is None),
    )


def _name(key: str) -> str | None:
    """Return a key fit to be shown; None for one that would then look like a counter that it is not."""
    name = scalar(key, limit=MAX_KEY_CHARACTERS)
    return None if name != key and name in LIMITED else name


def _number(value: object) -> int | None:
    """Return a count, which may have come as text or as a float; None if it may mean something else."""
    if isinstance(value, str) and (match := _COUNT.fullmatch(value.strip())):
        value = int(match[1].replace(",", ""))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER:
        return value
    return None
